package docker

import (
	"context"
	"io"
	"sync/atomic"
	"time"

	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// processStreams is a connection that carries the standard streams of a process, both ways.
type processStreams struct {
	client.HijackedResponse
	tty bool
	// ends says that the end of the input is the process' to know of. Of others an engine takes it as the wish to leave.
	ends bool
	// over tells whether the process is no more. Where it ends together with its container, an engine may leave the streams
	// open for ever.
	over func(ctx context.Context) bool
}

// silence is how long nothing is heard of a process before somebody looks whether it is still there, and how often then.
const silence = 2 * time.Second

// looks is how often in a row it is gone before its streams are taken to have ended: until then the engine passes on what
// the process said last.
const looks = 2

// awaited is a reader that knows for how long it has waited for more.
type awaited struct {
	io.Reader
	since atomic.Int64 // nanoseconds; 0 while nothing is read
}

func (a *awaited) Read(p []byte) (int, error) {
	a.since.Store(time.Now().UnixNano())
	defer a.since.Store(0)
	return a.Reader.Read(p)
}

func (a *awaited) silent(d time.Duration) bool {
	since := a.since.Load()
	return since != 0 && time.Since(time.Unix(0, since)) >= d
}

// watch closes the streams of a process that is no more, and says so then.
func (h processStreams) watch(ctx context.Context, from *awaited, every time.Duration) (cut *atomic.Bool) {
	cut = new(atomic.Bool)
	go func() {
		for gone := 0; gone < looks; {
			select {
			case <-ctx.Done():
				return
			case <-time.After(every):
			}
			if from.silent(every) && h.over(ctx) {
				gone++
			} else {
				gone = 0
			}
		}
		cut.Store(true)
		h.Close()
	}()
	return cut
}

// carry passes the streams on until the process has no more to say. The caller's input ends with the caller's connection,
// for which nobody waits here.
func (h processStreams) carry(ctx context.Context, session neutral.Session, stdin bool) error {
	defer h.Close()
	defer context.AfterFunc(ctx, h.Close)()
	if input := session.Stdin(); input != nil && stdin {
		go func() {
			_, _ = io.Copy(h.Conn, input) // a process that ended reads no more
			if h.ends {
				_ = h.CloseWrite()
			}
		}()
	} else if input != nil {
		go func() { _, _ = io.Copy(io.Discard, input) }()
	}
	read := readFrames
	if h.tty {
		read = readRaw
	}
	watched, stop := context.WithCancel(ctx)
	defer stop()
	from := &awaited{Reader: h.Reader}
	cut := h.watch(watched, from, silence)
	err := read(from, func(stream neutral.Stream, data []byte) error {
		return session.Output(neutral.Chunk{Stream: stream, Data: data})
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case cut.Load():
		return nil
	}
	return err
}

// resizePatience is how long a terminal that is on its way to be there is asked again to take a size.
const resizePatience = 2 * time.Second

// resized passes a terminal's sizes on until ctx ends, which the caller does and then waits.
func resized(ctx context.Context, first *neutral.Size, sizes <-chan neutral.Size, resize func(context.Context, neutral.Size) error) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	set := func(size neutral.Size) {
		for deadline := time.Now().Add(resizePatience); resize(ctx, size) != nil && time.Now().Before(deadline); {
			select {
			case <-ctx.Done():
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	go func() {
		defer close(done)
		if first != nil {
			set(*first)
		}
		for {
			select {
			case <-ctx.Done():
				return
			case size, open := <-sizes:
				if !open {
					return
				}
				set(size)
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}
