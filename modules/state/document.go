package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
)

// Document is a record's value in memory. What is read of it costs nothing and needs no home; what changes it is
// written first. Other replicas' changes come with Follow.
type Document[T any] struct {
	config DocumentConfig[T]

	order sync.Mutex // of what is read from the home and written there
	mu    sync.Mutex
	value T
	text  string // that value was read from
}

// DocumentConfig is what a Document needs.
type DocumentConfig[T any] struct {
	Store  Store
	Key    Key
	Encode func(T) ([]byte, error) // nil is JSON
	Decode func([]byte) (T, error) // nil is JSON
	// Changed is called after each change, whoever made it; nil for nobody.
	Changed func()
}

// OpenDocument reads a document; one that is not there has its type's zero value.
func OpenDocument[T any](ctx context.Context, c DocumentConfig[T]) (*Document[T], error) {
	if c.Encode == nil {
		c.Encode = func(value T) ([]byte, error) { return json.MarshalIndent(value, "", "  ") }
	}
	if c.Decode == nil {
		c.Decode = func(text []byte) (value T, err error) { return value, json.Unmarshal(text, &value) }
	}
	d := &Document[T]{config: c}
	_, err := d.read(ctx)
	return d, err
}

// Value is the document as it is known. It is shared: whoever changes it changes a copy, by Update.
func (d *Document[T]) Value() T {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.value
}

// Update changes the document in its home by what it is there now. change may be called several times; its error is
// returned as it is, and nothing is changed.
func (d *Document[T]) Update(ctx context.Context, change func(T) (T, error)) error {
	d.order.Lock()
	changed, err := d.update(ctx, change)
	d.order.Unlock()
	if changed {
		d.changed()
	}
	return err
}

func (d *Document[T]) update(ctx context.Context, change func(T) (T, error)) (changed bool, err error) {
	var next T
	var text []byte
	err = Update(ctx, d.config.Store, d.config.Key, func(before []byte) ([]byte, error) {
		value, err := d.decode(before)
		if err != nil {
			return nil, err
		}
		if next, err = change(value); err != nil {
			return nil, err
		}
		text, err = d.config.Encode(next)
		return text, err
	})
	if err != nil {
		return false, err
	}
	return d.set(next, string(text)), nil
}

// Follow takes in what others change until ctx ends. While the home does not answer, the document stays as it was.
func (d *Document[T]) Follow(ctx context.Context, log *slog.Logger) {
	d.config.Store.Watch(ctx, d.config.Key.Kind, func() {
		changed, err := d.read(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			log.Error("state that was changed elsewhere cannot be read; what is known of it stays", "state", d.config.Key.String(), "err", err)
		case changed:
			d.changed()
		}
	})
}

func (d *Document[T]) read(ctx context.Context) (changed bool, err error) {
	d.order.Lock()
	defer d.order.Unlock()
	record, err := d.config.Store.Get(ctx, d.config.Key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return false, err
	}
	if err == nil && record.Value == nil {
		record.Value = []byte{}
	}
	value, err := d.decode(record.Value)
	if err != nil {
		return false, err
	}
	return d.set(value, string(record.Value)), nil
}

func (d *Document[T]) decode(text []byte) (value T, err error) {
	if text == nil {
		return value, nil
	}
	if value, err = d.config.Decode(text); err != nil {
		return value, fmt.Errorf("%s is damaged (remove it to start without): %w", d.config.Store.Place(d.config.Key), err)
	}
	return value, nil
}

func (d *Document[T]) set(value T, text string) (changed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	changed = d.text != text
	d.value, d.text = value, text
	return changed
}

func (d *Document[T]) changed() {
	if d.config.Changed != nil {
		d.config.Changed()
	}
}
