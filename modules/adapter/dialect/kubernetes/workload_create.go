package kubernetes

import (
	"context"

	corev1 "k8s.io/api/core/v1"
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
	on, err := a.joined(ctx, w.Template.Networks)
	if err != nil {
		return neutral.Result{}, err
	}
	if err := a.checkFiles(ctx, w.Template.Files); err != nil {
		return neutral.Result{}, err
	}
	placed := *w
	placed.Template.Networks = on
	w = &placed
	made, built, volumes, err := a.makeWorkload(ctx, w)
	if err != nil {
		a.undoVolumes(ctx, volumes)
	}
	if apierrors.IsAlreadyExists(err) {
		if err := a.offerWhole(ctx, w.Mode, w.Name); err != nil {
			a.log.Warn("a service that is there has not all of its ports published", "workload", w.Name, "err", err)
		}
		return neutral.Result{}, fault.Wrap(fault.Conflict, err, "rpc error: code = AlreadyExists desc = name conflicts with an existing object: service %s already exists", w.Name)
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
		a.undoVolumes(ctx, volumes)
		return neutral.Result{}, err
	}
	result.Losses = append(result.Losses, losses...)
	now := workloadFromNative(a.cluster, made)
	result.ID, result.Workload = now.ID, &now
	return result, nil
}

// offerWhole publishes the ports of a workload that is there already and has no Service: the gateway that made it was killed
// before it came to that, and its caller tries again.
func (a *action) offerWhole(ctx context.Context, mode neutral.Mode, name string) error {
	var n *nativeWorkload
	switch mode {
	case "", neutral.ModeReplicated:
		d, err := a.client.AppsV1().Deployments(a.namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nativeFault(err)
		}
		n = workloadFromDeployment(d)
	case neutral.ModeGlobal:
		d, err := a.client.AppsV1().DaemonSets(a.namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nativeFault(err)
		}
		n = workloadFromDaemonSet(d)
	default:
		return nil
	}
	if n.template.Labels[labelWorkload] == "" {
		return nil
	}
	w := workloadFromNative(a.cluster, n)
	ports, err := servicePorts(&w)
	if err != nil || len(ports) == 0 {
		return err
	}
	if err := a.permit(workloadObject(&w)); err != nil {
		return err
	}
	_, err = a.client.CoreV1().Services(a.namespace).Get(ctx, name, metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		return nativeFault(err)
	}
	_, err = a.offer(ctx, n, ports)
	return err
}

// makeWorkload creates the object that the mode stands for.
func (a *action) makeWorkload(ctx context.Context, w *neutral.Workload) (made *nativeWorkload, built *builtWorkload,
	volumes []*corev1.PersistentVolumeClaim, err error) {
	options := metav1.CreateOptions{FieldManager: fieldManager}
	switch w.Mode {
	case "", neutral.ModeReplicated:
		d, built, err := deploymentFromWorkload(w, a.namespace)
		if err != nil {
			return nil, nil, volumes, err
		}
		if volumes, err = a.admitWorkload(ctx, workloadFromDeployment(d)); err != nil {
			return nil, nil, volumes, err
		}
		made, err := a.client.AppsV1().Deployments(a.namespace).Create(ctx, d, options)
		if err != nil {
			return nil, nil, volumes, err
		}
		return workloadFromDeployment(made), built, volumes, nil
	case neutral.ModeGlobal:
		d, built, err := daemonSetFromWorkload(w, a.namespace)
		if err != nil {
			return nil, nil, volumes, err
		}
		if volumes, err = a.admitWorkload(ctx, workloadFromDaemonSet(d)); err != nil {
			return nil, nil, volumes, err
		}
		made, err := a.client.AppsV1().DaemonSets(a.namespace).Create(ctx, d, options)
		if err != nil {
			return nil, nil, volumes, err
		}
		return workloadFromDaemonSet(made), built, volumes, nil
	case neutral.ModeJob:
		j, built, err := jobFromWorkload(w, a.namespace)
		if err != nil {
			return nil, nil, volumes, err
		}
		if volumes, err = a.admitWorkload(ctx, workloadFromJob(j)); err != nil {
			return nil, nil, volumes, err
		}
		made, err := a.client.BatchV1().Jobs(a.namespace).Create(ctx, j, options)
		if err != nil {
			return nil, nil, volumes, err
		}
		return workloadFromJob(made), built, volumes, nil
	}
	return nil, nil, nil, fault.New(fault.Unsupported, "mode %s is refused: Kubernetes has no job that runs once on every node", w.Mode)
}

// admitWorkload asks policy about a workload and its volumes, and makes those that are not there.
func (a *action) admitWorkload(ctx context.Context, n *nativeWorkload) ([]*corev1.PersistentVolumeClaim, error) {
	missing, err := a.missingVolumes(ctx, n.template.ObjectMeta, &n.template.Spec)
	if err != nil {
		return nil, err
	}
	w := workloadFromNative(a.cluster, n)
	if err := a.permitSeen(ctx, workloadObject(&w)); err != nil {
		return nil, err
	}
	if err := a.publishPorts(ctx, n.template.Labels); err != nil {
		return nil, err
	}
	return missing, a.makeVolumes(ctx, missing)
}

// undoVolumes takes away what was made for a workload that could not be, or not be changed.
func (a *action) undoVolumes(ctx context.Context, volumes []*corev1.PersistentVolumeClaim) {
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	for _, claim := range volumes {
		if claim.UID == "" {
			continue // somebody else made it
		}
		if err := a.deleteClaim(undo, claim); err != nil {
			a.log.Error("a volume of a service that could not be made or changed is not removed", "volume", claim.Name, "err", err)
		}
	}
}
