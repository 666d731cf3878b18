// Package yamlkeys reads a YAML document whose keys are known. Its errors say in one line where a mistake is, what is wrong
// and what to do. Both programs read their configuration with it.
//
// It reads nodes rather than decoding into a struct, because yaml.v3 reports neither the line of a value that a type refuses
// nor, except in prose, that of an unknown key.
package yamlkeys

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// Keys maps every dotted key to what reads its value. Aliases have been followed.
type Keys map[string]func(n *yaml.Node) error

// Error says what is wrong with a configuration, where, and what to do, in one line.
type Error struct {
	Origin string // file, variable or flag; empty inside a reader of Keys
	Line   int    // in the file, 0 if there are no lines
	Key    string // dotted, empty for the document as a whole
	Err    error
}

// Error is "file:line: key: what is wrong; what to do".
func (e *Error) Error() string {
	var b strings.Builder
	if e.Origin != "" {
		b.WriteString(e.Origin)
		if e.Line > 0 {
			fmt.Fprintf(&b, ":%d", e.Line)
		}
		b.WriteString(": ")
	}
	if e.Key != "" {
		key := e.Key
		if quoted := strconv.Quote(key); quoted != `"`+key+`"` {
			key = quoted // it may contain anything, line breaks included
		}
		b.WriteString(key + ": ")
	}
	b.WriteString(strings.Join(strings.Fields(e.Err.Error()), " "))
	return b.String()
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Lines has the line of each key of a document.
type Lines map[string]int

// Locate makes an *Error of err, which concerns key: at the key's line, or at that of the nearest section around it.
func (l Lines) Locate(origin, key string, err error) error {
	e := &Error{Origin: origin, Key: key, Err: err}
	for {
		line, ok := l[key]
		i := strings.LastIndexByte(key, '.')
		if ok || i < 0 {
			e.Line = line
			return e
		}
		key = key[:i]
	}
}

// Read reads one document, which may be empty, and calls the reader of each of its keys. Errors are *Error.
func Read(origin string, data []byte, keys Keys) (Lines, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	lines := make(Lines)
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return lines, nil // empty, or nothing but comments
	} else if err != nil {
		return nil, syntaxError(origin, err)
	}
	if err := dec.Decode(&second); err == nil {
		return nil, &Error{Origin: origin, Line: second.Line, Err: errors.New("a second document would be ignored; remove this ---")}
	} else if !errors.Is(err, io.EOF) {
		return nil, syntaxError(origin, err)
	}
	if err := walk("", doc.Content[0], keys, lines); err != nil {
		e := at(doc.Content[0].Line, "", err)
		e.Origin = origin
		return nil, e
	}
	return lines, nil
}

// syntaxError leaves the line number in the message, where yaml.v3 puts it.
func syntaxError(origin string, err error) error {
	return &Error{Origin: origin, Err: fmt.Errorf("is not YAML: %s; correct it", strings.TrimPrefix(err.Error(), "yaml: "))}
}

// Group reads a mapping inside a list, like Read but without a document around it.
func Group(n *yaml.Node, keys Keys) error {
	return walk("", n, keys, make(Lines))
}

// List returns the items of a list.
func List(n *yaml.Node) ([]*yaml.Node, error) {
	if n.Kind != yaml.SequenceNode {
		return nil, refuse(n, "a list; write one")
	}
	var items []*yaml.Node
	for _, item := range n.Content {
		items = append(items, resolve(item))
	}
	return items, nil
}

// walk calls the reader of every key in the mapping n, whose own key is prefix.
func walk(prefix string, n *yaml.Node, keys Keys, lines Lines) error {
	n = resolve(n)
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil // a section whose keys are all commented out
	}
	if n.Kind != yaml.MappingNode {
		return &Error{Line: n.Line, Key: strings.TrimSuffix(prefix, "."),
			Err: fmt.Errorf("must have keys below it; known are %s", below(prefix, keys))}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		key := prefix + name.Value
		if lines[key] != 0 { // a.b: is b: below a:
			return &Error{Line: name.Line, Key: key, Err: errors.New("is here twice; remove one")}
		}
		lines[key] = name.Line
		read, ok := keys[key]
		switch {
		case ok:
			if err := read(resolve(value)); err != nil {
				return at(value.Line, key, err)
			}
		case below(key+".", keys) != "":
			if err := walk(key+".", value, keys, lines); err != nil {
				return err
			}
		default:
			return &Error{Line: name.Line, Key: key, Err: fmt.Errorf("unknown key; known here are %s", below(prefix, keys))}
		}
	}
	return nil
}

// at makes err an error of key, at line unless err has its own.
func at(line int, key string, err error) *Error {
	inner := new(Error)
	if !errors.As(err, &inner) {
		return &Error{Line: line, Key: key, Err: err}
	}
	e := *inner
	if e.Line == 0 {
		e.Line = line
	}
	e.Key = strings.Trim(key+"."+e.Key, ".")
	return &e
}

func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// below lists the names directly below prefix, for error messages.
func below(prefix string, keys Keys) string {
	var names []string
	for key := range keys {
		if rest, ok := strings.CutPrefix(key, prefix); ok {
			name, _, _ := strings.Cut(rest, ".")
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ", ")
}
