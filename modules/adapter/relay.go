package adapter

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/hijack"
	"github.com/isthmus-mesh/isthmus/modules/adapter/mask"
	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// relay hands a same-type request on to the orchestrator as it is, and reads the answer on its way back.
func (b *Bridge) relay(ctx context.Context, w http.ResponseWriter, r *http.Request, req *modules.Request, a admission,
	record *modules.Record) error {
	body, err := b.whole(w, r)
	if err == nil {
		err = b.module.tooLarge(req.Peer.Name, int64(len(body)))
	}
	if err != nil {
		return b.refuse(w, req, err)
	}
	out, err := b.module.forward(ctx, req, a, body)
	if err != nil {
		return b.refuse(w, req, err)
	}
	answer, err := b.module.config.Target.Transport().RoundTrip(out)
	if err != nil {
		return b.refuse(w, req, unavailable(err))
	}
	defer func() { _ = answer.Body.Close() }()
	reading := b.module.newReading(ctx, req, a, record)
	header := w.Header()
	for key, values := range hijack.EndToEnd(answer.Header) {
		for _, value := range values {
			header.Add(key, reading.text(value))
		}
	}
	for _, key := range []string{"Content-Length", "Etag", "Content-Md5", "Digest", "Accept-Ranges"} {
		header.Del(key) // of what the orchestrator said, which this may not be
	}
	if req.Method == http.MethodHead || answer.StatusCode == http.StatusNoContent || answer.StatusCode == http.StatusNotModified {
		w.WriteHeader(answer.StatusCode)
		return nil
	}
	late := &late{ResponseWriter: w, status: answer.StatusCode}
	flush := func() error { return http.NewResponseController(w).Flush() }
	if a.reading.Sequence && answer.StatusCode < http.StatusBadRequest {
		late.begin() // callers wait for the head before there is a first event
		if err := flush(); err != nil {
			return err
		}
	}
	err = reading.copy(late, answer, flush)
	switch {
	case err == nil:
		late.begin()
		return nil
	case r.Context().Err() != nil:
		return nil // the caller has gone, which is how a watch ends
	case errors.Is(err, mask.ErrTooLarge):
		err = fault.New(fault.TooLarge, "the orchestrator's answer holds more than %d bytes in one piece, which the gateway does "+
			"not read", pieceLimit)
	default:
		err = unreadable(err)
	}
	b.module.config.Log.Warn("an answer of the orchestrator could not be handed on", "id", req.ID, "err", err)
	if late.begun {
		panic(http.ErrAbortHandler) // the caller must see an error and not an end
	}
	for key := range header {
		delete(header, key)
	}
	return b.refuse(w, req, err)
}

// unreadable is the fault of an answer that broke off, or is not what it should be.
func unreadable(err error) error {
	var f *fault.Error
	if errors.As(err, &f) {
		return err
	}
	return fault.Wrap(fault.Unavailable, err, "the orchestrator's answer could not be read")
}

// late writes its status with the first byte of the body.
type late struct {
	http.ResponseWriter
	status int
	begun  bool
}

func (l *late) begin() {
	if !l.begun {
		l.begun = true
		l.WriteHeader(l.status)
	}
}

func (l *late) Write(p []byte) (int, error) {
	l.begin()
	return l.ResponseWriter.Write(p)
}

// forward is the native request: the caller's own, in the gateway's name and in a form whose answer can be read.
func (m *Module) forward(ctx context.Context, req *modules.Request, a admission, body []byte) (*http.Request, error) {
	path := req.Path
	if a.reading.Path != "" {
		path = a.reading.Path
	}
	target, err := (dialect.Request{Path: path}).URL()
	if err != nil {
		return nil, fault.New(fault.Invalid, "the request's path cannot be parsed")
	}
	target.Scheme, target.Host = "http", m.config.Target.Upstream().Host
	var content io.Reader = http.NoBody
	if len(body) > 0 {
		content = bytes.NewReader(body)
	}
	out, err := http.NewRequestWithContext(ctx, req.Method, target.String(), content)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "the request cannot be handed on")
	}
	out.Header = hijack.EndToEnd(req.Header)
	m.impersonate(req, out.Header)
	// What comes back is read here, as it is: neither packed nor a part, and not what the caller has read before.
	for _, key := range []string{"If-None-Match", "If-Modified-Since", "Range", "Content-Length"} {
		out.Header.Del(key)
	}
	out.Header.Set("Accept-Encoding", "identity")
	if a.reading.Accept != "" {
		out.Header.Set("Accept", a.reading.Accept)
	}
	return out, nil
}
