package adapter

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// resizable adds terminal sizes, which docker sends on requests of their own, to a session.
type resizable struct {
	neutral.Session
	resizes <-chan neutral.Size
}

func (r resizable) Resizes() <-chan neutral.Size { return r.resizes }

func (r resizable) Terminal() { neutral.Terminal(r.Session) }

// discarded is the session of a detached exec: nobody listens and nobody types.
type discarded struct{}

func (discarded) Accept() error                 { return nil }
func (discarded) Output(neutral.Chunk) error    { return nil }
func (discarded) Event(neutral.Event) error     { return nil }
func (discarded) Progress(string, string) error { return nil }
func (discarded) Stdin() io.Reader              { return nil }
func (discarded) Resizes() <-chan neutral.Size  { return nil }

// answerLimit bounds a native answer that is read whole, in bytes.
const answerLimit = 256 << 20

// call makes one native request with the gateway's own credential.
func call(ctx context.Context, target dialect.Cluster, request dialect.Request) (dialect.Response, error) {
	r, err := http.NewRequestWithContext(ctx, request.Method, "http://orchestrator"+request.Path, bytes.NewReader(request.Body))
	if err != nil {
		return dialect.Response{}, fmt.Errorf("make a native request: %w", err)
	}
	for key, values := range request.Header {
		r.Header[http.CanonicalHeaderKey(key)] = values
	}
	if !strings.HasPrefix(request.Path, "/") {
		return dialect.Response{}, fmt.Errorf("native path %q is not absolute", request.Path)
	}
	response, err := target.Transport().RoundTrip(r)
	if err != nil {
		return dialect.Response{}, err
	}
	defer func() { _ = response.Body.Close() }() // nothing is to be done about an answer that does not close
	body, err := io.ReadAll(io.LimitReader(response.Body, answerLimit))
	if err != nil {
		return dialect.Response{}, err
	}
	return dialect.Response{Status: response.StatusCode, Header: response.Header, Body: body}, nil
}
