package kubernetes

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/state"
)

// termAnnotation holds the number of a lease's last term. Kubernetes' own count of transitions begins anew with the
// object.
const termAnnotation = "isthmus.io/term"

// lease is a Lease of Kubernetes, used as its own components do: whoever does not hold it waits until it has not seen it
// renewed for its lifetime, by its own clock.
type lease struct {
	home *Home
	name string

	mu   sync.Mutex
	seen string // the version that was seen last
	at   time.Time
}

// Lease is a Lease of Kubernetes.
func (h *Home) Lease(name string) state.Lease {
	return &lease{home: h, name: h.config.Gateway + "." + name}
}

// Acquire takes the lease if it is free, has ended, or is that of an earlier life of this replica.
func (l *lease) Acquire(ctx context.Context) (*state.Term, error) {
	h := l.home
	ctx, cancel := h.limit(ctx)
	defer cancel()
	begun := time.Now()
	now, err := h.leases.Get(ctx, l.name, metav1.GetOptions{})
	switch {
	case missing(err):
		taken := l.take(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
			Name: l.name, Namespace: h.config.Namespace, Labels: map[string]string{gatewayLabel: h.config.Gateway},
		}}, 0)
		now, err = h.leases.Create(ctx, taken, metav1.CreateOptions{FieldManager: "isthmus"})
	case err == nil:
		if by := holder(now); by != "" && by != h.config.Holder && !l.ended(now) {
			return nil, &state.HeldError{Holder: by}
		}
		last := uint64(0)
		if text := now.Annotations[termAnnotation]; text != "" {
			if last, err = strconv.ParseUint(text, 10, 64); err != nil {
				return nil, fmt.Errorf("state in Kubernetes: lease %s: annotation %s holds no number", l.name, termAnnotation)
			}
		}
		now, err = h.leases.Update(ctx, l.take(now.DeepCopy(), last), metav1.UpdateOptions{FieldManager: "isthmus"})
	}
	if conflicting(err) {
		return nil, &state.HeldError{Holder: "another replica"}
	}
	if err != nil {
		return nil, h.failed(err)
	}
	term, err := strconv.ParseUint(now.Annotations[termAnnotation], 10, 64)
	if err != nil {
		return nil, fmt.Errorf("state in Kubernetes: lease %s: annotation %s was not kept", l.name, termAnnotation)
	}
	held := &heldLease{lease: l, object: now}
	return state.NewTerm(state.TermConfig{
		Number: term, Lifetime: h.config.Lifetime, Begun: begun, Alive: h.alive, Renew: held.renew, Release: held.release,
	}), nil
}

func holder(l *coordinationv1.Lease) string {
	if l.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.Spec.HolderIdentity
}

// ended tells whether a lease has not been renewed for its lifetime, as far as was seen here: clocks may differ.
func (l *lease) ended(now *coordinationv1.Lease) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen != now.ResourceVersion {
		l.seen, l.at = now.ResourceVersion, time.Now()
	}
	lifetime := l.home.config.Lifetime
	if seconds := now.Spec.LeaseDurationSeconds; seconds != nil {
		lifetime = time.Duration(*seconds) * time.Second
	}
	return time.Since(l.at) > lifetime
}

// take makes a lease this replica's, in the term after the last one.
func (l *lease) take(object *coordinationv1.Lease, last uint64) *coordinationv1.Lease {
	spec := &object.Spec
	now := metav1.NowMicro()
	seconds := int32(l.home.config.Lifetime / time.Second)
	transitions := int32(0)
	if spec.LeaseTransitions != nil {
		transitions = *spec.LeaseTransitions + 1
	}
	spec.HolderIdentity, spec.LeaseDurationSeconds, spec.LeaseTransitions = &l.home.config.Holder, &seconds, &transitions
	spec.AcquireTime, spec.RenewTime = &now, &now
	if object.Annotations == nil {
		object.Annotations = map[string]string{}
	}
	object.Annotations[termAnnotation] = strconv.FormatUint(state.NextNumber(last), 10)
	return object
}

// heldLease is a lease in a term. Its methods are called one at a time.
type heldLease struct {
	*lease
	object *coordinationv1.Lease
}

// renew writes the time. A conflict is looked into: our own last write may have been done, although no answer came.
func (l *heldLease) renew(ctx context.Context) error {
	for range 2 {
		next := l.object.DeepCopy()
		now := metav1.NowMicro()
		next.Spec.RenewTime = &now
		written, err := l.home.leases.Update(ctx, next, metav1.UpdateOptions{FieldManager: "isthmus"})
		if err == nil {
			l.object = written
			return nil
		}
		if missing(err) {
			return state.ErrLost
		}
		if !conflicting(err) {
			return l.home.failed(err)
		}
		there, err := l.home.leases.Get(ctx, l.name, metav1.GetOptions{})
		if missing(err) {
			return state.ErrLost
		}
		if err != nil {
			return l.home.failed(err)
		}
		if holder(there) != l.home.config.Holder || there.Annotations[termAnnotation] != l.object.Annotations[termAnnotation] {
			return state.ErrLost
		}
		l.object = there
	}
	return state.ErrConflict
}

// release lets the lease end now.
func (l *heldLease) release(ctx context.Context) error {
	ctx, cancel := l.home.limit(ctx)
	defer cancel()
	next := l.object.DeepCopy()
	nobody, second := "", int32(1) // Kubernetes wants a duration
	next.Spec.HolderIdentity, next.Spec.LeaseDurationSeconds = &nobody, &second
	_, err := l.home.leases.Update(ctx, next, metav1.UpdateOptions{FieldManager: "isthmus"})
	if err != nil && !conflicting(err) && !missing(err) { // else it is another's by now
		return l.home.failed(err)
	}
	return nil
}
