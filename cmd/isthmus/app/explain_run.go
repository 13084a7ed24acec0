package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/adapter"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/mask"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/modules/orchestration"
	"github.com/isthmus-mesh/isthmus/modules/policy"
	"github.com/isthmus-mesh/isthmus/modules/proxy"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// explainRun is the explaining of one request.
type explainRun struct {
	*explainer
	out     *Explained
	asked   map[string]bool
	bridge  bool // a plan is explained and goes no further
	planned bool
	local   bool // the gateway answers by itself
}

var _ modules.Policy = (*explainRun)(nil)

var (
	errLive      = errors.New("live state is not asked")
	errExplained = errors.New("explained, and not done")
)

// Judge, Foresee and MayKnow answer as the gateway's policy does, and note down each question.
func (r *explainRun) Judge(s modules.Subject, verb neutral.Verb, object neutral.Object) modules.Judgement {
	if object.Labels == nil {
		object.Labels = map[string]string{}
	}
	r.note(question(s, verb, object), true)
	return judge{r.engine}.Judge(s, verb, object)
}

// Foresee is Judge before the object is known.
func (r *explainRun) Foresee(s modules.Subject, verb neutral.Verb, object neutral.Object) modules.Judgement {
	r.note(question(s, verb, object), false)
	return judge{r.engine}.Foresee(s, verb, object)
}

// MayKnow is no question about the request itself.
func (r *explainRun) MayKnow(s modules.Subject, object neutral.Object) bool {
	return judge{r.engine}.MayKnow(s, object)
}

func (r *explainRun) note(q policy.Request, known bool) {
	found := r.engine.Explanation(q, known)
	asked := ExplainedQuestion{Question: q.String(), Object: "unknown", Outcome: found.Outcome.String(), Rule: found.Rule, Reason: found.Reason,
		Policies: explainedPolicies(found)}
	if known {
		asked.Object = "known"
	}
	key := fmt.Sprintf("%s %v %v %v", asked.Question, known, q.Object.Labels, q.Object.Container != nil)
	if !r.asked[key] {
		r.asked[key] = true
		r.out.Questions = append(r.out.Questions, asked)
	}
}

func explainedPolicies(found policy.Explanation) []ExplainedPolicy {
	all := []ExplainedPolicy{}
	for _, section := range found.Policies {
		p := ExplainedPolicy{Policy: section.Policy}
		for _, f := range section.Findings {
			p.Rules = append(p.Rules, ExplainedRule{Rule: f.Rule, Outcome: f.Outcome.String(), Why: f.Why})
		}
		all = append(all, p)
	}
	return all
}

// emulated are the APIs before the orchestrator, of which nothing is asked either: their socket never answers.
func (r *explainRun) emulated(ctx context.Context) (apis map[neutral.Orchestrator]dialect.Emulated, end func(), err error) {
	dir, err := os.MkdirTemp("", "isthmus-explain")
	if err != nil {
		return nil, nil, err
	}
	discard := func() { _ = os.RemoveAll(dir) }
	socket := filepath.Join(dir, names.EmulationSocket)
	silence, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err != nil {
		discard()
		return nil, nil, err
	}
	callers, api, err := emulate(r.orchestrator(), dialect.Emulation{Cluster: r.cluster(), Over: adapter.NewExecutor(r.target), Socket: socket})
	if err != nil || api == nil {
		_ = silence.Close()
		discard()
		return nil, func() {}, err
	}
	end = func() {
		_ = api.Close() // nothing was begun
		_ = silence.Close()
		discard()
	}
	return map[neutral.Orchestrator]dialect.Emulated{callers: explainEmulated{explainTarget: explainTarget{Cluster: api, run: r}, Handler: api}}, end, nil
}

// operation runs the adapter as far as it decides.
func (r *explainRun) operation(ctx context.Context, req *modules.Request, body []byte) {
	target := explainTarget{Cluster: r.target, run: r}
	emulated, end, err := r.emulated(ctx)
	if err != nil {
		r.out.Decision, r.out.Reason = decisionDeny, err.Error()
		return
	}
	defer end()
	module := adapter.New(adapter.Config{
		Emulated: emulated,
		Cluster:  r.cluster(), Orchestrator: r.orchestrator(), Namespace: namespaceFor(r.set), Dialects: adapter.Dialects,
		Target: target, APIVersion: func() string { return "" }, Policy: func() modules.Policy { return r },
		Log: slog.New(slog.DiscardHandler), Mask: mask.New(nil), // which stand-ins it would make is not told
	})
	verdict, err := module.Decide(ctx, req)
	record := verdict.Record
	if err == nil && verdict.Exchange != nil {
		var rewrite modules.Rewrite
		var other *modules.Verdict
		exchange := verdict.Exchange
		rewrite, other, err = exchange.Request(ctx, body)
		record = exchange.Record()
		switch {
		case err == nil && other != nil:
			verdict = *other
			record = other.Record
		case err == nil && len(rewrite.Body) > 0:
			// What the target itself loses is told with its answer. One that makes an object answers with the object.
			made := modules.Answer{Status: http.StatusCreated, Header: http.Header{"Content-Type": {"application/json"}}, Body: rewrite.Body}
			if _, answerErr := exchange.Response(ctx, made); answerErr == nil {
				record = exchange.Record()
			}
		}
	}
	same := r.of == r.orchestrator() || emulated[r.of] != nil
	if err == nil && verdict.Route != nil && verdict.Route.Upstream == names.Bridge && !same {
		record, err = r.throughBridge(ctx, module, req, body)
	}
	switch {
	case err != nil:
	case same && record.Upstream == names.Bridge && req.Header.Get(names.HeaderSession) == "":
		r.out.Plan = "handed on by the bridge, which reads the answer: addresses are hidden unless the policy shows them"
		if emulated[r.of] != nil {
			r.out.Plan = "served by the " + string(r.of) + " API before the orchestrator, by way of the bridge"
		}
		if record.Rule == "" && (record.Verb == neutral.Create || record.Verb == neutral.Update) {
			r.out.Notes = append(r.out.Notes, "what the request would make is judged before it is done")
		}
	case emulated[r.of] != nil:
		r.out.Plan = "served by the " + string(r.of) + " API before the orchestrator"
	case same:
		r.out.Plan = "handed on untouched: the peer runs " + string(r.of) + " as well"
	case verdict.Answer != nil && !r.planned:
		r.out.Plan = "answered by the gateway at once, without the orchestrator"
	}
	r.finish(record, err)
	if err != nil && !errors.Is(err, errLive) {
		refusal := module.Refuse(req, err)
		r.out.refusal = &refusal
	}
}

// throughBridge gives the request to the bridge, which plans it with its whole content; the plan is not run.
func (r *explainRun) throughBridge(ctx context.Context, module *adapter.Module, req *modules.Request, body []byte) (modules.Record, error) {
	r.bridge = true
	observed := &explainObserver{}
	bridge := adapter.NewBridge(adapter.BridgeConfig{Module: module, Peer: func(string) modules.Peer { return req.Peer },
		Observer: observed, BodyLimit: explainBody})
	defer bridge.Close()
	request, err := http.NewRequestWithContext(ctx, req.Method, "http://"+req.Authority+req.Path, bytes.NewReader(body))
	if err != nil {
		return modules.Record{}, fault.Wrap(fault.Invalid, err, "the request's path cannot be parsed")
	}
	request.Header = req.Header.Clone()
	if request.Header.Get(names.HeaderSession) != "" {
		request.Header.Set(names.HeaderSessionBody, fmt.Sprint(len(body)))
	}
	if r.caller != "" {
		request.Header.Set(names.HeaderCaller, r.caller)
	}
	if r.groups != "" {
		request.Header.Set(names.HeaderGroups, string(r.groups))
	}
	bridge.ServeHTTP(httptest.NewRecorder(), request)
	if errors.Is(observed.err, errExplained) {
		observed.err = nil
	}
	return observed.record, observed.err
}

// explainObserver keeps what the bridge says of its one request.
type explainObserver struct {
	record modules.Record
	err    error
}

// Begin admits the request: nothing is done, so there is nothing to audit.
func (*explainObserver) Begin(ctx context.Context, _ *modules.Request) (context.Context, error) {
	return ctx, nil
}

// Ended keeps the record.
func (o *explainObserver) Ended(_ context.Context, _ *modules.Request, record modules.Record, err error) {
	o.record, o.err = record, err
}

// query judges a service query: policy and catalogue are compiled to routes, so only the name comes from the module.
func (r *explainRun) query(ctx context.Context, req *modules.Request) {
	module := orchestration.New(orchestration.Config{Cluster: r.cluster(), Suffix: r.suffix(),
		Catalogue: orchestration.NewCatalogue(), Policy: func() modules.Policy { return r },
		ByCaller: func(string, neutral.Service) bool { return false }})
	verdict, err := module.Decide(ctx, req)
	record := verdict.Record
	if record.Object.Name == "" {
		r.finish(record, err)
		return
	}
	subject := req.Subject()
	var judgement modules.Judgement
	if r.exists {
		record.Object.Labels = r.labels
		judgement = r.Judge(subject, neutral.Query, record.Object)
	} else {
		judgement = r.Foresee(subject, neutral.Query, record.Object)
	}
	r.out.Notes = append(r.out.Notes, "whether the service is exported, and which ports it has, is live state: isthmus catalogue shows it")
	if judgement.Open {
		r.finish(record, errLive)
		return
	}
	record.Rule = judgement.Rule
	if judgement.Allowed {
		r.out.Plan = "a route in Envoy straight to the service's endpoints"
		record.Upstream = "service/" + record.Object.Namespace + "/" + record.Object.Name
	}
	r.finish(record, judgement.Err())
}

// access runs the proxy over a container that is supposed, or not known.
func (r *explainRun) access(ctx context.Context, req *modules.Request) {
	module := proxy.New(proxy.Config{Cluster: r.cluster(), Suffix: r.suffix(), Pods: r.orchestrator() == neutral.Kubernetes,
		Locator: explainTarget{Cluster: r.target, run: r}, Policy: func() modules.Policy { return r }})
	verdict, err := module.Decide(ctx, req)
	if err == nil || errors.Is(err, errLive) {
		verdict.Record.Upstream = names.Access
		r.out.Upstream, r.out.Plan = names.Access, "a connection from Envoy to the container's port"
		if verdict.Record.Verb == neutral.List {
			verdict.Record.Upstream, r.out.Upstream = "", ""
			r.out.Plan = "the list of hosts, answered by the gateway: the containers that the peer may list or access"
		}
	}
	r.out.Notes = append(r.out.Notes, "whether the container runs, where, and in which network mode, is live state; where the mode does not serve, networkSwitch and the verb switch-network decide")
	r.finish(verdict.Record, err)
}

// finish says the decision.
func (r *explainRun) finish(record modules.Record, err error) {
	out := r.out
	out.Action, out.Verb = string(record.Action), string(record.Verb)
	out.Object = objectText(record.Object)
	if out.operation.Action == "" {
		out.operation.Action, out.operation.Ref = record.Action, record.Object.Name
		out.operation.Object, out.operation.Verb = record.Object, record.Verb
	}
	for _, l := range record.Losses {
		out.Losses = append(out.Losses, l.String())
	}
	f := fault.Of(err)
	switch last := len(out.Questions) - 1; {
	case errors.Is(err, errLive) && last >= 0 && out.Questions[last].Outcome == policy.Allow.String():
		// Policy needs no more to allow it.
		out.Decision, out.Rule, out.Reason = decisionAllow, out.Questions[last].Rule, "by "+out.Questions[last].Rule
	case errors.Is(err, errLive):
		out.Decision, out.Reason = decisionDepends, r.openReason()
		out.Notes = append(out.Notes, noteLive)
	case err != nil && denied(err):
		out.Decision, out.Reason = decisionDeny, f.Message
		if f.Kind == fault.NotFound {
			out.Notes = append(out.Notes, "the caller is answered as if there were no such object: it may not know that it is there")
		}
	case err != nil:
		out.Decision, out.Reason = decisionRefuse, f.Message
		if f.Field != "" && !strings.Contains(f.Message, f.Field) {
			out.Reason = f.Field + ": " + f.Message
		}
	case record.Rule != "":
		out.Decision, out.Rule, out.Reason, out.Upstream = decisionAllow, record.Rule, "by "+record.Rule, record.Upstream
	case len(out.Questions) == 0:
		out.Decision, out.Reason, out.Upstream = decisionAllow, "no policy is asked: it tells nothing of the cluster", record.Upstream
	default:
		out.Decision, out.Reason, out.Upstream = decisionDepends, r.openReason(), record.Upstream
		if record.Verb == neutral.List || record.Verb == neutral.Watch {
			out.Notes = append(out.Notes, "the list is cut down to the objects that the rules allow, as they are found")
		} else {
			out.Notes = append(out.Notes, noteLive)
		}
	}
	if out.Decision == decisionDeny || out.Decision == decisionRefuse {
		out.Plan, out.Call = "", ""
	}
}

// denied tells whether a refusal is policy's, also where it is dressed as something else.
func denied(err error) bool {
	for ; err != nil; err = errors.Unwrap(err) {
		if f, ok := err.(*fault.Error); ok && f.Kind == fault.Denied { //nolint:errorlint // each step of the chain is looked at
			return true
		}
	}
	return false
}

// openReason is why the last open question is open.
func (r *explainRun) openReason() string {
	for i := len(r.out.Questions) - 1; i >= 0; i-- {
		if q := r.out.Questions[i]; q.Outcome == policy.NeedsObject.String() {
			return q.Reason
		}
	}
	return "it depends on the object"
}

func objectText(o neutral.Object) string {
	text := string(o.Kind)
	if o.Resource != "" {
		text += " (" + o.Resource + ")"
	}
	switch {
	case o.Namespace != "" && o.Name != "":
		text += " " + o.Namespace + "/" + o.Name
	case o.Name != "":
		text += " " + o.Name
	case o.Namespace != "":
		text += " in namespace " + o.Namespace
	}
	return text
}
