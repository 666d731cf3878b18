package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"k8s.io/client-go/rest"
)

// maxAtOnce is how many bytes of one answer are read into memory at once. Others decide how large pods are and how many are
// bound to a node.
const maxAtOnce = 8 << 20

// errTooLarge: the answer is larger than maxAtOnce.
var errTooLarge = errors.New("the answer is too large to be read at once")

// readAtOnce returns the whole answer to a request, or errTooLarge.
func readAtOnce(ctx context.Context, req *rest.Request) ([]byte, error) {
	answer, err := req.Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer answer.Close()
	body, err := io.ReadAll(io.LimitReader(answer, maxAtOnce+1))
	if err == nil && len(body) > maxAtOnce {
		err = errTooLarge
	}
	return body, err
}

// eachItem reads a list as JSON and hands its items over one by one, so that no more than one is in memory.
func eachItem[T any](ctx context.Context, req *rest.Request, take func(*T)) error {
	answer, err := req.Stream(ctx)
	if err != nil {
		return err
	}
	defer answer.Close()
	d := json.NewDecoder(answer)
	if err := expect(d, json.Delim('{')); err != nil {
		return err
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		if key != "items" {
			if err := d.Decode(new(json.RawMessage)); err != nil {
				return err
			}
			continue
		}
		switch begin, err := d.Token(); {
		case err != nil:
			return err
		case begin == nil: // null, which is an empty list
			continue
		case begin != json.Delim('['):
			return fmt.Errorf("read list: its items begin with %v", begin)
		}
		for d.More() {
			item := new(T)
			if err := d.Decode(item); err != nil {
				return err
			}
			take(item)
		}
		if err := expect(d, json.Delim(']')); err != nil {
			return err
		}
	}
	return expect(d, json.Delim('}')) // else it ended early
}

func expect(d *json.Decoder, want json.Token) error {
	got, err := d.Token()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err == nil && got != want {
		err = fmt.Errorf("read list: got %v, want %v", got, want)
	}
	return err
}
