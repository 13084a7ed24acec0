package docker

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

const (
	coalescing  = 20 * time.Millisecond  // of a burst of events into one listing
	settling    = time.Second            // after it, once more: an engine reports some changes before it lists them
	resync      = 30 * time.Second       // a listing even without an event
	swarmResync = 2 * time.Second        // the same, when tasks on other nodes count: their events do not come here
	backoffMin  = 100 * time.Millisecond // between attempts to follow an engine that is not there
	backoffMax  = 3 * time.Second
)

// followed are the events that can change the catalogue. Execs, and with them probes, are left out at the engine.
var followed = make(client.Filters).
	Add("type", string(events.ContainerEventType), string(events.ServiceEventType), string(events.NetworkEventType),
		string(events.NodeEventType)).
	Add("event", string(events.ActionStart), string(events.ActionDie), string(events.ActionDestroy), string(events.ActionPause),
		string(events.ActionUnPause), string(events.ActionRename), string(events.ActionHealthStatus),
		string(events.ActionConnect), string(events.ActionDisconnect), string(events.ActionUpdate), string(events.ActionCreate),
		string(events.ActionRemove))

// Services follows the exported containers and swarm services of this engine.
func (c *Cluster) Services(ctx context.Context, publish func([]neutral.Service)) error {
	f := &follower{cluster: c, publish: publish, inventory: newInventory(c.log), log: c.log}
	backoff := backoffMin
	for ctx.Err() == nil {
		f.report(ctx, f.follow(ctx))
		// What was published stays: containers outlive their engine, and Envoy sees by itself those that do not.
		if f.following {
			f.following, backoff = false, backoffMin
		}
		select {
		case <-ctx.Done():
		case <-time.After(backoff/2 + rand.N(backoff/2)):
		}
		backoff = min(2*backoff, backoffMax)
	}
	return nil
}

// report logs why the engine is not followed, once as long as the reason is the same.
func (f *follower) report(ctx context.Context, err error) {
	if ctx.Err() != nil || err.Error() == f.said {
		return
	}
	f.said = err.Error()
	f.log.Warn("the engine is not followed; trying again and again", "err", err)
}

// follower keeps one catalogue over any number of connections to the engine.
type follower struct {
	cluster   *Cluster
	publish   func([]neutral.Service)
	inventory *inventory
	log       *slog.Logger
	published []neutral.Service
	known     bool   // published holds a complete catalogue
	following bool   // the engine was listed since the last attempt began
	said      string // why it is not, as it was logged last
}

// follow lists once the engine sends events, so that nothing happens unseen between the two, and then on every event
// until the connection ends.
func (f *follower) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := f.cluster.api.Events(ctx, client.EventsListOptions{Filters: followed})
	select {
	case err := <-stream.Err:
		return err
	default:
	}
	f.cluster.self.Store(nil)
	clear(f.inventory.dead) // what happened while nobody listened is in the list
	if err := f.list(ctx); err != nil {
		return err
	}
	if f.said != "" {
		f.log.Info("the engine is followed again")
	}
	f.following, f.said = true, ""
	timer := time.NewTimer(f.inventory.resync())
	defer timer.Stop()
	dirty := false
	for {
		select {
		case message := <-stream.Messages:
			if message.Type == events.NodeEventType { // perhaps a swarm that this engine now manages
				f.cluster.self.Store(nil)
			}
			if f.inventory.apply(message) {
				f.offer()
			}
			if !dirty {
				dirty = true
				timer.Reset(coalescing)
			}
		case err := <-stream.Err:
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		case <-timer.C:
			next := f.inventory.resync()
			if dirty {
				dirty, next = false, settling
			}
			if err := f.list(ctx); err != nil {
				return err
			}
			timer.Reset(next)
		}
	}
}

// list reads the engine and publishes what changed.
func (f *follower) list(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	if err := f.inventory.read(ctx, f.cluster); err != nil {
		return err
	}
	f.offer()
	return nil
}

// offer publishes the catalogue if it is not what was published last.
func (f *follower) offer() {
	services := f.inventory.services()
	if f.known && slices.EqualFunc(services, f.published, neutral.Service.Equal) {
		return
	}
	f.known, f.published = true, services
	f.publish(slices.Clone(services))
}

// apply takes in at once what needs no listing: a container that died serves no more. It tells whether that changed
// anything.
func (i *inventory) apply(message events.Message) bool {
	if message.Type != events.ContainerEventType {
		return false
	}
	switch {
	case message.Action == events.ActionStart:
		delete(i.dead, message.Actor.ID)
	case message.Action == events.ActionDie, message.Action == events.ActionDestroy:
		return i.drop(message.Actor.ID)
	case message.Action == events.ActionPause:
		return i.suspend(message.Actor.ID)
	case strings.HasPrefix(string(message.Action), string(events.ActionHealthStatusUnhealthy)):
		return i.suspend(message.Actor.ID)
	}
	return false
}
