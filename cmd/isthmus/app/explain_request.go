package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/extproc"
	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/modules/policy"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// The decisions of an explanation.
const (
	decisionAllow   = "allow"
	decisionDeny    = "deny"    // by policy
	decisionRefuse  = "refuse"  // for another reason: it cannot be expressed, or is no request
	decisionDepends = "depends" // on live state
)

const noteLive = "the object is live state, which is not asked; --exists or --labels KEY=VALUE supposes what it is"

// captured is a request as a client sent it.
type captured struct {
	Method, Host, Path string
	Header             http.Header
	Body               []byte
	API                bool // it came to a socket or port that stands for the orchestrator's API
}

// explainer explains requests with the gateway's own modules, over an orchestrator that is never asked.
type explainer struct {
	set    *manifest.Set
	engine *policy.Engine
	peer   manifest.Peer
	of     neutral.Orchestrator // the peer's type
	fixed  bool                 // of was given
	caller string
	groups modules.Groups
	exists bool
	// account is the target's orchestrator as it is, to be asked about rights; nil where it is not asked.
	account dialect.Cluster
	labels  map[string]string
	target  dialect.Cluster
	end     func()
}

func newExplainer(ctx context.Context, set *manifest.Set, peer manifest.Peer, o *explainOptions) (*explainer, error) {
	if len(o.groups) > 0 && o.caller == "" {
		return nil, errors.New("--group is of the caller: give --caller as well")
	}
	groups, left := modules.JoinGroups(o.groups)
	if left > 0 {
		return nil, errors.New("--group is printable ASCII without commas, and a caller has at most 128 of them")
	}
	x := &explainer{set: set, peer: peer, caller: o.caller, groups: groups, exists: o.exists || o.labels != nil, labels: o.labels}
	if x.labels == nil {
		x.labels = map[string]string{}
	}
	switch neutral.Orchestrator(o.peerType) {
	case "":
	case neutral.Docker, neutral.Kubernetes:
		x.of, x.fixed = neutral.Orchestrator(o.peerType), true
	default:
		return nil, fmt.Errorf("--peer-type %q is neither docker nor kubernetes", o.peerType)
	}
	var err error
	if x.engine, err = policy.Compile(set.Policies); err != nil {
		return nil, err
	}
	if x.target, x.end, err = offlineTarget(ctx, set); err != nil {
		return nil, err
	}
	if o.rights {
		if _, x.account, err = connect(ctx, x.orchestrator(), connection(set, slog.New(slog.DiscardHandler))); err != nil {
			x.end()
			return nil, err
		}
	}
	return x, nil
}

func (x *explainer) close() {
	x.end()
	if x.account != nil {
		_ = x.account.Close() // it was only asked
	}
}

// setType says of which type the peer is, where no flag did.
func (x *explainer) setType(of neutral.Orchestrator) {
	if !x.fixed {
		x.of = of
	}
}

func (x *explainer) cluster() string { return x.set.Gateway.Metadata.Name }

func (x *explainer) suffix() string { return x.set.Gateway.Spec.Suffix }

func (x *explainer) orchestrator() neutral.Orchestrator {
	return neutral.Orchestrator(x.set.Gateway.Spec.Orchestrator.Type)
}

// explain says what would become of one request.
func (x *explainer) explain(ctx context.Context, c captured) Explained {
	authority := c.Host
	if c.API {
		authority = names.APIHost(x.cluster(), x.suffix())
	}
	e := Explained{
		Request: requestText(c), Authority: authority, Peer: x.peer.Metadata.Name, Caller: x.caller, Groups: x.groups.List(),
		Class: extproc.NewZone(x.cluster(), x.suffix()).Classify(authority), Losses: []string{}, Questions: []ExplainedQuestion{},
		Target: fmt.Sprintf("%s (%s)", x.cluster(), x.orchestrator()),
	}
	if x.peer.Spec.Suspended {
		e.Decision, e.Reason = decisionDeny, "the peer is suspended: nothing of it passes"
		return e
	}
	run := &explainRun{explainer: x, out: &e, asked: map[string]bool{}}
	req := &modules.Request{
		Class: e.Class, Peer: modules.Peer{Name: x.peer.Metadata.Name, Orchestrator: x.of, Ready: true}, Caller: x.caller, Groups: x.groups,
		Method: c.Method, Authority: authority, Path: c.Path, Header: crossing(c.Header), Start: time.Now(), EndOfBody: len(c.Body) == 0,
	}
	switch e.Class {
	case modules.ContainerOperation:
		e.PeerType = string(x.of)
		run.operation(ctx, req, c.Body)
		if x.account != nil && goesOn(e) {
			e.Rights = run.rights(ctx, req)
		}
	case modules.ServiceQuery:
		run.query(ctx, req)
	case modules.ContainerAccess:
		run.access(ctx, req)
	default:
		e.Decision, e.Reason = decisionRefuse, fmt.Sprintf("%s is no name of %s.%s: no service, container or API", authority,
			x.cluster(), x.suffix())
	}
	return e
}

func requestText(c captured) string {
	if c.Method == http.MethodConnect {
		return c.Method + " " + c.Host
	}
	return c.Method + " " + c.Path
}

// crossing is a request's header as the target's gateway sees it: without what only gateways say.
func crossing(header http.Header) http.Header {
	h := header.Clone()
	for key := range h {
		if k := strings.ToLower(key); strings.HasPrefix(k, names.OwnPrefix) || strings.HasPrefix(k, names.LinkPrefix) {
			h.Del(key)
		}
	}
	if upgrade := h.Get("Upgrade"); strings.EqualFold(upgrade, "tcp") { // docker's hijack, as the peer's front sends it on
		h.Set(names.HeaderSession, upgrade)
		h.Del("Upgrade")
		h.Del("Connection")
	}
	return h
}
