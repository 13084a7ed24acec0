package app

import (
	"context"
	"net/http"
	"net/netip"
	"slices"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// explainTarget is the orchestrator of an explanation: plans are made and noted, and nothing is asked or done.
type explainTarget struct {
	dialect.Cluster
	run *explainRun
}

var (
	_ dialect.Cluster    = explainTarget{}
	_ dialect.Reader     = explainTarget{}
	_ dialect.Forecaster = explainTarget{}

	_ dialect.TargetLister = explainTarget{}
)

// explainEmulated is an API before the orchestrator, of an explanation.
type explainEmulated struct {
	explainTarget
	http.Handler
}

// Reading says how the target reads its answers.
func (t explainTarget) Reading(op neutral.Operation, head dialect.Request) (*dialect.Reading, error) {
	if reader, ok := t.Cluster.(dialect.Reader); ok {
		return reader.Reading(op, head)
	}
	return nil, nil
}

// Foreign says it as well.
func (t explainTarget) Foreign(op neutral.Operation) bool {
	reader, ok := t.Cluster.(dialect.Reader)
	return ok && reader.Foreign(op)
}

// Forecastable says what the target would be asked about.
func (t explainTarget) Forecastable(op neutral.Operation) bool {
	forecaster, ok := t.Cluster.(dialect.Forecaster)
	return ok && forecaster.Forecastable(op)
}

// Forecast is live state.
func (explainTarget) Forecast(context.Context, neutral.Operation, dialect.Request) (dialect.Forecast, error) {
	return dialect.Forecast{}, errLive
}

// Plan notes the plan. In the bridge, where it would be run next, it ends there.
func (t explainTarget) Plan(op neutral.Operation, guard dialect.Guard) (dialect.Plan, error) {
	r := t.run
	plan, err := t.Cluster.Plan(op, guard)
	r.out.operation = op
	if err != nil {
		return plan, err
	}
	r.planned = true
	switch {
	case plan.Call != nil:
		r.out.Plan = "translated to one native call, rewritten in place in Envoy"
		if r.bridge {
			r.out.Plan = "translated to native calls, made by the bridge"
		}
		r.out.Call = plan.Call.Request.Method + " " + plan.Call.Request.Path
		r.out.native = &plan.Call.Request
	case plan.Answer != nil:
		r.out.Plan = "answered by the gateway itself: the orchestrator has no such thing"
		r.local = true
	case plan.Program != nil:
		r.out.Plan = "translated to several native calls, made by the bridge"
		if op.Verb == neutral.Create || op.Verb == neutral.Update {
			r.out.Notes = appendNew(r.out.Notes, "the target may report further losses while it carries this out")
		}
	case plan.Stream != nil:
		r.out.Plan = "translated to a stream, carried by the bridge"
	}
	if r.exists && op.Ref != "" && op.Verb != neutral.Create && op.Verb != neutral.List && op.Verb != neutral.Watch {
		if _, err := guard(r.supposed(op.Object, op.Ref)); err != nil {
			return dialect.Plan{}, err
		}
	}
	if op.Action == neutral.ContainerPause {
		terms, err := guard(r.supposed(op.Object, op.Ref))
		if err == nil && terms.Pause != neutral.PauseQuiesce {
			return dialect.Plan{}, fault.New(fault.Unsupported, "pause is refused: the policy has pause: %s, and the target carries out "+
				"none but %s", terms.Pause, neutral.PauseQuiesce)
		}
		r.out.Notes = appendNew(r.out.Notes, "the container's processes end, and unpause starts it again from its image")
	}
	if r.bridge {
		return dialect.Plan{}, errExplained
	}
	return plan, nil
}

func appendNew(list []string, text string) []string {
	if slices.Contains(list, text) {
		return list
	}
	return append(list, text)
}

// supposed is the object as the flags suppose it.
func (r *explainRun) supposed(object neutral.Object, ref string) neutral.Object {
	if ref != "" {
		object.Name = ref
	}
	object.Labels = r.labels
	r.out.Notes = appendNew(r.out.Notes, "supposed: "+objectText(object)+" exists with the labels of --labels; its spec is not known")
	return object
}

// Lookup gives what is supposed.
func (t explainTarget) Lookup(_ context.Context, op neutral.Operation) (neutral.Object, error) {
	if !t.run.exists {
		return neutral.Object{}, fault.Wrap(fault.Unavailable, errLive, "live state is not asked")
	}
	return t.run.supposed(op.Object, op.Ref), nil
}

// Locate gives what is supposed, running and in the mode that reaches it.
func (t explainTarget) Locate(_ context.Context, ref neutral.TargetRef) (neutral.Target, error) {
	if !t.run.exists {
		return neutral.Target{}, fault.Wrap(fault.Unavailable, errLive, "live state is not asked")
	}
	name := ref.Container
	if ref.Pod != "" {
		if name = ref.Pod; ref.Container != "" {
			name = ref.Container + "." + ref.Pod
		}
	}
	object := t.run.supposed(neutral.Object{Kind: neutral.KindContainer, Namespace: ref.Namespace}, name)
	mode := neutral.NetworkBridge
	if t.run.orchestrator() == neutral.Kubernetes {
		mode = neutral.NetworkPod
	}
	return neutral.Target{Object: object, Running: true, Network: mode, Node: ref.Node, Address: netip.IPv4Unspecified()}, nil
}

// System is live state.
func (explainTarget) System(context.Context) (neutral.System, error) {
	return neutral.System{}, fault.Wrap(fault.Unavailable, errLive, "live state is not asked")
}

// Targets are live state.
func (explainTarget) Targets(context.Context, string) ([]neutral.Target, error) {
	return nil, fault.Wrap(fault.Unavailable, errLive, "live state is not asked")
}
