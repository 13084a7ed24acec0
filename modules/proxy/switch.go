package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/modules/proxy/lease"
)

// patience is how long a request waits until its target's network mode is switched.
const patience = 4 * time.Minute

// leased is the lease that the target is under, by its name or as the object that it is.
func (a *access) leased(object neutral.Object) (lease.Lease, bool) {
	leases := a.module.config.Leases
	if leases == nil || !leases.Any(a.ref.Namespace) {
		return lease.Lease{}, false
	}
	return leases.Of(object, a.ref)
}

// shared is the lease that the target is under as a container, or with the workload that keeps it, which may have been
// switched for another container of it.
func (a *access) shared(ctx context.Context) (lease.Lease, bool) {
	if held, ok := a.leased(a.target.Object); ok {
		return held, true
	}
	leases := a.module.config.Leases
	if leases == nil || !slices.ContainsFunc(leases.List(), a.mayBeOf) {
		return lease.Lease{}, false
	}
	if _, denied := a.maySwitch(a.target.Object); denied != nil {
		return lease.Lease{}, false // it could not be joined
	}
	plan, err := a.module.config.Switcher.PlanSwitch(ctx, a.req.Peer.Name, a.ref, a.need)
	if err != nil {
		return lease.Lease{}, false // whether it can be switched is not asked here
	}
	return a.leased(plan.Object)
}

// mayBeOf tells whether a lease is of a workload to which the target could belong.
func (a *access) mayBeOf(l lease.Lease) bool {
	return l.Ref.Namespace == a.ref.Namespace && l.Plan.Object.Kind != neutral.KindContainer && sameMode(l.Plan.To, a.target.Network)
}

// maySwitch asks policy whether, and how, the subject may have an object switched.
func (a *access) maySwitch(object neutral.Object) (modules.Judgement, error) {
	judgement := a.policy.Judge(a.subject, neutral.SwitchNetwork, object)
	if !judgement.Allowed {
		return judgement, judgement.Err()
	}
	if judgement.Switch != neutral.SwitchRestore && judgement.Switch != neutral.SwitchKeep {
		return judgement, fault.New(fault.Denied, "no permission: the policy of this cluster switches no network modes (networkSwitch is never)")
	}
	return judgement, nil
}

// join uses a lease that there is, where the subject may have switched what is; joined is false where the request has to do
// without.
func (a *access) join(held lease.Lease) (verdict modules.Verdict, joined bool) {
	judgement, denied := a.maySwitch(a.target.Object)
	if denied != nil {
		return modules.Verdict{}, false
	}
	if a.other(held.Plan.Object) {
		if _, denied := a.maySwitch(held.Plan.Object); denied != nil {
			return modules.Verdict{}, false
		}
	}
	return a.later(judgement, &held.Plan.Object), true
}

// other tells whether an object is not the target itself, but a workload that keeps it.
func (a *access) other(o neutral.Object) bool {
	return o.Kind != a.target.Object.Kind || o.Resource != a.target.Object.Resource || o.Name != a.target.Object.Name
}

// change has the target switched, because its mode does not serve.
func (a *access) change(missing error) (modules.Verdict, error) {
	if !a.target.Running {
		return modules.Verdict{}, missing
	}
	if a.module.config.Switcher == nil || a.module.config.Leases == nil {
		return modules.Verdict{}, fault.New(fault.Conflict, "%s; this gateway does not switch network modes", fault.Of(missing).Message)
	}
	judgement, err := a.maySwitch(a.target.Object)
	if err != nil {
		return modules.Verdict{}, fault.Wrap(fault.Denied, err, "%s; %s", fault.Of(missing).Message, fault.Of(err).Message)
	}
	return a.later(judgement, nil), nil
}

// planned is the plan of a switch that can be done.
func (a *access) planned(ctx context.Context) (neutral.SwitchPlan, error) {
	plan, err := a.look(ctx)
	if err == nil && len(plan.Refusals) > 0 {
		err = fault.New(fault.Conflict, "container %s runs with network mode %s, and is not switched to %s: %s", a.name(), plan.From, plan.To,
			strings.Join(plan.Refusals, "; "))
	}
	return plan, err
}

// look makes the plan of a switch, and asks policy about what it would change: that may be another container than a moment
// ago, and with a workload change all of its containers, where the subject was allowed one.
func (a *access) look(ctx context.Context) (neutral.SwitchPlan, error) {
	plan, err := a.module.config.Switcher.PlanSwitch(ctx, a.req.Peer.Name, a.ref, a.need)
	if err != nil {
		return plan, err
	}
	plan.Keep = true
	objects := []neutral.Object{plan.Object}
	if a.other(plan.Object) {
		objects = append(objects, a.target.Object)
	}
	for _, object := range objects {
		judgement, err := a.maySwitch(object)
		if err != nil {
			return plan, err
		}
		plan.Keep = plan.Keep && judgement.Switch == neutral.SwitchKeep
	}
	return plan, nil
}

// later is the decision that waits until the target runs in the mode that the request needs. held is the object of the lease
// that it is under already; nil where there is none.
func (a *access) later(judgement modules.Judgement, held *neutral.Object) modules.Verdict {
	record := a.record
	record.Verb, record.Rule = neutral.SwitchNetwork, judgement.Rule
	return modules.Verdict{Record: record, Later: &modules.Later{Patience: patience, Decide: func(ctx context.Context) (modules.Verdict, error) {
		a.policy = a.module.config.Policy() // it may have changed meanwhile
		verdict, err := a.switched(ctx, held)
		if err != nil {
			return modules.Verdict{Record: a.record}, err
		}
		return verdict, nil
	}}}
}

// errServes says that the target runs in a mode that serves by now.
var errServes = errors.New("the target serves as it is")

func (a *access) switched(ctx context.Context, held *neutral.Object) (modules.Verdict, error) {
	var first *neutral.SwitchPlan
	if held == nil {
		plan, err := a.planned(ctx)
		if err != nil {
			return modules.Verdict{}, err
		}
		held, first = &plan.Object, &plan
	}
	grant, err := a.module.config.Leases.Take(ctx, lease.Wish{
		Ref: a.ref, Target: a.ref.Namespace + "/" + a.name(), Object: *held, Need: a.need, Peer: a.req.Peer.Name, Caller: a.req.Caller,
		Plan: func(ctx context.Context) (plan neutral.SwitchPlan, err error) {
			if first != nil { // of this moment; whoever waited for the end of a lease looks anew
				plan, first = *first, nil
				return plan, nil
			}
			a.policy = a.module.config.Policy()
			if err := a.locate(ctx, a.ref); err != nil {
				return plan, err
			}
			if serves(a.target, a.need.Mode, a.name()) == nil {
				return plan, errServes
			}
			return a.planned(ctx)
		},
	})
	if errors.Is(err, errServes) {
		return a.route("", nil)
	}
	if err != nil {
		return modules.Verdict{}, err
	}
	routed := false
	defer func() {
		if !routed {
			grant.Leave()
		}
	}()
	at := grant.Ref
	at.Port, at.Node = a.ref.Port, ""
	err = a.locate(ctx, at)
	if err == nil {
		err = serves(a.target, a.need.Mode, a.name())
	}
	if err != nil {
		return modules.Verdict{}, err
	}
	routed = true
	return a.route(fmt.Sprintf("from=%s; to=%s; away=%s", grant.From, grant.To, grant.Away.Round(time.Millisecond)), grant.Leave)
}

// Plan is the answer to whoever asks what an access would take.
type Plan struct {
	Target string              `json:"target"`          // <namespace>/<container>
	Mode   neutral.NetworkMode `json:"mode"`            // that it runs in
	Needs  neutral.NetworkMode `json:"needs,omitempty"` // that the request names; "" is any in which the port is reached
	Serves bool                `json:"serves"`          // nothing is touched
	Switch *Switch             `json:"plan,omitempty"`
}

// Switch is what a switch would take.
type Switch struct {
	Object    string              `json:"object"` // that is changed
	From      neutral.NetworkMode `json:"from"`
	To        neutral.NetworkMode `json:"to"`
	Live      bool                `json:"live"` // nothing is restarted
	Restore   bool                `json:"restore"`
	Recreated []string            `json:"recreated,omitempty"`
	Lost      []string            `json:"lost,omitempty"`
	Refusals  []string            `json:"refusals,omitempty"`
	Away      string              `json:"away"`
}

// plan answers what the access would take, and does nothing.
func (a *access) plan(ctx context.Context) (modules.Verdict, error) {
	said := Plan{Target: a.ref.Namespace + "/" + a.name(), Mode: a.target.Network, Needs: a.need.Mode}
	missing := serves(a.target, a.need.Mode, a.name())
	said.Serves = missing == nil
	if missing != nil {
		said.Switch = &Switch{From: a.target.Network, To: a.need.Mode}
		_, denied := a.maySwitch(a.target.Object)
		switch {
		case !a.target.Running:
			said.Switch.Refusals = []string{fault.Of(missing).Message}
		case a.module.config.Switcher == nil || a.module.config.Leases == nil:
			said.Switch.Refusals = []string{"this gateway does not switch network modes"}
		case denied != nil: // what it would take is for those who may have it
			said.Switch.Refusals = []string{fault.Of(denied).Message}
		default:
			plan, err := a.look(ctx)
			if err != nil {
				return modules.Verdict{}, err
			}
			said.Switch = &Switch{Object: Describe(plan.Object), From: plan.From, To: plan.To, Live: plan.Live,
				Restore: !plan.Keep, Recreated: plan.Recreated, Lost: plan.Lost, Refusals: plan.Refusals,
				Away: plan.Away.Round(time.Millisecond).String()}
		}
	}
	body, err := json.MarshalIndent(said, "", "  ")
	if err != nil {
		return modules.Verdict{}, fault.Wrap(fault.Internal, err, "the plan cannot be written")
	}
	return modules.Verdict{Record: a.record, Answer: &modules.Answer{Status: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}},
		Body: append(body, '\n')}}, nil
}

// Describe is what people call an object.
func Describe(o neutral.Object) string {
	kind := string(o.Kind)
	if o.Resource != "" {
		kind = o.Resource
	}
	return kind + " " + o.Namespace + "/" + o.Name
}

// reachDeadline is how long a target that was switched has to answer at its port, and reachPause how often it is tried.
const (
	reachDeadline = 30 * time.Second
	reachPause    = 100 * time.Millisecond
)

// Reach waits until a container answers at its port.
func Reach(locator Locator) func(ctx context.Context, ref neutral.TargetRef) error {
	return func(ctx context.Context, ref neutral.TargetRef) error {
		ctx, cancel := context.WithTimeout(ctx, reachDeadline)
		defer cancel()
		for {
			err := reach(ctx, locator, ref)
			if err == nil {
				return nil
			}
			select {
			case <-ctx.Done():
				return fault.Wrap(fault.Timeout, err, "container %s does not answer at port %d within %s", objectName(ref), ref.Port, reachDeadline)
			case <-time.After(reachPause):
			}
		}
	}
}

// reach connects to a container's port, once.
func reach(ctx context.Context, locator Locator, ref neutral.TargetRef) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	target, err := locator.Locate(ctx, ref)
	if err != nil {
		return err
	}
	if !target.Running || !target.Address.IsValid() {
		return fault.New(fault.Conflict, "container %s is not running, or on no network", objectName(ref))
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", netip.AddrPortFrom(target.Address, ref.Port).String())
	if err != nil {
		return err
	}
	return conn.Close()
}
