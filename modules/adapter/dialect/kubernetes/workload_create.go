package kubernetes

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// createWorkload makes a Deployment, DaemonSet or Job and then its Service and export. When these fail, the workload
// goes again, for half of a service is none.
func (a *action) createWorkload(ctx context.Context) (neutral.Result, error) {
	w := a.op.Workload
	if w == nil || w.Name == "" {
		return neutral.Result{}, fault.New(fault.Invalid, "the service has no name")
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	made, built, err := a.makeWorkload(ctx, w)
	if apierrors.IsAlreadyExists(err) {
		return neutral.Result{}, fault.Wrap(fault.Conflict, err, "name conflicts with an existing object: service %s already exists", w.Name)
	}
	if err != nil {
		return neutral.Result{}, nativeFault(err)
	}
	result := neutral.Result{Losses: built.losses}
	losses, err := a.offer(ctx, made, built.ports)
	if err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		if failed := a.deleteWorkload(undo, made); failed != nil && !apierrors.IsNotFound(failed) {
			a.log.Error("a service that could not be made whole is not removed", "workload", made.meta.Name, "err", failed)
		}
		return neutral.Result{}, err
	}
	result.Losses = append(result.Losses, losses...)
	now := workloadFromNative(a.cluster, made)
	result.ID, result.Workload = now.ID, &now
	return result, nil
}

// makeWorkload creates the object that the mode stands for.
func (a *action) makeWorkload(ctx context.Context, w *neutral.Workload) (*nativeWorkload, *builtWorkload, error) {
	options := metav1.CreateOptions{FieldManager: fieldManager}
	switch w.Mode {
	case "", neutral.ModeReplicated:
		d, built, err := deploymentFromWorkload(w, a.namespace)
		if err != nil {
			return nil, nil, err
		}
		if err := a.admitWorkload(workloadFromDeployment(d)); err != nil {
			return nil, nil, err
		}
		made, err := a.client.AppsV1().Deployments(a.namespace).Create(ctx, d, options)
		if err != nil {
			return nil, nil, err
		}
		return workloadFromDeployment(made), built, nil
	case neutral.ModeGlobal:
		d, built, err := daemonSetFromWorkload(w, a.namespace)
		if err != nil {
			return nil, nil, err
		}
		if err := a.admitWorkload(workloadFromDaemonSet(d)); err != nil {
			return nil, nil, err
		}
		made, err := a.client.AppsV1().DaemonSets(a.namespace).Create(ctx, d, options)
		if err != nil {
			return nil, nil, err
		}
		return workloadFromDaemonSet(made), built, nil
	case neutral.ModeJob:
		j, built, err := jobFromWorkload(w, a.namespace)
		if err != nil {
			return nil, nil, err
		}
		if err := a.admitWorkload(workloadFromJob(j)); err != nil {
			return nil, nil, err
		}
		made, err := a.client.BatchV1().Jobs(a.namespace).Create(ctx, j, options)
		if err != nil {
			return nil, nil, err
		}
		return workloadFromJob(made), built, nil
	}
	return nil, nil, fault.New(fault.Unsupported, "mode %s is refused: Kubernetes has no job that runs once on every node", w.Mode)
}

func (a *action) admitWorkload(n *nativeWorkload) error {
	w := workloadFromNative(a.cluster, n)
	return a.permit(workloadObject(&w))
}
