package adapter

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/replica"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// A create that carries dialect.CopyFrom is completed from what its caller may read of the object that it names, and is
// then judged and done as if the caller had written it all: the source is read by a request of the same caller's, for which
// policy must allow copy and get, and what policy hides from the caller is not copied.

// copies tells whether a request may ask for a copy: it creates what runs.
func (a admission) copies() bool {
	if _, ok := a.dialect.(dialect.Replicator); !ok {
		return false
	}
	return a.op.Verb == neutral.Create && (a.op.Object.Kind == neutral.KindContainer || a.op.Object.Kind == neutral.KindWorkload)
}

// asksCopy tells whether a body may ask for one.
func asksCopy(body []byte) bool { return bytes.Contains(body, []byte(dialect.CopyFrom)) }

// sourced marks the request that reads a copy's source.
type sourced struct{}

func readsSource(ctx context.Context) bool { return ctx.Value(sourced{}) != nil }

// forCopy makes the read of a source one for a copy: policy must allow both. What else is read with it, its image and its
// networks, is read as its caller may.
func forCopy(op neutral.Operation) neutral.Operation {
	if op.Verb == neutral.Get && (op.Object.Kind == neutral.KindContainer || op.Object.Kind == neutral.KindWorkload) {
		op.Also = append(slices.Clip(op.Also), op.Verb)
		op.Verb = neutral.Copy
	}
	return op
}

// share is what a request takes of its peer's and its caller's.
type share struct {
	enter func() (leave func(), err error)
	leave func()
}

func (s *share) take() (err error) {
	s.leave, err = s.enter()
	return err
}

func (s *share) free() {
	if s.leave != nil {
		s.leave()
	}
	s.leave = nil
}

// completed fills the body of a create that asks for a copy, and gives what of the source is left behind. While it reads the
// source, by requests that take shares themselves, the create gives its own back.
func (b *Bridge) completed(ctx context.Context, w http.ResponseWriter, r *http.Request, req *modules.Request, a admission,
	share *share) ([]dialect.Left, error) {
	limits := b.module.config.Load
	if err := limits.TooLarge(req.Peer.Name, r.ContentLength); err != nil {
		return nil, err
	}
	body, err := b.whole(w, r)
	if err != nil {
		return nil, err
	}
	if err := limits.TooLarge(req.Peer.Name, int64(len(body))); err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if !asksCopy(body) {
		return nil, nil
	}
	replicator, ok := a.dialect.(dialect.Replicator)
	if !ok {
		return nil, nil
	}
	request := a.head
	request.Body = body
	text, name, err := replicator.Asked(request)
	if err != nil || text == "" {
		return nil, err
	}
	from, err := dialect.ParseObjectRef(text)
	if err != nil {
		f := fault.Of(err)
		return nil, fault.New(f.Kind, "%s: %s", dialect.CopyFrom, f.Message)
	}
	cluster := b.module.config.Cluster
	if from.Cluster != cluster {
		return nil, fault.New(fault.Unsupported, "%s names an object of %s, and this creates one in %s: a create copies within its own cluster; "+
			"between clusters, isthmus copy does", dialect.CopyFrom, from.Cluster, cluster)
	}
	if !replicator.Alike(request, from.Kind) {
		return nil, fault.New(fault.Invalid, "%s names a %s, and a %s is created: a copy is of its source's kind", dialect.CopyFrom, from.Kind, a.op.Object.Kind)
	}
	if !a.same && from.Namespace != b.module.config.Namespace {
		return nil, fault.New(fault.Unsupported, "%s names namespace %s, and callers of another orchestrator act in %s", dialect.CopyFrom,
			from.Namespace, b.module.config.Namespace)
	}
	if name == "" {
		name = a.op.Object.Name
	}
	place := dialect.Place{Cluster: cluster, Namespace: a.op.Object.Namespace, Name: name, Foreign: !a.same, Origin: !a.same}
	if place.Namespace == "" {
		place.Namespace = "default"
	}
	if !a.same { // which docker's words have no other name for
		from.Namespace, place.Namespace = "default", "default"
	}
	share.free()
	draft, err := replicator.Replicate(ctx, func(ctx context.Context, req dialect.Request) (dialect.Response, error) {
		return b.readSource(ctx, r, req)
	}, from, place)
	if err != nil {
		f := fault.Of(err)
		kind := f.Kind
		if kind == fault.NotFound { // which docker's clients take for a missing image
			kind = fault.Unprocessable
		}
		return nil, fault.Wrap(kind, err, "%s %s: %s", dialect.CopyFrom, text, f.Message)
	}
	if err := share.take(); err != nil {
		return nil, err
	}
	request, left, err := replicator.Complete(request, draft)
	if err != nil {
		return nil, err
	}
	var lacking []string
	for _, l := range left {
		if l.Needed {
			lacking = append(lacking, l.String())
		}
	}
	if len(lacking) > 0 {
		return nil, fault.New(fault.Unprocessable, "%s %s: the copy would lack what it needs (%s); write it into the request", dialect.CopyFrom, text,
			strings.Join(lacking, "; "))
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(request.Body)), int64(len(request.Body))
	r.Header.Set("Content-Type", request.Header.Get("Content-Type")) // of the same map as the request's head
	r.Header.Set("Content-Length", strconv.Itoa(len(request.Body)))
	return left, nil
}

// sourceLimit bounds what is read of a source, in bytes.
const sourceLimit = 4 << 20

// readSource asks for a part of a copy's source as the create's caller does, through all that its own request would pass.
func (b *Bridge) readSource(ctx context.Context, of *http.Request, req dialect.Request) (dialect.Response, error) {
	read, err := http.NewRequestWithContext(context.WithValue(ctx, sourced{}, true), req.Method, "http://"+of.Host+req.Path, http.NoBody)
	if err != nil {
		return dialect.Response{}, fault.Wrap(fault.Invalid, err, "the source's name makes no request")
	}
	read.Host, read.Header = of.Host, of.Header.Clone()
	for key := range read.Header { // of the create's body, and what it is answered with
		if strings.HasPrefix(strings.ToLower(key), "content-") || strings.EqualFold(key, "Transfer-Encoding") || strings.EqualFold(key, "Accept") {
			delete(read.Header, key)
		}
	}
	for key, values := range req.Header {
		read.Header[key] = values
	}
	answer := &kept{header: http.Header{}}
	b.ServeHTTP(answer, read)
	if answer.status == 0 {
		answer.status = http.StatusOK
	}
	response := dialect.Response{Status: answer.status, Header: answer.header, Body: answer.body.Bytes()}
	if answer.body.Len() > sourceLimit {
		return response, fault.New(fault.TooLarge, "the source is larger than %d MiB", sourceLimit>>20)
	}
	if response.Status >= http.StatusMultipleChoices {
		return response, replica.Refused(response)
	}
	return response, nil
}

// kept is an answer that is kept in memory.
type kept struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (k *kept) Header() http.Header { return k.header }

func (k *kept) WriteHeader(status int) {
	if k.status == 0 && status >= http.StatusOK {
		k.status = status
	}
}

func (k *kept) Write(p []byte) (int, error) {
	k.WriteHeader(http.StatusOK)
	if k.body.Len() <= sourceLimit { // one byte more tells that it is too much
		k.body.Write(p[:min(len(p), sourceLimit+1-min(k.body.Len(), sourceLimit))])
	}
	return len(p), nil
}

// leftBehind are what a copy leaves behind as losses of its create.
func leftBehind(left []dialect.Left) []neutral.Loss {
	var losses []neutral.Loss
	for _, l := range left {
		losses = append(losses, neutral.Loss{Field: l.Field, Change: "not copied", Reason: l.Reason})
	}
	return losses
}
