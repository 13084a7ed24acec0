package apiserver

import (
	"context"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/podspec"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/podstatus"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// podKind is the tasks of workloads, and the containers that no workload keeps.
type podKind struct{ *Server }

func (k podKind) project(w *world) []entry {
	if w.pods != nil {
		return w.pods
	}
	all := []entry{}
	runs := w.runsOf()
	for i := range w.workloads {
		workload := &w.workloads[i]
		spec, owner := k.template(w, workload)
		for _, r := range runs[workload.ID] {
			all = append(all, k.ofTask(w, workload, spec, owner, r))
		}
	}
	for i := range w.containers {
		c := &w.containers[i]
		if c.Owner == nil {
			all = append(all, k.ofContainer(w, c))
		}
	}
	w.pods = all
	return all
}

// template is what a workload's Pods say of themselves, and who keeps them.
func (k podKind) template(w *world, workload *neutral.Workload) (func(run) corev1.PodTemplateSpec, func(run) *metav1.OwnerReference) {
	for _, of := range workloadForms {
		if !slices.Contains(of.modes(), workload.Mode) {
			continue
		}
		form := workloadKind{k.Server, of}
		o, revisions, own := form.read(workload)
		placed(o, w, of.resource().Resource, workload.ID, workload.Namespace, workload.Name, workload.CreatedAt)
		current := *of.template(o)
		templates, promises := map[string]corev1.PodTemplateSpec{}, map[string]essence{}
		for _, r := range revisions {
			if len(r.Template.Spec.Containers) > 0 {
				templates[r.Hash] = r.Template
			}
		}
		spec := func(r run) corev1.PodTemplateSpec {
			template, ok := templates[r.hash]
			if !ok && (own || r.hash != hashOf(workload.Template)) { // as the task itself has it
				template.Spec, template.Labels = asItIs(&current.Spec, &r.Container), podLabels(workload, r.Container)
				return template
			}
			if !ok {
				template = current
			}
			promised, ok := promises[r.hash]
			if !ok {
				promised = promise(&template.Spec, true)
				promises[r.hash] = promised
			}
			if !promised.keeps(&r.Container, true) {
				template.Spec = asItIs(&template.Spec, &r.Container)
			}
			return template
		}
		owner := func(r run) *metav1.OwnerReference {
			if _, ok := o.(*appsv1.Deployment); !ok {
				return metav1.NewControllerRef(o, of.kind())
			}
			rs := &appsv1.ReplicaSet{}
			placed(rs, w, replicaSetResource.Resource, workload.ID+"/"+r.hash, workload.Namespace, workload.Name+"-"+r.hash, workload.CreatedAt)
			return metav1.NewControllerRef(rs, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))
		}
		return spec, owner
	}
	return nil, nil
}

func (k podKind) ofTask(w *world, workload *neutral.Workload, spec func(run) corev1.PodTemplateSpec,
	owner func(run) *metav1.OwnerReference, r run) entry {
	template := spec(r)
	o := &corev1.Pod{Spec: *template.Spec.DeepCopy()}
	o.Labels, o.Annotations = template.Labels, template.Annotations
	if workload.Mode == neutral.ModeReplicated {
		o.Labels = withLabel(template.Labels, labelHash, r.hash)
	}
	placed(o, w, podResource.Resource, r.ID, workload.Namespace, podName(workload, r), r.Created)
	o.GenerateName = o.Name[:len(o.Name)-min(len(r.ID), 5)]
	o.OwnerReferences = []metav1.OwnerReference{*owner(r)}
	o.Spec.NodeName = r.Node
	o.Status = podstatus.Task(&r.Task, &o.Spec)
	if r.terminating {
		at := metav1.NewTime(r.Updated.Truncate(1e9))
		o.DeletionTimestamp = &at
		o.DeletionGracePeriodSeconds = o.Spec.TerminationGracePeriodSeconds
	}
	return entry{object: o, native: native{id: r.ID, container: r.Container.ID, version: r.Version, task: true}}
}

func (k podKind) ofContainer(w *world, c *neutral.Container) entry {
	o := &corev1.Pod{}
	_, kept := readOrigin(c.Origin, o)
	if !kept || len(o.Spec.Containers) == 0 {
		kept = false
		*o = corev1.Pod{Spec: shownSpec(c)}
		o.Labels = visible(c.Labels)
		if len(c.Members) == 0 {
			o.Spec.Containers[0].Name = containerName(c.Name)
		}
	} else if !keepsAll(&o.Spec, c) {
		o.Spec = asItIs(&o.Spec, c)
	}
	placed(o, w, podResource.Resource, c.ID, c.Namespace, c.Name, c.CreatedAt)
	if c.Node != "" {
		o.Spec.NodeName = c.Node
	} else if len(w.nodes) == 1 {
		o.Spec.NodeName = nodeName(w.nodes[0])
	}
	e := entry{object: o, native: native{id: c.ID, container: c.ID, own: !kept}}
	if len(c.Members) == 0 && !podspec.Several(&o.Spec) {
		o.Status = podstatus.Container(c, &o.Spec)
		if kept && c.State.Status == neutral.StatusCreated {
			w.beginning = append(w.beginning, c)
		}
		return e
	}
	w.beginning = append(w.beginning, c)
	o.Status = podstatus.Several(c, &o.Spec)
	e.native.members = map[string]string{}
	for i := range c.Members {
		e.native.members[c.Members[i].Name] = c.Members[i].ID
	}
	return e
}

func (podKind) complete(next, _ object) {
	o := next.(*corev1.Pod)
	podspec.Default(&o.Spec)
	podspec.DefaultPod(&o.Spec)
}

func (podKind) validate(next, old object) field.ErrorList {
	o := next.(*corev1.Pod)
	problems := podspec.Validate(&o.Spec, field.NewPath("spec"))
	if old != nil && !apiequality.Semantic.DeepEqual(old.(*corev1.Pod).Spec, o.Spec) {
		problems = append(problems, field.Forbidden(field.NewPath("spec"), "a container of Docker is not changed once it is made, its "+
			"labels and annotations neither; delete the Pod and create another one"))
	}
	return problems
}

// translated is the container, or the holder of several, that a Pod comes to.
func (k podKind) translated(o *corev1.Pod) (*neutral.Container, []neutral.Loss, error) {
	decoded, err := k.container(&o.Spec, field.NewPath("spec"), corev1.SchemeGroupVersion.WithKind("Pod"), o, o.ObjectMeta, false)
	if err != nil {
		return nil, nil, err
	}
	whole, losses := decoded.Whole(), decoded.Losses
	container := &whole
	if len(decoded.Placement) > 0 {
		losses = append(losses, neutral.Loss{Field: "spec.nodeSelector", Change: "dropped", Reason: "a Pod without a workload runs on the engine that the gateway is beside"})
	}
	container.Name, container.Namespace, container.Labels, container.Losses = o.Name, o.Namespace, o.Labels, losses
	if container.Network != neutral.NetworkHost {
		container.Networks = []neutral.NetworkAttachment{{Name: networkOfNamespace, Aliases: k.aliases(o, o.Labels)}}
	}
	return container, losses, nil
}

// create makes a container and starts it, or several and the first of them. What cannot be started is removed again.
func (k podKind) create(ctx context.Context, d deed) ([]neutral.Loss, error) {
	o := d.next.(*corev1.Pod)
	container, losses, err := k.translated(o)
	if err != nil {
		return nil, err
	}
	if container.Origin, err = originOf(o, nil); err != nil {
		return nil, err
	}
	container.Origin.Peer = d.peer
	if err := k.vouch(vouchedPod, container.Origin, o.Namespace, o.Name); err != nil {
		return nil, err
	}
	if d.dry {
		return losses, nil
	}
	for _, list := range [][]corev1.Container{o.Spec.InitContainers, o.Spec.Containers} {
		for i := range list {
			if err := k.pull(ctx, d, list[i]); err != nil {
				return nil, err
			}
		}
	}
	about := neutral.Object{Kind: neutral.KindContainer, Namespace: o.Namespace, Name: o.Name, Labels: o.Labels, Container: container}
	if len(container.Members) > 0 {
		more, err := k.launch(ctx, d.peer, about, &o.Spec)
		return append(losses, more...), err
	}
	defer k.starting.claim(o.Namespace, o.Name)()
	made, err := k.under.Do(ctx, neutral.Operation{Action: neutral.ContainerCreate, Verb: neutral.Create, Peer: d.peer, Object: about, Container: container})
	if err != nil {
		return nil, err
	}
	_, err = k.under.Do(ctx, neutral.Operation{Action: neutral.ContainerStart, Verb: neutral.Start, Peer: d.peer, Object: about, Ref: made.ID})
	if err != nil && !fault.Is(err, fault.NotModified) { // somebody else started it
		k.undo(ctx, d, made.ID)
		return nil, err
	}
	return append(losses, made.Losses...), nil
}

func (podKind) update(context.Context, deed) ([]neutral.Loss, error) { //nolint:unparam // as writer has it
	return nil, fault.New(fault.Unprocessable, "a container of Docker is not changed once it is made, its labels and annotations neither; "+
		"delete the Pod and create another one")
}

// remove stops a container in its time, and removes it. A task is stopped for good by the one that keeps it only; the
// workload makes another one.
func (k podKind) remove(ctx context.Context, d deed) error {
	o := d.old.object.(*corev1.Pod)
	if d.old.native.task {
		return fault.New(fault.Conflict, "the Pod belongs to %s %s, and Swarm removes a task only with its service; scale or delete that, or "+
			"start all of its tasks anew by kubectl rollout restart", o.OwnerReferences[0].Kind, o.OwnerReferences[0].Name)
	}
	if d.dry {
		return nil
	}
	defer k.starting.seize(ctx, o.Namespace, o.Name)()
	about := neutral.Object{Kind: neutral.KindContainer, Namespace: o.Namespace, Name: o.Name}
	err := k.halt(ctx, d, about)
	if err != nil {
		return err
	}
	_, err = k.under.Do(ctx, neutral.Operation{Action: neutral.ContainerRemove, Verb: neutral.Destroy, Peer: d.peer, Object: about,
		Ref: d.old.native.id, Remove: &neutral.RemoveOptions{Force: true, Volumes: true}})
	return err
}

// halt ends a Pod's containers in their time, all at once.
func (k podKind) halt(ctx context.Context, d deed, about neutral.Object) error {
	if d.grace != nil && *d.grace <= 0 {
		return nil // their removal ends them
	}
	stop := &neutral.StopOptions{}
	if d.grace != nil {
		seconds := int(*d.grace)
		stop.Timeout = &seconds
	}
	ids := slices.Collect(maps.Values(d.old.native.members))
	if len(ids) == 0 {
		ids = []string{d.old.native.id}
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, id := range ids {
		group.Go(func() error {
			_, err := k.under.Do(ctx, neutral.Operation{Action: neutral.ContainerStop, Verb: neutral.Stop, Peer: d.peer, Object: about, Ref: id, Stop: stop})
			if fault.Is(err, fault.NotModified) || isNotFound(err) {
				return nil
			}
			return err
		})
	}
	return group.Wait()
}
