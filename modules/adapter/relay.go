package adapter

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/hijack"
	"github.com/isthmus-mesh/isthmus/modules/adapter/mask"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// relay hands a same-type request on to the orchestrator as it is, and reads the answer on its way back.
func (b *Bridge) relay(ctx context.Context, w http.ResponseWriter, r *http.Request, req *modules.Request, a admission,
	left []dialect.Left, record *modules.Record) error {
	body, err := b.whole(w, r)
	if err == nil {
		err = b.module.config.Load.TooLarge(req.Peer.Name, int64(len(body)))
	}
	if err != nil {
		return b.refuse(w, req, err)
	}
	answer, err := b.module.handOver(ctx, req, &a, body, record)
	if err == nil && a.op.Action == neutral.ExecCreate && answer.StatusCode == http.StatusCreated {
		answer, err = b.module.mine(req, answer)
	}
	if err == nil && a.reading.Created != nil {
		answer, err = b.module.created(req, a, body, answer)
	}
	if err != nil {
		return b.refuse(w, req, unavailable(err))
	}
	defer func() { _ = answer.Body.Close() }()
	record.Status, record.Losses = answer.StatusCode, append(record.Losses, leftBehind(left)...)
	reading := b.module.newReading(ctx, req, a, record)
	header := w.Header()
	if answer.StatusCode < http.StatusBadRequest {
		reading.warnings = record.Losses
		if a.dialect.Orchestrator() == neutral.Kubernetes {
			for _, loss := range record.Losses {
				header.Add("Warning", "299 - "+strconv.Quote(reading.text(loss.String())))
			}
		}
	}
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

// conflicts bounds how often a write is judged anew because its object was changed meanwhile.
const conflicts = 5

// handOver gives the orchestrator a request, as far as the caller wrote it, and gives its answer.
func (m *Module) handOver(ctx context.Context, req *modules.Request, a *admission, body []byte, record *modules.Record) (*http.Response, error) {
	request := a.head
	request.Header, request.Body = hijack.EndToEnd(req.Header), body
	m.impersonate(req, request.Header)
	// What comes back is read here, as it is: neither packed nor a part, and not what the caller has read before.
	for _, key := range []string{"If-None-Match", "If-Modified-Since", "Range", "Content-Length"} {
		request.Header.Del(key)
	}
	request.Header.Set("Accept-Encoding", "identity")
	if a.reading.Accept != "" {
		request.Header.Set("Accept", a.reading.Accept)
	}
	if a.filter && a.reading.FilterPath != "" {
		request.Path = a.reading.FilterPath
	}
	if err := a.reveals(); err != nil && !a.show {
		return nil, err
	}
	written := request.Body
	request, err := m.restored(ctx, req, a, request)
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		wanted, again := request, false
		if !a.show && a.reading.Steps != nil {
			bound, refused, err := m.stepwise(ctx, req, a, wanted, written)
			if err != nil || refused != nil {
				return refused, err
			}
			if bound != nil {
				wanted, again = *bound, true
			}
		}
		answer, pinned, err := m.judged(ctx, req, a, wanted, record)
		// A JSON patch that is bound to a version is told by 422 that there is another one.
		if again = (again || pinned) && try < conflicts; err != nil || !again ||
			answer.StatusCode != http.StatusConflict && answer.StatusCode != http.StatusUnprocessableEntity {
			return answer, err
		}
		if err := answer.Body.Close(); err != nil {
			return nil, err
		}
	}
}

// judged is the orchestrator's answer to a request of which policy allows what comes of it. Pinned says that a conflict means
// that the object was changed after it was judged.
func (m *Module) judged(ctx context.Context, req *modules.Request, a *admission, request dialect.Request, record *modules.Record) (answer *http.Response, pinned bool, err error) {
	if !a.judge {
		answer, err := m.send(ctx, req, request)
		return answer, false, err
	}
	forecast, err := m.upstream(req).(dialect.Forecaster).Forecast(ctx, a.op, request)
	switch {
	case err != nil:
		return nil, false, err
	case forecast.Refused != nil:
		return native(*forecast.Refused), false, nil
	}
	if err := m.judge(req, a, forecast.Objects, record); err != nil {
		return nil, false, err
	}
	answer, err = m.send(ctx, req, forecast.Request)
	if err == nil && forecast.Made != nil && answer.StatusCode == http.StatusCreated {
		answer, err = m.confirmed(ctx, req, a, answer, forecast.Made, record)
	}
	return answer, forecast.Pinned, err
}

// stepwise is a JSON patch, bound to the object on which it shows nothing that is hidden; nil for a request that is none. The
// API's own answer says why the object could not be read.
func (m *Module) stepwise(ctx context.Context, req *modules.Request, a *admission, request dialect.Request, written []byte) (*dialect.Request, *http.Response, error) {
	if _, _, ok, err := a.reading.Steps(request, nil); !ok || err != nil {
		return nil, nil, err
	}
	answer, err := m.send(ctx, req, dialect.Request{Method: http.MethodGet, Path: a.reading.Live, Header: http.Header{"Accept": {"application/json"}}})
	if err != nil || answer.StatusCode != http.StatusOK {
		return nil, answer, err
	}
	object, err := readWhole(answer)
	if err != nil {
		return nil, nil, err
	}
	asWritten := request
	asWritten.Body = written
	_, steps, _, err := a.reading.Steps(asWritten, object)
	if err != nil {
		return nil, nil, err
	}
	var reveals *mask.RevealError
	switch err := m.config.Mask.Steps(a.reading.Rules, steps, object); {
	case errors.As(err, &reveals):
		return nil, nil, fault.Wrap(fault.Denied, err, "no permission: %v", err)
	case err != nil:
		return nil, nil, fault.Wrap(fault.Invalid, err, "%v", err)
	}
	bound, _, _, err := a.reading.Steps(request, object)
	return &bound, nil, err
}

// confirmed is the answer of a request whose object is what policy allowed. One that is not is taken back.
func (m *Module) confirmed(ctx context.Context, req *modules.Request, a *admission, answer *http.Response,
	made func(context.Context, []byte) (neutral.Object, func(context.Context) error, error), record *modules.Record) (*http.Response, error) {
	body, err := readWhole(answer)
	if err != nil {
		return nil, err
	}
	object, undo, err := made(ctx, body)
	if err == nil {
		err = m.judge(req, a, []neutral.Object{object}, record)
	}
	if err == nil {
		return native(dialect.Response{Status: answer.StatusCode, Header: answer.Header, Body: body}), nil
	}
	if undo != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoDeadline)
		defer cancel()
		if failed := undo(ctx); failed != nil {
			m.config.Log.Error("what policy does not allow was made and could not be taken back", "id", req.ID, "err", failed)
		}
	}
	return nil, err
}

// mine is the answer of a request that made an exec, whose it is remembered.
func (m *Module) mine(req *modules.Request, answer *http.Response) (*http.Response, error) {
	body, err := readWhole(answer)
	if err == nil {
		err = m.own(req, body)
	}
	if err != nil {
		return nil, err
	}
	return native(dialect.Response{Status: answer.StatusCode, Header: answer.Header, Body: body}), nil
}

// created is the answer of a request that made something, or found it made: who may not get it is told what it wrote.
func (m *Module) created(req *modules.Request, a admission, written []byte, answer *http.Response) (*http.Response, error) {
	switch {
	case answer.StatusCode == http.StatusConflict:
		return answer, fault.New(fault.Conflict, "there is a %s of this name already, which is another one", a.op.Object.Kind)
	case answer.StatusCode != http.StatusCreated && answer.StatusCode != http.StatusOK:
		return answer, nil
	}
	body, err := readWhole(answer)
	if err != nil {
		return nil, err
	}
	object, reduced, err := a.reading.Created(written, body)
	if err != nil {
		return nil, err
	}
	if !m.mayGet(req, object) {
		body = reduced
	}
	return native(dialect.Response{Status: answer.StatusCode, Header: answer.Header, Body: body}), nil
}

// foundVolumes are volumes that were created, or were there before: who may not get one is told what was asked for.
func (m *Module) foundVolumes(req *modules.Request, op neutral.Operation, found []neutral.Volume) []neutral.Volume {
	told := slices.Clone(found)
	for i, v := range told {
		object := neutral.Object{Kind: neutral.KindVolume, Name: v.Name, Labels: v.Labels}
		m.place(&object)
		if op.Volume != nil && !m.mayGet(req, object) {
			told[i] = neutral.Volume{Name: v.Name, Driver: op.Volume.Driver, Labels: op.Volume.Labels, Options: op.Volume.Options}
		}
	}
	return told
}

// mayGet tells whether who creates an object may also be told of it as it is.
func (m *Module) mayGet(req *modules.Request, object neutral.Object) bool {
	return m.config.Policy().Judge(req.Subject(), neutral.Get, object).Allowed
}

func readWhole(answer *http.Response) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(answer.Body, pieceLimit))
	if err = errors.Join(err, answer.Body.Close()); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "the orchestrator's answer could not be read")
	}
	return body, nil
}

// undoDeadline bounds how long something is taken back.
const undoDeadline = 30 * time.Second

// judge asks policy about what a request would make.
func (m *Module) judge(req *modules.Request, a *admission, objects []neutral.Object, record *modules.Record) error {
	policy := m.config.Policy()
	a.show = true
	for _, object := range objects {
		for _, verb := range a.verbs() {
			judgement := policy.Judge(req.Subject(), verb, object)
			if !judgement.Allowed {
				return judgement.Err()
			}
			record.Rule, record.Object = judgement.Rule, object
			a.show = a.show && judgement.ShowAddresses
		}
	}
	if len(objects) == 0 {
		return unread("writing", a.op.Object.Kind)
	}
	return nil
}

// restored is a request in which what stands for something that the caller was not shown is that again.
func (m *Module) restored(ctx context.Context, req *modules.Request, a *admission, request dialect.Request) (dialect.Request, error) {
	if a.show || len(request.Body) == 0 || !m.suspect(a.reading, request) {
		return request, nil
	}
	body, kind, ok := a.reading.Body(request)
	if !ok {
		return request, fault.New(fault.Invalid, "the request writes what stands for a hidden address or value, in a form in which "+
			"the gateway cannot put the original in its place; write it as JSON")
	}
	var object []byte
	if a.reading.Live != "" {
		answer, err := m.send(ctx, req, dialect.Request{Method: http.MethodGet, Path: a.reading.Live, Header: http.Header{"Accept": {"application/json"}}})
		if err != nil {
			return request, err
		}
		defer func() { _ = answer.Body.Close() }()
		if answer.StatusCode == http.StatusOK {
			if object, err = io.ReadAll(io.LimitReader(answer.Body, pieceLimit)); err != nil {
				return request, fault.Wrap(fault.Unavailable, err, "the object as it is could not be read")
			}
			if key := a.reading.LiveKey; key != "" {
				members := map[string]json.RawMessage{}
				if err := json.Unmarshal(object, &members); err != nil {
					return request, fault.Wrap(fault.Unavailable, err, "the object as it is could not be read")
				}
				object = members[key]
			}
		}
	}
	restored, err := m.config.Mask.Restore(a.reading.Rules, body, object)
	var unknown *mask.UnknownError
	switch {
	case errors.As(err, &unknown):
		return request, fault.Wrap(fault.Invalid, err, "%v", err)
	case err != nil:
		return request, fault.Wrap(fault.Invalid, err, "the request's body could not be read")
	}
	request.Body = restored
	if kind != "" {
		request.Header.Set("Content-Type", kind)
	}
	return request, nil
}

// suspect tells whether a request may write what stands for something else. YAML has escapes and tags that tell only once
// it is read.
func (m *Module) suspect(reading *dialect.Reading, request dialect.Request) bool {
	if m.config.Mask.Suspect(request.Body) {
		return true
	}
	if bytes.IndexByte(request.Body, '\\') < 0 && bytes.IndexByte(request.Body, '!') < 0 {
		return false
	}
	body, _, ok := reading.Body(request)
	return ok && m.config.Mask.Suspect(body)
}

// native is an answer that was read whole.
func native(r dialect.Response) *http.Response {
	return &http.Response{StatusCode: r.Status, Header: r.Header, Body: io.NopCloser(bytes.NewReader(r.Body))}
}

// send asks the orchestrator.
func (m *Module) send(ctx context.Context, req *modules.Request, request dialect.Request) (*http.Response, error) {
	target, err := request.URL()
	if err != nil {
		return nil, fault.New(fault.Invalid, "the request's path cannot be parsed")
	}
	target.Scheme, target.Host = "http", m.upstream(req).Upstream().Host
	var content io.Reader = http.NoBody
	if len(request.Body) > 0 {
		content = bytes.NewReader(request.Body)
	}
	out, err := http.NewRequestWithContext(ctx, request.Method, target.String(), content)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "the request cannot be handed on")
	}
	out.Header = request.Header
	return m.upstream(req).Transport().RoundTrip(out)
}
