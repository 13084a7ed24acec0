package docker

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// hearer is a session that keeps what it hears.
type hearer struct {
	mu    sync.Mutex
	heard bytes.Buffer
	slow  chan struct{} // nil, or what hearing waits for
}

func (l *hearer) Accept() error { return nil }
func (l *hearer) Output(chunk neutral.Chunk) error {
	if l.slow != nil {
		<-l.slow
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard.Write(chunk.Data)
	return nil
}
func (*hearer) Event(neutral.Event) error     { return nil }
func (*hearer) Measured(neutral.Usage) error  { return nil }
func (*hearer) Progress(string, string) error { return nil }
func (*hearer) Stdin() io.Reader              { return nil }
func (*hearer) Resizes() <-chan neutral.Size  { return nil }
func (l *hearer) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.heard.String()
}

// TestStreamsOfWhatIsGone has an engine leave the streams of a command open whose container ended.
func TestStreamsOfWhatIsGone(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	e.set(func() { // the engine knows of no exec
		e.containers = []object{running("c1", "web", "bridge", nil, nil)}
	})
	e.hijacks = map[string]string{"/exec/x1/start": "\x01\x00\x00\x00\x00\x00\x00\x03bye"}
	e.others["/containers/c1/exec"] = object{"Id": "x1"}
	e.start()
	c := e.connect()
	plan, err := c.Plan(neutral.Operation{Action: neutral.ExecStart, Verb: neutral.Exec, Ref: "web", Object: neutral.Object{Kind: neutral.KindContainer},
		Exec: &neutral.ExecSpec{Command: []string{"sh"}, Stdout: true}},
		func(neutral.Object) (dialect.Terms, error) { return dialect.Terms{}, nil })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	heard := &hearer{}
	_, err = plan.Stream(ctx, heard)
	if !fault.Is(err, fault.NotFound) || heard.text() != "bye" {
		t.Errorf("it ended with %v, after %q", err, heard.text())
	}
	e.set(func() { e.others["/exec/x1/json"] = object{"ID": "x1", "Running": false, "ExitCode": 7, "Pid": 3} })
	heard = &hearer{}
	result, err := plan.Stream(ctx, heard)
	if err != nil || result.ExitCode != 7 || heard.text() != "bye" {
		t.Errorf("one whose end is known: %d, %v, after %q", result.ExitCode, err, heard.text())
	}
}

// TestStreamsWatched ends the streams of a process that is gone, and of no other.
func TestStreamsWatched(t *testing.T) {
	t.Parallel()
	open := func(over func(context.Context) bool) (processStreams, net.Conn, *awaited) {
		near, far := net.Pipe()
		t.Cleanup(func() { _ = far.Close() })
		h := processStreams{client.NewHijackedResponse(near, ""), true, false, over}
		h.Reader = bufio.NewReader(near)
		return h, far, &awaited{Reader: h.Reader}
	}
	const every = 20 * time.Millisecond
	read := func(from io.Reader) <-chan error {
		ended := make(chan error, 1)
		go func() {
			_, err := io.Copy(io.Discard, from)
			ended <- err
		}()
		return ended
	}
	var looked atomic.Int32
	h, _, from := open(func(context.Context) bool {
		looked.Add(1)
		return true
	})
	ended := read(from)
	cut := h.watch(t.Context(), from, every)
	if <-ended; !cut.Load() || looked.Load() != looks {
		t.Errorf("ended after %d looks, cut: %t", looked.Load(), cut.Load())
	}

	// One that is there, or comes back, goes on.
	looked.Store(0)
	h, far, from := open(func(context.Context) bool { return looked.Add(1)%looks != 0 })
	ended = read(from)
	cut = h.watch(t.Context(), from, every)
	for deadline := time.Now().Add(20 * time.Second); looked.Load() <= 3*looks; time.Sleep(every) {
		if time.Now().After(deadline) {
			t.Fatal("nobody looks")
		}
	}
	if cut.Load() {
		t.Error("the streams of one that runs were closed")
	}
	_ = far.Close()
	if err := <-ended; err != nil && !errors.Is(err, io.EOF) {
		t.Error(err)
	}

	// Nobody looks while a caller is slow to hear: what it has not heard would be lost.
	looked.Store(0)
	h, far, from = open(func(context.Context) bool {
		looked.Add(1)
		return true
	})
	slow := &hearer{slow: make(chan struct{})}
	last := make(chan error, 1)
	go func() {
		last <- readRaw(from, func(_ neutral.Stream, data []byte) error { return slow.Output(neutral.Chunk{Data: data}) })
	}()
	if _, err := far.Write([]byte("word")); err != nil { // it is read when this returns
		t.Fatal(err)
	}
	h.watch(t.Context(), from, 5*every)
	time.Sleep(25 * every)
	if n := looked.Load(); n > 0 {
		t.Errorf("%d looks while the caller is slow", n)
	}
	close(slow.slow)
	if <-last; slow.text() != "word" {
		t.Errorf("heard %q", slow.text())
	}
}
