package kubernetes

import (
	"context"
	"reflect"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Swarm remembers the whole spec that a service had before its last change. Kubernetes remembers the templates of a
// Deployment, in its ReplicaSets, and nothing of its number of replicas, labels and ports.

const (
	annotationRevision = "deployment.kubernetes.io/revision"
	// annotationBeside tells what of a caller's last change no ReplicaSet remembers.
	annotationBeside = "isthmus.io/changed-beside-template"
	besideOnly       = "only" // there is no template to go back to: it did not change
	besideAlso       = "also"
)

// noteBeside notes whether a change is one that can be taken back.
func noteBeside(n *nativeWorkload, before *corev1.PodTemplateSpec, was, is *neutral.Workload) {
	delete(n.meta.Annotations, annotationBeside)
	beside := n.replicas != nil && replicasOf(*n.replicas) != was.Replicas ||
		len(was.Labels)+len(is.Labels) > 0 && !reflect.DeepEqual(was.Labels, is.Labels) ||
		!sameList(was.Template.Ports, is.Template.Ports) || !reflect.DeepEqual(was.Update, is.Update)
	switch {
	case equality.Semantic.DeepEqual(before, n.template):
		n.meta.Annotations[annotationBeside] = besideOnly
	case beside:
		n.meta.Annotations[annotationBeside] = besideAlso
	}
}

// rollBackOnce changes a Deployment back to the template that it had before the one that it has.
func (a *action) rollBackOnce(ctx context.Context, made *[]*corev1.PersistentVolumeClaim) (neutral.Result, error) {
	found, err := a.findWorkload(ctx, a.op.Ref)
	if err != nil {
		return neutral.Result{}, err
	}
	if a.op.Version != "" && a.op.Version != found.Version {
		return neutral.Result{}, fault.New(fault.Conflict, "update out of sequence")
	}
	n := found.native
	if n.kind != "Deployment" {
		return neutral.Result{}, fault.New(fault.Unsupported, "rollback: a %s of Kubernetes keeps no former template that can be gone "+
			"back to from here; update the service with the spec that is wanted", n.kind)
	}
	if n.meta.Annotations[annotationBeside] == besideOnly {
		return neutral.Result{}, fault.New(fault.Unsupported, "rollback: the last change was not of the service's containers, and "+
			"Kubernetes remembers only those; update the service with the spec that is wanted")
	}
	former, err := a.formerTemplate(ctx, n)
	if err != nil {
		return neutral.Result{}, err
	}
	if former == nil {
		return neutral.Result{}, fault.New(fault.Conflict, "rpc error: code = FailedPrecondition desc = service %s does not have a previous spec",
			found.Name)
	}
	*n.template = *former
	changed := workloadFromNative(a.cluster, n)
	if !sameList(hostPorts(found.Template.Ports), hostPorts(changed.Template.Ports)) {
		return neutral.Result{}, fault.New(fault.Unsupported, "rollback: the ports that are published on nodes were others then; "+
			"update the service with the spec that is wanted")
	}
	var losses []neutral.Loss
	if n.meta.Annotations[annotationBeside] == besideAlso {
		losses = append(losses, neutral.Loss{Field: "rollback", Change: "replicas, labels, ports and UpdateConfig stay as they are",
			Reason: "Kubernetes remembers only former templates"})
	}
	delete(n.meta.Annotations, annotationBeside)
	missing, err := a.admitFormer(ctx, n, &changed)
	if err != nil {
		return neutral.Result{}, err
	}
	if err := a.makeVolumes(ctx, missing); err != nil {
		return neutral.Result{}, err
	}
	*made = append(*made, missing...)
	if err := n.save(ctx, a.Cluster); err != nil {
		return neutral.Result{}, err
	}
	*made = nil // the service has them
	return neutral.Result{ID: found.ID, Losses: losses}, nil
}

// admitFormer asks policy about what a former template would run, and looks whether what it needs is still there. It
// gives the volumes that are to be made again.
func (a *action) admitFormer(ctx context.Context, n *nativeWorkload, w *neutral.Workload) ([]*corev1.PersistentVolumeClaim, error) {
	if err := a.permitSeen(ctx, workloadObject(w)); err != nil {
		return nil, err
	}
	if _, err := a.joined(ctx, w.Template.Networks); err != nil {
		return nil, err
	}
	if err := a.checkFiles(ctx, w.Template.Files); err != nil {
		return nil, err
	}
	return a.missingVolumes(ctx, n.template.ObjectMeta, &n.template.Spec)
}

// formerTemplate is the newest template of a Deployment but for the one that it has; nil for none.
func (a *action) formerTemplate(ctx context.Context, n *nativeWorkload) (*corev1.PodTemplateSpec, error) {
	list, err := a.client.AppsV1().ReplicaSets(n.meta.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, nativeFault(err)
	}
	var former *corev1.PodTemplateSpec
	newest := int64(0)
	for i := range list.Items {
		set := &list.Items[i]
		revision, err := strconv.ParseInt(set.Annotations[annotationRevision], 10, 64)
		if err != nil || revision <= newest || !metav1.IsControlledBy(set, n.meta) {
			continue
		}
		template := set.Spec.Template.DeepCopy()
		delete(template.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
		if !equality.Semantic.DeepEqual(template, n.template) {
			former, newest = template, revision
		}
	}
	return former, nil
}
