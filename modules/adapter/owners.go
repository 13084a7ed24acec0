package adapter

import (
	"encoding/json"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// ownerLife is how long an exec of an engine is remembered after it was last asked for. An engine itself forgets one five
// minutes after its end, and keeps one that runs.
const ownerLife = 24 * time.Hour

// owners remembers who made which exec of this cluster's engine for a caller of the same type: an engine lets everybody
// start, see and resize every exec, and tells their ids to whoever inspects a container or follows its events.
type owners struct {
	mu    sync.Mutex
	all   map[string]*owned
	count map[string]int // by peer
	now   func() time.Time
}

type owned struct {
	by      modules.Subject
	touched time.Time
}

func newOwners(now func() time.Time) *owners {
	return &owners{all: map[string]*owned{}, count: map[string]int{}, now: now}
}

// add remembers an exec. Of a peer that has too many the one that was asked for longest ago is forgotten.
func (o *owners) add(by modules.Subject, id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.count[by.Peer] >= execShare {
		oldest := ""
		for key, x := range o.all {
			if x.by.Peer == by.Peer && (oldest == "" || x.touched.Before(o.all[oldest].touched)) {
				oldest = key
			}
		}
		o.forget(oldest)
	}
	o.forget(id)
	o.all[id] = &owned{by: by, touched: o.now()}
	o.count[by.Peer]++
}

func (o *owners) forget(id string) {
	x, ok := o.all[id]
	if !ok {
		return
	}
	delete(o.all, id)
	if o.count[x.by.Peer]--; o.count[x.by.Peer] == 0 {
		delete(o.count, x.by.Peer)
	}
}

// check refuses an exec that somebody else made in the words of an engine that has none of that id.
func (o *owners) check(by modules.Subject, id string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	x, ok := o.all[id]
	if ok && o.now().Sub(x.touched) > ownerLife {
		o.forget(id)
		ok = false
	}
	if !ok || x.by != by {
		return fault.New(fault.NotFound, "No such exec instance: %s", id)
	}
	x.touched = o.now()
	return nil
}

// owned refuses a same-type request for an exec that another caller made.
func (m *Module) owned(req *modules.Request, a admission) error {
	if !a.same || m.config.Orchestrator != neutral.Docker || m.config.Mask == nil {
		return nil
	}
	switch a.op.Action {
	case neutral.ExecStart, neutral.ExecInspect, neutral.ExecResize:
		return m.owners.check(owner(req), a.op.Ref)
	}
	return nil
}

// own remembers whose the exec is that an answer tells of.
func (m *Module) own(req *modules.Request, answer []byte) error {
	var created struct {
		ID string `json:"Id"`
	}
	if err := json.Unmarshal(answer, &created); err != nil || created.ID == "" {
		return fault.Wrap(fault.Unavailable, err, "the orchestrator's answer could not be read")
	}
	m.owners.add(owner(req), created.ID)
	return nil
}
