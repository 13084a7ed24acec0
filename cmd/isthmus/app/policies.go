package app

import (
	"errors"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/modules/policy"
)

// judge is a policy engine as modules ask it.
type judge struct{ engine *policy.Engine }

var _ modules.Policy = judge{}

func question(s modules.Subject, verb neutral.Verb, object neutral.Object) policy.Request {
	return policy.Request{Peer: s.Peer, Caller: s.Caller, Groups: s.Groups, Verb: verb, Object: object}
}

func (j judge) Judge(s modules.Subject, verb neutral.Verb, object neutral.Object) modules.Judgement {
	if object.Labels == nil {
		object.Labels = map[string]string{} // the object is known: it has none
	}
	r := question(s, verb, object)
	return judgement(r, j.engine.Decide(r))
}

func (j judge) Foresee(s modules.Subject, verb neutral.Verb, object neutral.Object) modules.Judgement {
	r := question(s, verb, object)
	outcome, decision := j.engine.Check(r)
	result := judgement(r, decision)
	result.Allowed, result.Open = outcome == policy.Allow, outcome == policy.NeedsObject
	return result
}

func (j judge) MayKnow(s modules.Subject, object neutral.Object) bool {
	return j.engine.MayKnow(question(s, neutral.Get, object))
}

func judgement(r policy.Request, d policy.Decision) modules.Judgement {
	result := modules.Judgement{Allowed: d.Allow, Rule: d.Rule, Pause: neutral.PauseMode(d.Options.Pause),
		Switch: neutral.SwitchMode(d.Options.NetworkSwitch), ShowAddresses: d.Options.Addresses == manifest.AddressesShow}
	if mode := d.Options.NetworkMode; mode != manifest.AccessAny {
		result.Mode = neutral.NetworkMode(mode)
	}
	if err := d.Fault(r); err != nil {
		result.Reason, result.Detail = fault.Of(err).Message, errors.New(d.Reason)
	}
	return result
}
