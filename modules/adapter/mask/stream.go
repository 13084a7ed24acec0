package mask

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Reader says how a JSON answer is read: in pieces, of which one at a time is in memory.
type Reader struct {
	// Lists are the keys of the answer whose lists are read element by element; "" is an answer that is a list itself.
	Lists map[string]bool
	// Element is an element of such a list, or of a sequence, as it goes on; nil leaves it out.
	Element func(raw []byte) ([]byte, error)
	// Member is any other member of the answer as it goes on.
	Member func(key string, raw []byte) ([]byte, error)
	// Most is how large a piece may be, in bytes.
	Most int
}

// ErrTooLarge is a piece that is larger than a Reader takes.
var ErrTooLarge = errors.New("a part of the answer is too large to be read")

// allowance ends a source that gives more bytes than a piece may have.
type allowance struct {
	source io.Reader
	left   int
}

func (a *allowance) Read(p []byte) (int, error) {
	if a.left <= 0 {
		return 0, ErrTooLarge
	}
	if len(p) > a.left {
		p = p[:a.left]
	}
	n, err := a.source.Read(p)
	a.left -= n
	return n, err
}

func (r *Reader) decoder(source io.Reader) (*json.Decoder, *allowance) {
	a := &allowance{source: source, left: r.Most}
	d := json.NewDecoder(a)
	d.UseNumber()
	return d, a
}

// Document copies one JSON value. Of a small one that turns out wrong nothing was written yet.
func (r *Reader) Document(w io.Writer, source io.Reader) error {
	d, a := r.decoder(source)
	out := bufio.NewWriterSize(w, 32<<10)
	if err := r.document(d, a, out); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("the answer is more than one value")
	}
	return out.Flush()
}

func (r *Reader) document(d *json.Decoder, a *allowance, out *bufio.Writer) error {
	first, err := d.Token()
	if err != nil {
		return begun(err)
	}
	switch first {
	case json.Delim('{'):
	case json.Delim('['):
		return r.list(d, a, out, r.Lists[""])
	default:
		return r.scalar(out, first)
	}
	if err := out.WriteByte('{'); err != nil {
		return err
	}
	for n := 0; d.More(); n++ {
		token, err := d.Token()
		if err != nil {
			return begun(err)
		}
		key, ok := token.(string)
		if !ok {
			return fmt.Errorf("the answer has the key %v", token)
		}
		if n > 0 {
			if err := out.WriteByte(','); err != nil {
				return err
			}
		}
		if err := r.member(d, a, out, key); err != nil {
			return err
		}
		a.left = r.Most
	}
	if _, err := d.Token(); err != nil {
		return begun(err)
	}
	return out.WriteByte('}')
}

func (r *Reader) member(d *json.Decoder, a *allowance, out *bufio.Writer, key string) error {
	if _, err := out.Write(append(quoted(key), ':')); err != nil {
		return err
	}
	if !r.Lists[key] {
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return begun(err)
		}
		kept, err := r.Member(key, raw)
		if err != nil {
			return err
		}
		_, err = out.Write(kept)
		return err
	}
	token, err := d.Token()
	switch {
	case err != nil:
		return begun(err)
	case token == json.Delim('['):
		return r.list(d, a, out, true)
	case token == nil:
		_, err := out.WriteString("null")
		return err
	}
	return fmt.Errorf("the answer's %s is no list", key)
}

// list copies the list whose bracket was read.
func (r *Reader) list(d *json.Decoder, a *allowance, out *bufio.Writer, elements bool) error {
	if err := out.WriteByte('['); err != nil {
		return err
	}
	for n := 0; d.More(); {
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return begun(err)
		}
		a.left = r.Most
		read := r.Element
		if !elements {
			read = func(raw []byte) ([]byte, error) { return r.Member("", raw) }
		}
		kept, err := read(raw)
		if err != nil {
			return err
		}
		if kept == nil {
			continue
		}
		if n > 0 {
			if err := out.WriteByte(','); err != nil {
				return err
			}
		}
		n++
		if _, err := out.Write(kept); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return begun(err)
	}
	return out.WriteByte(']')
}

func (r *Reader) scalar(out *bufio.Writer, token json.Token) error {
	raw, err := json.Marshal(token)
	if err != nil {
		return err
	}
	if raw, err = r.Member("", raw); err != nil {
		return err
	}
	_, err = out.Write(raw)
	return err
}

// begun is the error of a value that has begun: its end is missing, and not the end.
func begun(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Sequence copies JSON values that follow each other, one a line, each as soon as it is there: flush is called after
// each. The source's end is the sequence's.
func (r *Reader) Sequence(w io.Writer, source io.Reader, flush func() error) error {
	d, a := r.decoder(source)
	for {
		var raw json.RawMessage
		switch err := d.Decode(&raw); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		a.left = r.Most
		kept, err := r.Element(raw)
		if err != nil {
			return err
		}
		if kept == nil {
			continue
		}
		if _, err := w.Write(append(kept[:len(kept):len(kept)], '\n')); err != nil {
			return err
		}
		if err := flush(); err != nil {
			return err
		}
	}
}
