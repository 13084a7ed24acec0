package tap

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// largestFrame is what HTTP/2 allows at most.
const largestFrame = 1<<24 - 1

// requests are what a connection's streams ask, for both of its readings.
type requests struct {
	mu sync.Mutex
	of map[uint32]string
}

func (r *requests) set(stream uint32, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.of[stream] = text
}

func (r *requests) get(stream uint32) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.of[stream]
}

// reading follows what one side of a connection says, as HTTP/2.
type reading struct {
	tap      *Tap
	requests *requests
	from, to Gateway
	answers  bool
	joins    bool // it is a join, in HTTP/1.1

	bodies map[uint32]io.WriteCloser
}

// follow reads until the connection ends. An error says that the rest was not understood.
func (r *reading) follow(in io.Reader) error {
	if r.joins {
		return r.followJoin(in)
	}
	r.bodies = map[uint32]io.WriteCloser{}
	defer func() {
		for stream := range r.bodies {
			r.end(stream)
		}
	}()
	if !r.answers {
		preface := make([]byte, len(http2.ClientPreface))
		if _, err := io.ReadFull(in, preface); err != nil {
			return nil // it ended before it began
		}
		if string(preface) != http2.ClientPreface {
			return fmt.Errorf("a connection begins with %q, not as HTTP/2", preface)
		}
	}
	framer := http2.NewFramer(io.Discard, in)
	framer.SetMaxReadFrameSize(largestFrame)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	framer.MaxHeaderListSize = 1 << 24
	for {
		frame, err := framer.ReadFrame()
		var ofStream http2.StreamError
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case errors.As(err, &ofStream):
			continue // headers that Go would not take; a gateway does not either
		case err != nil:
			return err
		}
		r.frame(frame)
	}
}

// followJoin reads one request of HTTP/1.1 and its answer, which are never compressed.
func (r *reading) followJoin(in io.Reader) error {
	if !r.answers {
		r.requests.set(0, "a join")
		r.tap.count(Counts{Joins: 1})
	}
	n, err := io.Copy(&window{look: func(text []byte) { r.look(0, text) }}, in)
	r.tap.count(Counts{Bytes: n})
	if errors.Is(err, io.ErrClosedPipe) {
		err = nil
	}
	return err
}

func (r *reading) frame(frame http2.Frame) {
	stream := frame.Header().StreamID
	r.tap.count(Counts{Bytes: int64(frame.Header().Length)})
	switch f := frame.(type) {
	case *http2.MetaHeadersFrame:
		r.headers(stream, f)
		if f.StreamEnded() {
			r.end(stream)
		}
	case *http2.DataFrame:
		if body := r.bodies[stream]; body != nil {
			_, _ = body.Write(f.Data())
		}
		if f.StreamEnded() {
			r.end(stream)
		}
	case *http2.RSTStreamFrame:
		r.end(stream)
	case *http2.GoAwayFrame:
		r.look(0, f.DebugData())
	}
}

// asked waits until the other direction's reading has come to what a stream asks, whose bytes it has.
func (r *requests) asked(stream uint32) {
	for deadline := time.Now().Add(time.Second); r.get(stream) == "" && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
}

func (r *reading) headers(stream uint32, f *http2.MetaHeadersFrame) {
	if r.answers {
		r.requests.asked(stream)
	}
	if !r.answers && f.PseudoValue("method") != "" {
		r.requests.set(stream, strings.Join([]string{f.PseudoValue("method"), f.PseudoValue("authority"), f.PseudoValue("path")}, " "))
		r.tap.count(Counts{Streams: 1})
	}
	zipped := false
	for _, field := range f.Fields {
		r.look(stream, []byte(field.Name+": "+field.Value))
		zipped = zipped || (field.Name == "content-encoding" && field.Value == "gzip")
	}
	if r.bodies[stream] != nil {
		return // trailers
	}
	body := &window{look: func(text []byte) { r.look(stream, text) }}
	r.bodies[stream] = body
	if zipped {
		r.bodies[stream] = r.unzip(body)
	}
}

// unzip gives what is written to it to the body as it was before it was compressed.
func (r *reading) unzip(body *window) io.WriteCloser {
	out, in := io.Pipe()
	r.tap.wait.Go(func() {
		if plain, err := gzip.NewReader(out); err == nil {
			_, _ = io.Copy(body, plain)
		}
		_, _ = io.Copy(io.Discard, out)
	})
	return in
}

func (r *reading) end(stream uint32) {
	if body := r.bodies[stream]; body != nil {
		_ = body.Close()
		delete(r.bodies, stream)
	}
}

func (r *reading) look(stream uint32, text []byte) {
	for _, forbidden := range r.from.Forbidden() {
		for _, text := range forbidden.in(text) {
			r.tap.found(Finding{From: r.from.Name, To: r.to.Name, What: forbidden.What, Text: text,
				Request: r.requests.get(stream), Answer: r.answers})
		}
	}
}

// window looks at a stream of bytes piece by piece, what stands across two pieces as well.
type window struct {
	look func([]byte)
	text []byte
}

// overlap is longer than anything that is looked for.
const overlap = 256

// Write looks at more.
func (w *window) Write(more []byte) (int, error) {
	w.text = append(w.text, more...)
	w.look(w.text)
	if past := len(w.text) - overlap; past > 0 {
		w.text = append(w.text[:0], w.text[past:]...)
	}
	return len(more), nil
}

// Close is there for those who write.
func (w *window) Close() error { return nil }
