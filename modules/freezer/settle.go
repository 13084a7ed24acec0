package freezer

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Runtime is the container runtime of a node.
type Runtime interface {
	// Look tells how a container is. One that the runtime does not know is Gone.
	Look(ctx context.Context, id string) (Sight, error)
	// Note keeps a mark with a container, Erase drops it.
	Note(ctx context.Context, id string, mark Mark) error
	Erase(ctx context.Context, id string) error
	// Pause and Resume give ErrUnchanged where the runtime says that it did not do it.
	Pause(ctx context.Context, id string) error
	Resume(ctx context.Context, id string) error
}

// Sight is what a runtime tells of a container.
type Sight struct {
	Task Task
	Mark Mark
	Pod  string // the uid of the Pod that it is of; "" where it is Gone
}

// Marked is a container that carries a mark, and the Pod that it is of.
type Marked struct {
	ID, Pod         string
	Namespace, Name string // the Pod's
}

// ErrUnchanged is the error of a pause or resume that the runtime refused.
var ErrUnchanged = errors.New("the runtime has left the container as it was")

// errUnsettled is the error of a container that does not come to rest.
var errUnsettled = errors.New("the container does not come to rest")

const (
	moves     = 12 // more than any way through Decide has, somebody else's doing included
	awaitStep = 100 * time.Millisecond
)

// Target is one container that an agent is to settle.
type Target struct {
	ID      string // the runtime's own
	Pod     string // the uid of the Pod that it must be of
	Wish    string // "" for none
	Refusal string // why it is not frozen, whatever the wish
}

// Settle does what is to be done with a container until there is nothing more.
func Settle(ctx context.Context, runtime Runtime, target Target) (State, string, error) {
	refusal := target.Refusal
	for range moves {
		sight, err := runtime.Look(ctx, target.ID)
		if err != nil {
			return "", "", fmt.Errorf("look at the container: %w", err)
		}
		if sight.Task != Gone && sight.Pod != target.Pod {
			return Refused, "its node runs another Pod's container under its id", nil
		}
		move := Decide(View{Wish: target.Wish, Refusal: refusal, Mark: sight.Mark, Task: sight.Task})
		switch move.Deed {
		case Rest:
			return move.State, move.Reason, nil
		case Note:
			err = runtime.Note(ctx, target.ID, move.Mark)
		case Erase:
			err = runtime.Erase(ctx, target.ID)
		case Resume:
			err = runtime.Resume(ctx, target.ID)
		case Pause:
			err = runtime.Pause(ctx, target.ID)
			if errors.Is(err, ErrUnchanged) {
				// Not ours, then, whatever it is now: it may have been paused by somebody else between look and pause.
				refusal = "the runtime of its node does not freeze it"
				err = runtime.Erase(ctx, target.ID)
			}
		case Await:
			select {
			case <-ctx.Done():
				return "", "", ctx.Err()
			case <-time.After(awaitStep):
			}
		}
		if err != nil {
			return "", "", err
		}
	}
	return "", "", errUnsettled
}
