package yamlkeys

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Value reads one scalar. parse returns false for what it refuses, and want then completes the error: `"x" is not a port;
// write 1 to 65535`.
func Value[T any](to *T, want string, parse func(text string) (T, bool)) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		if n.Kind == yaml.ScalarNode {
			if v, ok := parse(n.Value); ok {
				*to = v
				return nil
			}
		}
		return refuse(n, want)
	}
}

// Values reads a list of scalars, each as Value does.
func Values[T any](to *[]T, want string, parse func(text string) (T, bool)) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		items, err := List(n)
		if err != nil {
			return err
		}
		*to = make([]T, len(items))
		for i, item := range items {
			if err := Value(&(*to)[i], want, parse)(item); err != nil {
				return &Error{Line: item.Line, Err: err}
			}
		}
		return nil
	}
}

// CommaValues reads a list of scalars like Values, where each scalar may also hold several with commas between them, as an
// environment variable does.
func CommaValues[T any](to *[]T, want string, parse func(text string) (T, bool)) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		items := []*yaml.Node{n}
		if n.Kind == yaml.SequenceNode {
			items, _ = List(n)
		}
		var list []T
		for _, item := range items {
			if item.Kind != yaml.ScalarNode {
				return &Error{Line: item.Line, Err: refuse(item, want)}
			}
			for text := range strings.SplitSeq(item.Value, ",") {
				text = strings.TrimSpace(text)
				v, ok := parse(text)
				if !ok {
					return &Error{Line: item.Line, Err: fmt.Errorf("%q is not %s", text, want)}
				}
				list = append(list, v)
			}
		}
		*to = list
		return nil
	}
}

// Text reads any scalar but null.
func Text(to *string) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
			return errors.New("must be plain text; write one value")
		}
		*to = n.Value
		return nil
	}
}

// Bool reads true or false.
func Bool(to *bool) func(*yaml.Node) error {
	return Value(to, "true or false; write one of them", func(text string) (bool, bool) {
		return text == "true", text == "true" || text == "false"
	})
}

// Int reads a number from low to high.
func Int(to *int, low, high int) func(*yaml.Node) error {
	return Value(to, fmt.Sprintf("a number from %d to %d; write one", low, high), func(text string) (int, bool) {
		i, err := strconv.Atoi(text)
		return i, err == nil && i >= low && i <= high
	})
}

// Duration reads a time from low to high.
func Duration(to *time.Duration, low, high time.Duration) func(*yaml.Node) error {
	return Value(to, fmt.Sprintf("a time from %s to %s; write it like 30s or 10m", low, high), func(text string) (time.Duration, bool) {
		d, err := time.ParseDuration(text)
		return d, err == nil && d >= low && d <= high
	})
}

// Word reads one of the words.
func Word[T ~string](to *T, want string, words ...T) func(*yaml.Node) error {
	return Value(to, want, func(text string) (T, bool) { return T(text), slices.Contains(words, T(text)) })
}

// refuse is the error for an n that is not what is wanted.
func refuse(n *yaml.Node, want string) error {
	return fmt.Errorf("%s is not %s", show(n), want)
}

// show is n as it may appear in a message.
func show(n *yaml.Node) string {
	switch n.Kind {
	case yaml.ScalarNode:
		return strconv.Quote(n.Value)
	case yaml.SequenceNode:
		return "a list"
	default:
		return "a mapping"
	}
}
