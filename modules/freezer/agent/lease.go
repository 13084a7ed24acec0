package agent

import (
	"context"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/freezer"
)

// announce says that the node has an agent, until ctx ends, and then that it has none.
func (a *Agent) announce(ctx context.Context) {
	next := time.NewTicker(freezer.LeaseLifetime / 3)
	defer next.Stop()
	for {
		if err := a.renew(ctx, a.holder); err != nil && ctx.Err() == nil {
			a.Log.Warn("gateways cannot be told that this agent is there", "namespace", a.LeaseNamespace, "err", err)
		}
		select {
		case <-ctx.Done():
			end, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
			defer cancel()
			if err := a.renew(end, ""); err != nil {
				a.Log.Warn("gateways are not told that this agent has ended", "err", err)
			}
			return
		case <-next.C:
		}
	}
}

// renew writes the lease; a holder of "" gives it up.
func (a *Agent) renew(ctx context.Context, holder string) error {
	ctx, cancel := context.WithTimeout(ctx, freezer.LeaseLifetime/3)
	defer cancel()
	leases := a.Client.CoordinationV1().Leases(a.LeaseNamespace)
	name, now, lifetime := freezer.LeasePrefix+a.Node, metav1.NewMicroTime(time.Now()), int32(freezer.LeaseLifetime/time.Second)
	lease, err := leases.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		lease = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: a.LeaseNamespace}}
	} else if err != nil {
		return err
	}
	lease.Spec.HolderIdentity, lease.Spec.RenewTime, lease.Spec.LeaseDurationSeconds = &holder, &now, &lifetime
	if lease.ResourceVersion == "" {
		_, err = leases.Create(ctx, lease, metav1.CreateOptions{FieldManager: manager})
	} else {
		_, err = leases.Update(ctx, lease, metav1.UpdateOptions{FieldManager: manager})
	}
	return err
}
