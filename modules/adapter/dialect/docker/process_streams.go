package docker

import (
	"context"
	"io"
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
	err := read(h.Reader, func(stream neutral.Stream, data []byte) error {
		return session.Output(neutral.Chunk{Stream: stream, Data: data})
	})
	if ctx.Err() != nil {
		return ctx.Err()
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
