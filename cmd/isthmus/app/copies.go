package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/front"
	"github.com/isthmus-mesh/isthmus/modules/adapter/replica"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/xds/names"
	"github.com/isthmus-mesh/isthmus/xds/peering/tracker"
)

const (
	// copyPatience bounds a copy as a whole: its target may have to pull an image first.
	copyPatience = 15 * time.Minute
	// copyAnswer bounds an answer that a copy reads, in bytes.
	copyAnswer = 16 << 20
)

// CopyWish is what isthmus copy asks of the gateway.
type CopyWish struct {
	From       string `json:"from"` // <cluster>/<namespace>/<kind>/<name>
	To         string `json:"to"`   // <cluster>/<namespace>[/<name>]
	DryRun     bool   `json:"dryRun,omitempty"`
	Incomplete bool   `json:"incomplete,omitempty"`
}

// CopyEvent is one line of the answer: a step, the plan, or the end.
type CopyEvent struct {
	Step   string          `json:"step,omitempty"`
	Plan   *replica.Report `json:"plan,omitempty"`
	Done   *replica.Report `json:"done,omitempty"`
	Failed string          `json:"failed,omitempty"`
}

// copyPlace reads where a copy is to be made. The name is the source's where none is given.
func copyPlace(text string, source dialect.ObjectRef) (dialect.Place, error) {
	parts := strings.Split(text, "/")
	form := fault.New(fault.Invalid, "a target reads <cluster>/<namespace> or <cluster>/<namespace>/<name>, such as east/shop/web-2, not %q", text)
	if len(parts) == 2 {
		parts = append(parts, source.Name)
	}
	if len(parts) != 3 {
		return dialect.Place{}, form
	}
	ref, err := dialect.ParseObjectRef(strings.Join([]string{parts[0], parts[1], source.Kind, parts[2]}, "/"))
	if err != nil {
		return dialect.Place{}, form
	}
	return dialect.Place{Cluster: ref.Cluster, Namespace: ref.Namespace, Name: ref.Name}, nil
}

// copyObject makes a copy and answers as it goes on.
func (a *admin) copyObject(w http.ResponseWriter, r *http.Request) {
	var wish CopyWish
	if !a.read(w, r, "a copy", &wish) {
		return
	}
	if !a.gateway.set.Load().Gateway.Spec.Admin.Copies {
		a.refuseCopy(w, wish, fault.New(fault.Denied, "copies are not served: they are made with the gateway's own rights, and spec.admin.copies of the "+
			"Gateway document is not true"))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), copyPatience)
	defer cancel()
	source, err := dialect.ParseObjectRef(wish.From)
	if err != nil {
		a.refuseCopy(w, wish, err)
		return
	}
	place, err := copyPlace(wish.To, source)
	if err != nil {
		a.refuseCopy(w, wish, err)
		return
	}
	replicator, ok := a.gateway.dialect.(dialect.Replicator)
	if !ok {
		a.refuseCopy(w, wish, fault.New(fault.Unsupported, "a gateway of %s cannot copy", a.gateway.dialect.Orchestrator()))
		return
	}
	from, err := a.gateway.side(ctx, source.Cluster)
	if err == nil {
		var to replica.Side
		if to, err = a.gateway.side(ctx, place.Cluster); err == nil {
			w.Header().Set("Content-Type", "application/jsonl")
			w.Header().Set("X-Content-Type-Options", "nosniff")
			encoder, control := json.NewEncoder(w), http.NewResponseController(w)
			write := func(e CopyEvent) {
				_ = encoder.Encode(e) // a client that is gone needs no answer, and ends ctx
				_ = control.Flush()
			}
			report, err := replica.Copy(ctx, replicator, from, to, source, place, replica.Options{DryRun: wish.DryRun, Incomplete: wish.Incomplete},
				replica.Progress{Step: func(step string) { write(CopyEvent{Step: step}) }, Plan: func(plan replica.Report) { write(CopyEvent{Plan: &plan}) }})
			if err != nil {
				a.log.Info("a copy failed", "from", wish.From, "to", wish.To, "err", err)
				write(CopyEvent{Failed: copyFailure(err)})
				return
			}
			a.log.Info("a copy was asked for", "from", report.From, "to", report.To, "dryRun", wish.DryRun, "made", report.Made)
			write(CopyEvent{Done: &report})
			return
		}
	}
	a.refuseCopy(w, wish, err)
}

// refuseCopy answers for a copy that does not begin.
func (a *admin) refuseCopy(w http.ResponseWriter, wish CopyWish, err error) {
	a.log.Info("a copy was refused", "from", wish.From, "to", wish.To, "err", err)
	a.refuse(w, err)
}

// copyFailure is what the admin reads.
func copyFailure(err error) string {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var texts []string
		for _, each := range joined.Unwrap() {
			texts = append(texts, copyFailure(each))
		}
		return strings.Join(texts, "; ")
	}
	var incomplete *replica.IncompleteError
	if errors.As(err, &incomplete) {
		return incomplete.Error()
	}
	return fault.Of(err).Message
}

// side is the API of this cluster, or of a peer, in this cluster's words. A peer's policy decides about what is asked there,
// by a caller that shows no credential. An orchestrator that knows peers by names of their own knows this cluster by one as
// well: the gateway's own account has no rights to what it copies.
func (g *gateway) side(ctx context.Context, cluster string) (replica.Side, error) {
	if cluster == g.self.Cluster {
		return replica.Side{Cluster: cluster, Do: func(ctx context.Context, req dialect.Request) (dialect.Response, error) {
			ctx = dialect.WithActor(ctx, dialect.Actor{Peer: g.self.Cluster})
			return exchangeHTTP(ctx, g.target.Transport(), g.target.Upstream().Host, req)
		}}, nil
	}
	if !g.knows(cluster) {
		return replica.Side{}, fault.New(fault.NotFound, "%s is neither this cluster, %s, nor one of its peers; isthmus peers shows them", cluster, g.self.Cluster)
	}
	if callers := g.set.Load().Gateway.Spec.Callers; !callers.Open(manifest.CallersOfAPI) && !callers.Open(manifest.CallersOfServices) {
		return replica.Side{}, fault.New(fault.Denied, "a copy shows %s no credential, and spec.callers.unauthenticated of the Gateway document has "+
			"neither api nor services", cluster)
	}
	status, err := g.reachable(ctx, cluster)
	if err != nil {
		return replica.Side{}, err
	}
	transport := front.Transport(g.socket(names.EdgeSocket))
	host := names.APIHost(cluster, g.started.Gateway.Spec.Suffix)
	return replica.Side{Cluster: cluster, Foreign: status.Configuration.Orchestrator.Type != g.dialect.Orchestrator(),
		Do: func(ctx context.Context, req dialect.Request) (dialect.Response, error) {
			defer transport.CloseIdleConnections()
			return exchangeHTTP(ctx, transport, host, req)
		}}, nil
}

// reachable is what a peer has said, once requests may go there.
func (g *gateway) reachable(ctx context.Context, peer string) (tracker.Status, error) {
	g.settle(ctx, peer)
	status, ok := g.tracker.Peer(peer)
	if !ok || status.Configuration == nil || !status.Routable() {
		return status, fault.New(fault.Unavailable, "peer %s is not joined at the moment; isthmus peers says why", peer)
	}
	return status, nil
}

// exchangeHTTP asks an API and reads its whole answer.
func exchangeHTTP(ctx context.Context, transport http.RoundTripper, host string, req dialect.Request) (dialect.Response, error) {
	target, err := req.URL()
	if err != nil {
		return dialect.Response{}, fault.Wrap(fault.Invalid, err, "the request's path cannot be parsed")
	}
	target.Scheme, target.Host = "http", host
	out, err := http.NewRequestWithContext(ctx, req.Method, target.String(), bytes.NewReader(req.Body))
	if err != nil {
		return dialect.Response{}, fault.Wrap(fault.Invalid, err, "the request cannot be made")
	}
	if req.Header != nil {
		out.Header = req.Header.Clone()
	}
	answer, err := transport.RoundTrip(out)
	if err != nil {
		return dialect.Response{}, fault.Wrap(fault.Unavailable, err, "the API does not answer")
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(answer.Body, copyAnswer+1))
	if err != nil {
		return dialect.Response{}, fault.Wrap(fault.Unavailable, err, "the API's answer broke off")
	}
	if len(body) > copyAnswer {
		return dialect.Response{}, fault.New(fault.TooLarge, "the API's answer passes %d MiB", copyAnswer>>20)
	}
	return dialect.Response{Status: answer.StatusCode, Header: answer.Header, Body: body}, nil
}
