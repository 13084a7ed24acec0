package adapter

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/mask"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

const (
	// pieceLimit bounds what of an answer is in memory at a time: one object of a list, one event, or what stands beside
	// a list. An object of Kubernetes is at most 1.5 MiB, and what docker inspects is smaller.
	pieceLimit = 8 << 20
	// textLimit bounds a line of an answer that is plain text, and an error.
	textLimit = 1 << 20
)

// reading is how the answer to a same-type request is read; nil where it crosses unread.
func (m *Module) reading(req *modules.Request, a admission) (*dialect.Reading, error) {
	reader, ok := m.upstream(req).(dialect.Reader)
	if !ok || m.config.Mask == nil {
		return nil, nil
	}
	return reader.Reading(a.op, a.head)
}

// read tells whether an answer passes through the gateway: something of it is hidden, or left out.
func (a admission) read() bool {
	return a.reading != nil && (!a.show || a.filter || a.judge || a.reading.Always || a.reading.Part != nil)
}

// hides tells which failures of the orchestrator must not cross when an answer is not read.
func (m *Module) hides(req *modules.Request, a admission) string {
	reader, ok := m.upstream(req).(dialect.Reader)
	switch {
	case !ok || m.config.Mask == nil || a.show || a.op.Action == neutral.SystemPing:
		return ""
	case reader.Foreign(a.op), m.config.Emulated[req.Peer.Orchestrator] != nil: // that API says in its own words what failed
		return names.HideUnreachable
	}
	return names.HideFailures
}

// forecastable tells whether policy can be asked about what a request would make.
func (m *Module) forecastable(req *modules.Request, a admission) bool {
	forecaster, ok := m.upstream(req).(dialect.Forecaster)
	return ok && a.same && a.reading != nil && forecaster.Forecastable(a.op)
}

// reading is one answer on its way to a same-type caller.
type reading struct {
	module *Module
	req    *modules.Request
	a      admission
	filter dialect.Filter
	part   dialect.Part
	record *modules.Record
	// warnings are added to those of an answer that has a member for them, as docker's have.
	warnings []neutral.Loss
}

func (m *Module) newReading(ctx context.Context, req *modules.Request, a admission, record *modules.Record) *reading {
	r := &reading{module: m, req: req, a: a, record: record}
	if (a.filter || a.reading.Always) && a.reading.Filter != nil {
		r.filter = a.reading.Filter(ctx)
	}
	if a.reading.Part != nil {
		r.part = a.reading.Part(ctx)
	}
	return r
}

// element is an object of the answer as the caller sees it; nil where it does not.
func (r *reading) element(raw []byte) ([]byte, error) {
	show := r.a.show
	if r.filter != nil {
		// Which addresses are shown is each object's policy's to say; what has no object is judged as the request was.
		var first, all = true, true
		kept, err := r.filter(raw, func(object neutral.Object) bool {
			judgement := r.module.config.Policy().Judge(r.req.Subject(), r.a.op.Verb, object)
			if !judgement.Allowed {
				return false
			}
			if r.record.Rule == "" {
				r.record.Rule = judgement.Rule
			}
			first, all = false, all && judgement.ShowAddresses
			return true
		})
		if err != nil || kept == nil {
			return nil, err
		}
		raw = kept
		if !first {
			show = all
		}
	}
	if show {
		return raw, nil
	}
	shown := r.module.config.Mask.Value(r.a.reading.Rules, raw)
	if sought := r.a.reading.Sought; sought != nil && !bytes.Equal(sought(raw), sought(shown)) {
		return nil, nil
	}
	return shown, nil
}

// sees judges an object that the answer tells of beside the one that was asked for: who may list it may know of it.
func (r *reading) sees(object neutral.Object) bool {
	policy := r.module.config.Policy()
	return policy.Judge(r.req.Subject(), r.a.op.Verb, object).Allowed || policy.Judge(r.req.Subject(), neutral.List, object).Allowed
}

func (r *reading) member(key string, raw []byte) ([]byte, error) {
	if key == "Warnings" && len(r.warnings) > 0 && r.a.copies() {
		var warnings []string
		if err := json.Unmarshal(raw, &warnings); err != nil {
			return nil, err
		}
		for _, loss := range r.warnings {
			warnings = append(warnings, loss.String())
		}
		more, err := json.Marshal(warnings)
		if err != nil {
			return nil, err
		}
		raw = more
	}
	if r.part != nil {
		var err error
		if raw, err = r.part(key, raw, r.sees); err != nil {
			return nil, err
		}
	}
	if r.a.show {
		return raw, nil
	}
	return r.module.config.Mask.Member(r.a.reading.Rules, key, raw), nil
}

// text is a text of the answer's head, or of an error.
func (r *reading) text(s string) string {
	if r.a.show {
		return s
	}
	return r.module.config.Mask.String(s)
}

// copy writes the body of an answer. An error before anything was written may still be rendered.
func (r *reading) copy(w io.Writer, answer *http.Response, flush func() error) error {
	kind, _, err := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	switch {
	case err != nil && answer.Header.Get("Content-Type") != "":
		return errForm
	case answer.Header.Get("Content-Encoding") != "" && answer.Header.Get("Content-Encoding") != "identity":
		return errForm
	case isJSON(kind):
		return r.copyJSON(w, answer, flush)
	case kind == "" || strings.HasPrefix(kind, "text/"):
		return r.copyText(w, answer.Body)
	}
	return errForm
}

var errForm = fault.New(fault.Unavailable, "the orchestrator answered in a form that the gateway does not read")

func isJSON(kind string) bool {
	return kind == "application/json" || kind == "application/x-ndjson" || kind == "application/jsonl" ||
		strings.HasSuffix(kind, "+json")
}

func (r *reading) copyJSON(w io.Writer, answer *http.Response, flush func() error) error {
	reader := mask.Reader{Lists: r.a.reading.Lists, Element: r.element, Member: r.member, Most: pieceLimit}
	switch {
	case answer.StatusCode >= http.StatusBadRequest:
		reader.Lists = nil // an error, which is no list
	case r.a.reading.Sequence:
		return reader.Sequence(w, answer.Body, flush)
	}
	body := &looked{source: answer.Body}
	err := reader.Document(w, body)
	if errors.Is(err, io.ErrUnexpectedEOF) && !body.any {
		return nil // an answer without a body
	}
	return err
}

// looked knows whether there was anything but space.
type looked struct {
	source io.Reader
	any    bool
}

func (l *looked) Read(p []byte) (int, error) {
	n, err := l.source.Read(p)
	l.any = l.any || len(bytes.TrimSpace(p[:n])) > 0
	return n, err
}

// copyText copies text line by line.
func (r *reading) copyText(w io.Writer, body io.Reader) error {
	lines := bufio.NewReader(body)
	for {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			line, err = wholeLine(line, lines)
		}
		ended := errors.Is(err, io.EOF)
		if err != nil && !ended {
			return err
		}
		if !r.a.show {
			line = r.module.config.Mask.Text(line)
		}
		if len(line) > 0 {
			if _, err := w.Write(line); err != nil {
				return err
			}
		}
		if ended {
			return nil
		}
	}
}

// wholeLine reads on to the end of a line that has begun.
func wholeLine(begun []byte, lines *bufio.Reader) ([]byte, error) {
	line := bytes.Clone(begun)
	for {
		more, err := lines.ReadSlice('\n')
		line = append(line, more...)
		switch {
		case len(line) > textLimit:
			return nil, mask.ErrTooLarge
		case !errors.Is(err, bufio.ErrBufferFull):
			return line, err
		}
	}
}
