package docker

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// watchEvents tells what happens to what the caller may see. Events tell of most objects no labels, and of one that is gone
// nothing can be asked; so what is there at the beginning is read.
func (a *action) watchEvents(ctx context.Context, session neutral.Session) (neutral.Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	since := a.op.Since
	if since.IsZero() {
		// An engine answers before it listens. What happens in between it tells of when it is asked for it.
		var err error
		if since, err = a.engineTime(ctx); err != nil {
			return neutral.Result{}, err
		}
	}
	native := a.api.Events(ctx, client.EventsListOptions{Since: moment(since), Until: moment(a.op.Until)})
	w := &watching{action: a, session: session, known: map[string]watched{}}
	if err := w.begin(ctx); err != nil {
		return neutral.Result{}, err
	}
	if err := session.Accept(); err != nil {
		return neutral.Result{}, err
	}
	for {
		select {
		case event := <-native.Messages:
			if err := w.tell(ctx, event); err != nil {
				return neutral.Result{}, err
			}
		case err := <-native.Err:
			switch {
			case ctx.Err() != nil:
				return neutral.Result{}, ctx.Err()
			case errors.Is(err, io.EOF) && !a.op.Until.IsZero():
				return neutral.Result{}, nil
			case errors.Is(err, io.EOF):
				return neutral.Result{}, fault.New(fault.Unavailable, "the orchestrator ended the stream of events")
			}
			if known := faultOf(err); !fault.Is(known, fault.Internal) {
				return neutral.Result{}, known
			}
			return neutral.Result{}, brokenStream(err)
		}
	}
}

// engineTime is the engine's clock.
func (a *action) engineTime(ctx context.Context) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	info, err := a.api.Info(ctx, client.InfoOptions{})
	if err != nil {
		return time.Time{}, faultOf(err)
	}
	now, err := time.Parse(time.RFC3339Nano, info.Info.SystemTime)
	if err != nil {
		return time.Time{}, fault.Wrap(fault.Unavailable, err, "the orchestrator's time cannot be read")
	}
	return now, nil
}

// watched is what is known of an object: what policy sees of it, and its name in its namespace.
type watched struct {
	named
	object neutral.Object
}

// watching is a stream of events under way.
type watching struct {
	*action
	session neutral.Session
	known   map[string]watched // by kind and id
}

func (w *watching) wants(kind neutral.Kind) bool {
	return len(w.op.Filter.Kinds) == 0 || slices.Contains(w.op.Filter.Kinds, kind)
}

// begin reads what is there, of the kinds whose events do not say it.
func (w *watching) begin(ctx context.Context) error {
	for _, kind := range []neutral.Kind{neutral.KindWorkload, neutral.KindSecret, neutral.KindConfig, neutral.KindNetwork, neutral.KindVolume,
		neutral.KindNode} {
		if !w.wants(kind) {
			continue
		}
		if err := w.read(ctx, kind, ""); err != nil {
			return err
		}
	}
	return nil
}

func (w *watching) keep(kind neutral.Kind, id string, n named, object neutral.Object) {
	w.known[string(kind)+" "+id] = watched{n, object}
}

// read reads the objects of a kind, one alone where an id says which.
func (w *watching) read(ctx context.Context, kind neutral.Kind, id string) error {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	a := &action{Cluster: w.Cluster, op: w.op, guard: w.guard} // nothing that was read before
	switch kind {
	case neutral.KindContainer:
		found, err := a.containerByID(ctx, id)
		if err != nil {
			return err
		}
		object := found.object()
		object.Container, err = a.see(ctx, object.Container)
		w.keep(kind, id, found.named, object)
		return err
	case neutral.KindWorkload:
		services, err := a.services(ctx)
		if err != nil {
			return err
		}
		for _, s := range services {
			object := s.object()
			if object.Container, err = a.see(ctx, object.Container); err != nil {
				return err
			}
			w.keep(kind, s.id, s.named, object)
		}
	case neutral.KindSecret, neutral.KindConfig:
		files, err := a.storedKinds(ctx, kind)
		if err != nil {
			return err
		}
		for _, f := range files {
			w.keep(kind, f.id, f.named, f.object(kind, f.Labels))
		}
	case neutral.KindNetwork:
		networks, err := a.allNetworks(ctx)
		if err != nil {
			return err
		}
		for _, n := range networks {
			found := nameOf(n.ID, n.Name, n.Labels)
			w.keep(kind, n.ID, found, found.object(kind, n.Labels))
		}
	case neutral.KindVolume:
		if _, err := a.volumeSources(ctx); err != nil {
			return err
		}
		for name, v := range a.kept {
			w.keep(kind, name, nameOf(name, name, v.Labels), volumeObject(v))
		}
	case neutral.KindNode:
		nodes, err := a.nodes(ctx)
		if err != nil {
			return err
		}
		for i := range nodes {
			n := &nodes[i]
			w.keep(kind, n.ID, named{id: n.ID, docker: n.Name, namespace: defaultNamespace, name: n.Name}, nodeObject(n))
		}
	default:
		return fault.New(fault.NotFound, "nothing more is known of it")
	}
	return nil
}

// changes are the words of events after which an object may be another one for policy.
var changes = map[events.Action]bool{events.ActionCreate: true, events.ActionUpdate: true, events.ActionRename: true}

// about is the object of an event, as it is or was; false for one of which nothing is known.
func (w *watching) about(ctx context.Context, kind neutral.Kind, event events.Message) (watched, bool) {
	id := event.Actor.ID
	key := string(kind) + " " + id
	if kind == neutral.KindImage {
		name := event.Actor.Attributes["name"]
		if name == "" {
			name = id
		}
		return watched{named{id: id, docker: name, namespace: defaultNamespace, name: name},
			neutral.Object{Kind: kind, Namespace: defaultNamespace, Name: name, Labels: event.Actor.Attributes}}, true
	}
	known, ok := w.known[key]
	if !ok || changes[event.Action] {
		if err := w.read(ctx, kind, id); err != nil && !fault.Is(err, fault.NotFound) {
			w.log.Debug("the object of an event could not be read", "kind", kind, "err", err)
		}
		known, ok = w.known[key]
		if ok && kind == neutral.KindContainer && event.Action == events.ActionRename { // it may be gone already
			known.named = nameOf(id, event.Actor.Attributes["name"], event.Actor.Attributes)
			known.object.Name = known.name
			w.known[key] = known
		}
	}
	if !ok && kind == neutral.KindContainer { // it is gone; the event tells its labels, and policy sees no more of it
		labels := readBeside(event.Actor.Attributes).labels
		n := nameOf(id, event.Actor.Attributes["name"], labels)
		return watched{n, n.object(kind, labels)}, true
	}
	if event.Action == events.ActionDestroy || event.Action == events.ActionRemove {
		delete(w.known, key)
	}
	return known, ok
}

// tell passes an event on that the caller wants and may see.
func (w *watching) tell(ctx context.Context, native events.Message) error {
	kind, ok := eventKinds[string(native.Type)]
	if !ok || kind == neutral.KindOther || kind == neutral.KindSystem || !w.wants(kind) {
		return nil
	}
	about, ok := w.about(ctx, kind, native)
	if !ok || !about.in(w.op.Object.Namespace) || !w.shows(about.object) {
		return nil
	}
	if with := native.Actor.Attributes["container"]; with != "" && (kind == neutral.KindNetwork || kind == neutral.KindVolume) {
		member, ok := w.about(ctx, neutral.KindContainer, events.Message{Actor: events.Actor{ID: with}})
		if !ok || !w.shows(member.object) {
			return nil
		}
	}
	event := neutral.Event{Time: time.Unix(0, native.TimeNano), Kind: kind, Action: string(native.Action), ID: native.Actor.ID,
		Namespace: about.namespace, Attributes: readBeside(native.Actor.Attributes).labels}
	if native.TimeNano == 0 {
		event.Time = time.Unix(native.Time, 0)
	}
	event.Attributes["name"] = about.name
	if !w.filtered(event) {
		return nil
	}
	if err := w.session.Event(event); err != nil {
		return fault.Wrap(fault.Unavailable, err, "an event could not be passed on")
	}
	return nil
}

// filtered applies the caller's filters.
func (w *watching) filtered(e neutral.Event) bool {
	f := w.op.Filter
	image := e.Attributes["image"]
	if e.Kind == neutral.KindImage {
		image = e.Attributes["name"]
	}
	return eventWanted(f, e) && (len(f.Ancestors) == 0 ||
		slices.ContainsFunc(f.Ancestors, func(wanted string) bool { return sameImage(wanted, image) || strings.HasPrefix(e.ID, wanted) }))
}

// shows tells whether the caller may see what happens to an object; what it may not see is left out of the stream.
func (w *watching) shows(object neutral.Object) bool { return w.permit(object) == nil }
