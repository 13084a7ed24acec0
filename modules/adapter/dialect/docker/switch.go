package docker

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

var _ dialect.Switcher = (*Cluster)(nil)

// Labels of what a switch made: the lease, and of a container the id of the one in whose place it is.
const (
	labelSwitch   = "isthmus.io/switch"
	labelSwitchOf = "isthmus.io/switch-of"
)

// spareName is what the old container is called while the new one has its name, and draftName what the new one is called
// while it has not.
func spareName(name, lease string) string { return name + "-isthmus-" + lease }
func draftName(name, lease string) string { return spareName(name, lease) + "-new" }

// The two ways of a switch.
const (
	wayLive     = "live"
	wayRecreate = "recreate"
)

// switchRecord is what the journal keeps of a container's switch. The container as it was needs no keeping: it stays, stopped.
type switchRecord struct {
	Way     string                  `json:"way"`
	Old     string                  `json:"old"`               // id of the container as it was found
	Name    string                  `json:"name"`              // its name then
	Mode    container.NetworkMode   `json:"mode,omitempty"`    // that the new one is made in
	Restart container.RestartPolicy `json:"restart"`           // of the old one
	Stopped bool                    `json:"stopped,omitempty"` // the old one may have been stopped
	Since   string                  `json:"since,omitempty"`   // it ran since then when it was told to stop
	New     string                  `json:"new,omitempty"`     // id of the one that was made
	Image   string                  `json:"image,omitempty"`   // id of what the old one's files were committed to
	Network string                  `json:"network,omitempty"` // id of the lease's network
	None    bool                    `json:"none,omitempty"`    // it was on no network
}

func (r *switchRecord) native() json.RawMessage {
	raw, err := json.Marshal(r)
	if err != nil { // texts and truths always marshal
		return nil
	}
	return raw
}

func recordOf(s *neutral.Switching) (*switchRecord, error) {
	var r switchRecord
	if err := json.Unmarshal(s.Plan.Native, &r); err != nil || r.Old == "" || r.Name == "" || r.Way != wayLive && r.Way != wayRecreate {
		return nil, fault.Wrap(fault.Internal, err, "what was remembered of the switch cannot be read")
	}
	return &r, nil
}

// step writes the journal before a touch.
func step(ctx context.Context, s *neutral.Switching, what string, r *switchRecord) error {
	if s.Step == nil {
		return nil
	}
	err := s.Step(ctx, what, r.native())
	if known := (*fault.Error)(nil); err == nil || errors.As(err, &known) {
		return err
	}
	return fault.Wrap(fault.Unavailable, err, "the journal of the switch cannot be written")
}

// PlanSwitch finds the container, and whose it is: a task is its service's.
func (c *Cluster) PlanSwitch(ctx context.Context, peer string, ref neutral.TargetRef, need neutral.NetworkNeed) (neutral.SwitchPlan, error) {
	name := ref.Container
	if ref.Pod != "" {
		name = joinName(ref.Container, ref.Pod)
	}
	found, err := c.find(ctx, ref.Namespace, name)
	if err != nil {
		return neutral.SwitchPlan{}, err
	}
	if found.Config.Labels[labelSwarmService] != "" {
		return c.planServiceSwitch(ctx, peer, ref, need, found)
	}
	p, err := c.planned(ctx, found, need)
	if err != nil {
		return neutral.SwitchPlan{}, faultOf(err)
	}
	p.Native = p.record.native()
	return p.SwitchPlan, nil
}

// planned is a plan on its way.
type planned struct {
	neutral.SwitchPlan
	record switchRecord
	image  string // what the new container's is called
}

func (p *planned) refuse(format string, args ...any) {
	p.Refusals = append(p.Refusals, fault.New(fault.Conflict, format, args...).Message)
}

func (p *planned) lose(format string, args ...any) {
	p.Lost = append(p.Lost, fault.New(fault.Conflict, format, args...).Message)
}

// planned says what the switch of a container takes. It looks, and touches nothing.
func (c *Cluster) planned(ctx context.Context, found container.InspectResponse, need neutral.NetworkNeed) (*planned, error) {
	short, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	object, err := c.judged(short, found)
	if err != nil {
		return nil, err
	}
	where, err := c.place(short, found.ID, string(found.HostConfig.NetworkMode), found.NetworkSettings.Networks, &gateways{cluster: c})
	if err != nil {
		return nil, err
	}
	p := &planned{record: switchRecord{Old: found.ID, Name: strings.TrimPrefix(found.Name, "/"), Restart: found.HostConfig.RestartPolicy}}
	p.Object, p.From = object, where.mode
	p.To, p.record.Way = wayTo(where, need.Mode)
	if p.record.Way == "" {
		p.refuse("%s", refusedMode(p.record.Name, where, need.Mode))
	}
	c.refuseState(short, p, found)
	switch p.record.Way {
	case wayLive:
		p.Live, p.record.None = true, where.mode == neutral.NetworkNone
		p.Lost = append(p.Lost, lostLive...)
	case wayRecreate:
		p.record.Mode = container.NetworkMode(p.To)
		p.Recreated = []string{object.Name}
		p.Away = restartTime
		err = c.planRecreation(ctx, p, found, need)
	}
	return p, err
}

// restartTime is about what an engine takes to start another container in the place of one that ends when it is told to.
const restartTime = time.Second

// wayTo tells how a container comes into a mode; no way is no switch.
func wayTo(where location, mode neutral.NetworkMode) (neutral.NetworkMode, string) {
	_, shared := where.connected()
	switch {
	case shared:
		return where.mode, ""
	case mode == neutral.NetworkHost && where.mode != neutral.NetworkHost:
		return neutral.NetworkHost, wayRecreate
	case mode == neutral.NetworkBridge && where.mode == neutral.NetworkHost:
		return neutral.NetworkBridge, wayRecreate
	case (mode == "" || mode == neutral.NetworkBridge) && where.mode != neutral.NetworkHost && !where.address.IsValid():
		return neutral.NetworkBridge, wayLive
	}
	return where.mode, ""
}

func refusedMode(name string, where location, mode neutral.NetworkMode) string {
	_, shared := where.connected()
	text := "container " + name + " has the network mode " + string(where.mode) + " already, and this gateway reaches it there: " +
		"where its port does not answer, another mode is no help"
	switch {
	case shared:
		text = "container " + name + " shares another container's network; reach that one"
	case mode != "" && mode != neutral.NetworkHost && mode != neutral.NetworkBridge:
		text = "the network mode " + shorten(string(mode)) + " is none that a container is brought into; host and bridge are"
	}
	return text
}

// refuseState refuses what is no container to switch now.
func (c *Cluster) refuseState(ctx context.Context, p *planned, found container.InspectResponse) {
	name, state := p.record.Name, found.State
	switch {
	case state == nil || state.Dead || !state.Running && !state.Restarting:
		p.refuse("container %s does not run", name)
	case state.Restarting:
		p.refuse("container %s restarts again and again", name)
	case state.Paused:
		p.refuse("container %s is paused", name)
	}
	if found.Config.NetworkDisabled {
		p.refuse("container %s was made without a network", name)
	}
	of := found.Config.Labels[labelSwitchOf]
	if of == "" {
		return
	}
	if old, err := c.api.ContainerInspect(ctx, of, client.ContainerInspectOptions{}); err == nil { // kept for its way back
		if p.Object.Container != nil {
			p.Object.Container.ID = old.Container.ID
		}
		p.refuse("container %s is in another network mode already, for a lease that has not ended", name)
	}
}

// Switch carries a plan out.
func (c *Cluster) Switch(ctx context.Context, s *neutral.Switching) (neutral.TargetRef, error) {
	if ofService(s) {
		return c.switchService(ctx, s)
	}
	r, err := recordOf(s)
	if err != nil {
		return s.Ref, err
	}
	found, err := c.inspect(ctx, r.Old)
	if err != nil {
		return s.Ref, err
	}
	if found == nil || strings.TrimPrefix(found.Container.Name, "/") != r.Name {
		return s.Ref, fault.New(fault.Conflict, "container %s is not the one that was to be switched any more", r.Name)
	}
	p, err := c.planned(ctx, found.Container, s.Need)
	if err != nil {
		return s.Ref, faultOf(err)
	}
	if p.record.Way != r.Way || p.To != s.Plan.To {
		p.refuse("container %s has another network mode than when its switch was planned", r.Name)
	}
	if len(p.Refusals) > 0 {
		return s.Ref, fault.New(fault.Conflict, "%s", strings.Join(p.Refusals, "; "))
	}
	r = &p.record
	if r.Way == wayLive {
		err = c.switchLive(ctx, s, r)
	} else {
		err = c.switchRecreate(ctx, s, p, found)
	}
	ref := s.Ref
	if r.New != "" && ref.Pod == "" && strings.HasPrefix(r.Old, ref.Container) && ref.Container != r.Name { // it was named by its id
		ref.Container = r.New
	}
	return ref, faultOf(err)
}

// Restore takes a switch back.
func (c *Cluster) Restore(ctx context.Context, s *neutral.Switching) error {
	if ofService(s) {
		return c.restoreService(ctx, s)
	}
	r, err := recordOf(s)
	if err != nil {
		return err
	}
	if r.Way == wayLive {
		return faultOf(c.restoreLive(ctx, s, r))
	}
	return faultOf(c.restoreRecreated(ctx, s, r))
}

// Keep ends a switch and leaves what it did. A network that was joined for it stays, for the container is on it.
func (c *Cluster) Keep(ctx context.Context, s *neutral.Switching) error {
	if ofService(s) {
		return c.keepService(ctx, s)
	}
	r, err := recordOf(s)
	if err != nil || r.Way == wayLive {
		return err
	}
	return faultOf(c.keepRecreated(ctx, s, r))
}

// ofService tells a switch of a swarm's service: its plan's object is the service.
func ofService(s *neutral.Switching) bool { return s.Plan.Object.Kind == neutral.KindWorkload }

// inspect is a container by its id; nil where there is none.
func (c *Cluster) inspect(ctx context.Context, id string) (*client.ContainerInspectResult, error) {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	found, err := c.api.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	switch {
	case cerrdefs.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, faultOf(err)
	case found.Container.Config == nil || found.Container.HostConfig == nil || found.Container.NetworkSettings == nil || found.Container.State == nil:
		return nil, fault.New(fault.Internal, "the orchestrator gave an answer that cannot be read")
	}
	return &found, nil
}
