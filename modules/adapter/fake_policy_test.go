package adapter_test

import (
	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// fakePolicy answers as its functions say; one that is nil allows. What Judge was asked is kept nowhere: tests that
// want to know count in judge.
type fakePolicy struct {
	foresee func(modules.Subject, neutral.Verb, neutral.Object) modules.Judgement
	judge   func(modules.Subject, neutral.Verb, neutral.Object) modules.Judgement
}

var _ modules.Policy = fakePolicy{}

var (
	allowed = modules.Judgement{Allowed: true, Rule: "fake/0"}
	denied  = modules.Judgement{Reason: "no policy allows it"}
	open    = modules.Judgement{Open: true, Reason: "it depends on the object"}
)

func (p fakePolicy) Judge(s modules.Subject, verb neutral.Verb, object neutral.Object) modules.Judgement {
	if p.judge == nil {
		return allowed
	}
	return p.judge(s, verb, object)
}

func (p fakePolicy) Foresee(s modules.Subject, verb neutral.Verb, object neutral.Object) modules.Judgement {
	if p.foresee == nil {
		return allowed
	}
	return p.foresee(s, verb, object)
}

func (p fakePolicy) MayKnow(modules.Subject, neutral.Object) bool { return true }

// always gives the same judgement whatever is asked.
func always(j modules.Judgement) func(modules.Subject, neutral.Verb, neutral.Object) modules.Judgement {
	return func(modules.Subject, neutral.Verb, neutral.Object) modules.Judgement { return j }
}
