package kubernetes

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// annotationForce counts how often a caller had all containers of a workload replaced (Swarm's ForceUpdate). It
// stands in the template, so that a change of it is a rollout.
const annotationForce = "isthmus.io/force-update"

// nativeWorkload is a Deployment, DaemonSet, StatefulSet or Job, seen through what they have in common. The pointers
// point into the object.
type nativeWorkload struct {
	kind     string
	mode     neutral.Mode
	meta     *metav1.ObjectMeta
	template *corev1.PodTemplateSpec
	replicas **int32 // nil where the cluster decides
	running  int
	desired  int
	done     int
	updating string
	message  string
	current  func(ctx context.Context, c *Cluster) (func(*corev1.Pod) bool, error)
	roll     func(rollout) // nil where the cluster has no such strategy
	save     func(ctx context.Context, c *Cluster) error
}

func workloadFromDeployment(d *appsv1.Deployment) *nativeWorkload {
	w := &nativeWorkload{kind: "Deployment", mode: neutral.ModeReplicated, meta: &d.ObjectMeta, template: &d.Spec.Template,
		replicas: &d.Spec.Replicas, running: int(d.Status.ReadyReplicas), desired: replicasOf(d.Spec.Replicas)}
	rolledBefore := d.Annotations["deployment.kubernetes.io/revision"] > "1" || len(d.Annotations["deployment.kubernetes.io/revision"]) > 1
	switch {
	case d.Spec.Paused:
		w.updating = "paused"
	case d.Status.ObservedGeneration < d.Generation, int(d.Status.UpdatedReplicas) < w.desired, d.Status.Replicas > d.Status.UpdatedReplicas:
		if d.Generation > 1 { // a new workload is not an update
			w.updating = "updating"
		}
	case rolledBefore:
		w.updating = "completed"
	}
	for _, condition := range d.Status.Conditions {
		if condition.Type == appsv1.DeploymentProgressing {
			w.message = condition.Message
		}
	}
	w.roll = func(r rollout) {
		d.Spec.MinReadySeconds = r.ready
		d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType,
			RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &r.surge, MaxUnavailable: &r.unavailable}}
	}
	w.current = func(ctx context.Context, c *Cluster) (func(*corev1.Pod) bool, error) {
		return c.currentOfDeployment(ctx, d)
	}
	w.save = func(ctx context.Context, c *Cluster) error {
		_, err := c.client.AppsV1().Deployments(d.Namespace).Update(ctx, d, metav1.UpdateOptions{FieldManager: fieldManager})
		return err
	}
	return w
}

func workloadFromDaemonSet(d *appsv1.DaemonSet) *nativeWorkload {
	w := &nativeWorkload{kind: "DaemonSet", mode: neutral.ModeGlobal, meta: &d.ObjectMeta, template: &d.Spec.Template,
		running: int(d.Status.NumberReady), desired: int(d.Status.DesiredNumberScheduled)}
	if d.Generation > 1 {
		w.updating = "completed"
		if d.Status.ObservedGeneration < d.Generation || d.Status.UpdatedNumberScheduled < d.Status.DesiredNumberScheduled {
			w.updating = "updating"
		}
	}
	w.roll = func(r rollout) {
		d.Spec.MinReadySeconds = r.ready
		d.Spec.UpdateStrategy = appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType,
			RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxSurge: &r.surge, MaxUnavailable: &r.unavailable}}
	}
	w.current = labelled("pod-template-generation", d.Annotations[appsv1.DeprecatedTemplateGeneration])
	w.save = func(ctx context.Context, c *Cluster) error {
		_, err := c.client.AppsV1().DaemonSets(d.Namespace).Update(ctx, d, metav1.UpdateOptions{FieldManager: fieldManager})
		return err
	}
	return w
}

func workloadFromStatefulSet(s *appsv1.StatefulSet) *nativeWorkload {
	w := &nativeWorkload{kind: "StatefulSet", mode: neutral.ModeReplicated, meta: &s.ObjectMeta, template: &s.Spec.Template,
		replicas: &s.Spec.Replicas, running: int(s.Status.ReadyReplicas), desired: replicasOf(s.Spec.Replicas)}
	if s.Status.UpdateRevision != s.Status.CurrentRevision {
		w.updating = "updating"
	}
	w.current = labelled(appsv1.ControllerRevisionHashLabelKey, s.Status.UpdateRevision)
	w.save = func(ctx context.Context, c *Cluster) error {
		_, err := c.client.AppsV1().StatefulSets(s.Namespace).Update(ctx, s, metav1.UpdateOptions{FieldManager: fieldManager})
		return err
	}
	return w
}

func workloadFromJob(j *batchv1.Job) *nativeWorkload {
	w := &nativeWorkload{kind: "Job", mode: neutral.ModeJob, meta: &j.ObjectMeta, template: &j.Spec.Template,
		replicas: &j.Spec.Completions, running: int(j.Status.Active), desired: replicasOf(j.Spec.Completions), done: int(j.Status.Succeeded)}
	w.current = labelled("", "")
	w.save = func(context.Context, *Cluster) error {
		return fault.New(fault.Unsupported, "a Job of Kubernetes cannot be changed; remove it and create it anew")
	}
	return w
}

// labelled takes the Pods with a label as those of the newest template; no label takes all.
func labelled(key, value string) func(context.Context, *Cluster) (func(*corev1.Pod) bool, error) {
	return func(context.Context, *Cluster) (func(*corev1.Pod) bool, error) {
		return func(pod *corev1.Pod) bool { return key == "" || pod.Labels[key] == value }, nil
	}
}

// currentOfDeployment finds the ReplicaSet of the Deployment's newest template, as the Deployment's controller does. As
// long as that has not made it, no Pod is current.
func (c *Cluster) currentOfDeployment(ctx context.Context, d *appsv1.Deployment) (func(*corev1.Pod) bool, error) {
	list, err := c.client.AppsV1().ReplicaSets(d.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, nativeFault(err)
	}
	hash := ""
	for i := range list.Items {
		set := &list.Items[i]
		if !metav1.IsControlledBy(set, d) {
			continue
		}
		template := set.Spec.Template.DeepCopy()
		delete(template.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
		if equality.Semantic.DeepEqual(template, &d.Spec.Template) {
			hash = set.Labels[appsv1.DefaultDeploymentUniqueLabelKey]
		}
	}
	return func(pod *corev1.Pod) bool {
		return hash != "" && pod.Labels[appsv1.DefaultDeploymentUniqueLabelKey] == hash
	}, nil
}

func replicasOf(n *int32) int {
	if n == nil {
		return 1
	}
	return int(*n)
}

// workloadFromNative reads a workload.
func workloadFromNative(cluster string, n *nativeWorkload) neutral.Workload {
	meta := *n.meta
	w := neutral.Workload{
		ID: shortID("workload", cluster, string(meta.UID)), Name: meta.Name, Namespace: meta.Namespace, Native: n.kind,
		Labels: labelsFromMeta(meta), Mode: n.mode, Replicas: n.desired, Running: n.running, Desired: n.desired,
		Completed: n.done, Updating: n.updating, UpdateMessage: n.message,
		Version:   strconv.FormatInt(max(meta.Generation, 1), 10),
		CreatedAt: meta.CreationTimestamp.Time, UpdatedAt: updatedAt(meta),
		Placement: placementFromSpec(&n.template.Spec), Update: policyFromMeta(meta),
		Origin: originFromMeta(meta), Losses: lossesFromMeta(meta),
		Exported: meta.Labels[labelExport] == "true",
	}
	if original := meta.Annotations[annotationName]; original != "" {
		w.Name = original
	}
	if len(n.template.Spec.Containers) > 0 {
		w.Template = containerFromSpec(n.template.ObjectMeta, &n.template.Spec, 0)
		w.Template.Siblings = len(n.template.Spec.Containers) - 1
	}
	w.Template.Ports = mergePorts(w.Template.Ports, portsFromMeta(meta))
	w.Force, _ = strconv.Atoi(n.template.Annotations[annotationForce]) // none is 0
	return w
}

// updatedAt is when somebody last changed the object, its status left aside.
func updatedAt(meta metav1.ObjectMeta) time.Time {
	at := meta.CreationTimestamp.Time
	for _, field := range meta.ManagedFields {
		if field.Subresource == "" && field.Time != nil && field.Time.After(at) {
			at = field.Time.Time
		}
	}
	return at
}

func workloadObject(w *neutral.Workload) neutral.Object {
	return neutral.Object{Kind: neutral.KindWorkload, Namespace: w.Namespace, Name: w.Name, Labels: w.Labels, Container: &w.Template}
}

// natives lists every workload of the namespace that nothing else controls.
func (a *action) natives(ctx context.Context) ([]*nativeWorkload, error) {
	var all []*nativeWorkload
	options := metav1.ListOptions{}
	deployments, err := a.client.AppsV1().Deployments(a.namespace).List(ctx, options)
	if err != nil {
		return nil, nativeFault(err)
	}
	for i := range deployments.Items {
		all = append(all, workloadFromDeployment(&deployments.Items[i]))
	}
	daemons, err := a.client.AppsV1().DaemonSets(a.namespace).List(ctx, options)
	if err != nil {
		return nil, nativeFault(err)
	}
	for i := range daemons.Items {
		all = append(all, workloadFromDaemonSet(&daemons.Items[i]))
	}
	stateful, err := a.client.AppsV1().StatefulSets(a.namespace).List(ctx, options)
	if err != nil {
		return nil, nativeFault(err)
	}
	for i := range stateful.Items {
		all = append(all, workloadFromStatefulSet(&stateful.Items[i]))
	}
	jobs, err := a.client.BatchV1().Jobs(a.namespace).List(ctx, options)
	if err != nil {
		return nil, nativeFault(err)
	}
	for i := range jobs.Items {
		all = append(all, workloadFromJob(&jobs.Items[i]))
	}
	return slices.DeleteFunc(all, func(n *nativeWorkload) bool { return metav1.GetControllerOf(n.meta) != nil }), nil
}

// listWorkloads lists what keeps containers running.
func (a *action) listWorkloads(ctx context.Context) (neutral.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	natives, err := a.natives(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	filter := a.op.Filter
	result := neutral.Result{Workloads: []neutral.Workload{}}
	for _, n := range natives {
		w := workloadFromNative(a.cluster, n)
		if !oneOf(filter.IDs, func(id string) bool { return strings.HasPrefix(w.ID, id) }) ||
			!oneOf(filter.Names, func(name string) bool { return strings.HasPrefix(w.Name, name) }) ||
			!oneOf(filter.Modes, func(mode string) bool { return mode == string(w.Mode) }) ||
			!matchLabels(filter.Labels, w.Labels) || a.permit(workloadObject(&w)) != nil {
			continue
		}
		result.Workloads = append(result.Workloads, w)
	}
	slices.SortFunc(result.Workloads, func(x, y neutral.Workload) int { return strings.Compare(x.Name+x.ID, y.Name+y.ID) })
	return result, nil
}

// locatedWorkload is a workload with the object that it was read from.
type locatedWorkload struct {
	neutral.Workload
	native *nativeWorkload
}

// findWorkload gives the workload that the operation names, once policy lets the caller have it.
func (a *action) findWorkload(ctx context.Context, ref string) (*locatedWorkload, error) {
	natives, err := a.natives(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]locatedWorkload, 0, len(natives))
	for _, n := range natives {
		all = append(all, locatedWorkload{Workload: workloadFromNative(a.cluster, n), native: n})
	}
	i, err := matchReference(ref, "service", len(all), func(i int) string { return all[i].ID }, func(i int) string { return all[i].Name })
	if fault.Is(err, fault.NotFound) {
		return nil, fault.New(fault.NotFound, "service %s not found", ref)
	}
	if err != nil {
		return nil, err
	}
	if err := a.permit(workloadObject(&all[i].Workload)); err != nil {
		return nil, err
	}
	return &all[i], nil
}

func (a *action) inspectWorkload(ctx context.Context) (neutral.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	found, err := a.findWorkload(ctx, a.op.Ref)
	if err != nil {
		return neutral.Result{}, err
	}
	return neutral.Result{Workload: &found.Workload}, nil
}

// removeWorkload deletes the workload; what it owns (containers, service, export) goes with it.
func (a *action) removeWorkload(ctx context.Context) (neutral.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	found, err := a.findWorkload(ctx, a.op.Ref)
	if err != nil {
		return neutral.Result{}, err
	}
	err = a.deleteWorkload(ctx, found.native)
	return neutral.Result{ID: found.ID, Removed: []string{found.ID}}, nativeFault(err)
}

func (c *Cluster) deleteWorkload(ctx context.Context, n *nativeWorkload) error {
	background := metav1.DeletePropagationBackground
	options := metav1.DeleteOptions{PropagationPolicy: &background, Preconditions: &metav1.Preconditions{UID: &n.meta.UID}}
	switch n.kind {
	case "Deployment":
		return c.client.AppsV1().Deployments(n.meta.Namespace).Delete(ctx, n.meta.Name, options)
	case "DaemonSet":
		return c.client.AppsV1().DaemonSets(n.meta.Namespace).Delete(ctx, n.meta.Name, options)
	case "StatefulSet":
		return c.client.AppsV1().StatefulSets(n.meta.Namespace).Delete(ctx, n.meta.Name, options)
	case "Job":
		return c.client.BatchV1().Jobs(n.meta.Namespace).Delete(ctx, n.meta.Name, options)
	}
	return fmt.Errorf("delete a %s: unknown kind", n.kind)
}
