package apiserver

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/podspec"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// workloadForm is what tells one kind of workload from another.
type workloadForm interface {
	resource() schema.GroupResource
	kind() schema.GroupVersionKind
	modes() []neutral.Mode
	// blank is an empty object; of is one for a workload that no client of the API made.
	blank() object
	of(w *neutral.Workload, template corev1.PodTemplateSpec, selector *metav1.LabelSelector) object
	// template is the part that its Pods are made of.
	template(o object) *corev1.PodTemplateSpec
	selector(o object) *metav1.LabelSelector
	// complete and validate are of what is beside the template.
	complete(o object)
	validate(next, old object) field.ErrorList
	// into sets what is beside the template on a workload.
	into(o object, w *neutral.Workload) []neutral.Loss
	// live sets what the orchestrator says of it now.
	live(o object, w *neutral.Workload, runs []run)
}

// workloadKind is the orchestrator's workloads of one form.
type workloadKind struct {
	*Server
	form workloadForm
}

func (k workloadKind) project(w *world) []entry {
	var all []entry
	runs := w.runsOf()
	for i := range w.workloads {
		workload := &w.workloads[i]
		if !slices.Contains(k.form.modes(), workload.Mode) {
			continue
		}
		o, revisions, own := k.read(workload)
		placed(o, w, k.form.resource().Resource, workload.ID, workload.Namespace, workload.Name, workload.CreatedAt)
		k.form.live(o, workload, runs[workload.ID])
		revise(o, revisions)
		all = append(all, entry{object: o, native: native{id: workload.ID, version: workload.Version, own: own || foreignMade(workload), waiting: workload.Labels[labelWaiting] != ""}})
	}
	return all
}

// read is a workload as its client wrote it, or as it would have been written.
func (k workloadKind) read(w *neutral.Workload) (o object, revisions []revision, own bool) {
	o = k.form.blank()
	if revisions, ok := readOrigin(w.Origin, o); ok && len(k.form.template(o).Spec.Containers) > 0 && k.form.selector(o) != nil {
		k.complete(o, nil) // what somebody else has written into the label may be anything
		if paused(o) {     // what runs is an older template
			return o, revisions, false
		}
		spec := &k.form.template(o).Spec
		if !promise(spec, true).keeps(&w.Template, true) { // somebody has updated the service itself
			*spec = asItIs(spec, &w.Template)
		}
		if c := &spec.Containers[0]; bare(w.Template.Image) != bare(c.Image) {
			c.Image = bare(w.Template.Image)
		}
		return o, revisions, false
	}
	o = foreign(k.form, w)
	k.complete(o, nil)
	return o, nil, true
}

// foreign is an object for a workload that no client of the API made.
func foreign(form workloadForm, w *neutral.Workload) object {
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{labelService: w.Name}}
	template := corev1.PodTemplateSpec{Spec: podspec.Encode(w.Template)}
	template.Spec.Containers[0].Name = w.Name
	template.Labels = podLabels(w, w.Template)
	o := form.of(w, template, selector)
	o.SetLabels(visible(w.Labels))
	o.SetGeneration(1)
	return o
}

// podLabels are the labels of a workload's Pods: those of the template, and what a workload's own selector asks for.
func podLabels(w *neutral.Workload, c neutral.Container) map[string]string {
	labels := visible(c.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	if w.Origin == nil || w.Origin.Dialect != neutral.Kubernetes {
		labels[labelService] = w.Name
	}
	return labels
}

func (k workloadKind) complete(next, _ object) {
	podspec.Default(&k.form.template(next).Spec)
	k.form.complete(next)
}

func (k workloadKind) validate(next, old object) field.ErrorList {
	problems := podspec.Validate(&k.form.template(next).Spec, field.NewPath("spec", "template", "spec"))
	return append(problems, k.form.validate(next, old)...)
}

func (k workloadKind) create(ctx context.Context, d deed) ([]neutral.Loss, error) {
	return k.write(ctx, d)
}
func (k workloadKind) update(ctx context.Context, d deed) ([]neutral.Loss, error) {
	return k.write(ctx, d)
}

// write makes or changes a workload. The document of the API goes with it.
func (k workloadKind) write(ctx context.Context, d deed) ([]neutral.Loss, error) {
	next := d.next
	workload, refers, losses, err := k.workload(d)
	if err != nil {
		return nil, err
	}
	workload.Name, workload.Namespace = next.GetName(), next.GetNamespace()
	op := neutral.Operation{
		Action: neutral.WorkloadCreate, Verb: neutral.Create, Peer: d.peer,
		Object:   neutral.Object{Kind: neutral.KindWorkload, Namespace: next.GetNamespace(), Name: next.GetName(), Labels: next.GetLabels()},
		Workload: workload,
	}
	if d.old != nil {
		op.Action, op.Verb, op.Ref, op.Version = neutral.WorkloadUpdate, neutral.Update, d.old.native.id, d.old.native.version
	}
	if d.dry {
		return losses, nil
	}
	if err := k.hold(ctx, d, workload); err != nil {
		return nil, err
	}
	if err := k.provide(ctx, d, workload, refers); err != nil {
		return nil, err
	}
	result, err := k.under.Do(ctx, op)
	return append(losses, result.Losses...), err
}

// workload is what an object comes to.
func (k workloadKind) workload(d deed) (*neutral.Workload, podspec.Result, []neutral.Loss, error) {
	o := d.next
	template := k.form.template(o)
	decoded, err := k.container(&template.Spec, field.NewPath("spec", "template", "spec"), k.form.kind(), o,
		metav1.ObjectMeta{Namespace: o.GetNamespace(), Labels: template.Labels, Annotations: template.Annotations}, true)
	waits, err := waiting(k.form, err)
	if err != nil {
		return nil, decoded, nil, err
	}
	container, losses := &decoded.Container, decoded.Losses
	revisions := k.revisions(d)
	w := &neutral.Workload{Labels: o.GetLabels(), Template: *container, Placement: decoded.Placement, Native: k.form.kind().Kind}
	w.Mode = k.form.modes()[0]
	w.Template.Labels = withLabel(template.Labels, labelHash, hashOfTemplate(template))
	w.Template.Networks = []neutral.NetworkAttachment{{Name: networkOfNamespace, Aliases: k.aliases(o, template.Labels)}}
	if container.Network == neutral.NetworkHost {
		w.Template.Networks = nil
	}
	losses = append(losses, k.form.into(o, w)...)
	if waits != "" {
		w.Replicas, w.Labels = 0, withLabel(w.Labels, labelWaiting, waits)
		losses = append(losses, neutral.Loss{Field: "spec.replicas", Change: "0 until " + waits + " is there", Reason: "Swarm starts no task without it"})
	}
	w.Template.Ports = append(w.Template.Ports, k.published(o.GetNamespace(), template)...)
	w.Headless = k.headless(o.GetNamespace(), template.Labels)
	origin, err := originOf(o, revisions)
	if err != nil {
		return nil, decoded, nil, err
	}
	origin.Peer = d.peer
	if waits != "" { // what is begun later by another gateway is judged now
		if err := k.vouch(vouchedDeployment, origin, o.GetNamespace(), o.GetName()); err != nil {
			return nil, decoded, nil, err
		}
	}
	w.Origin, w.Losses = origin, losses
	return w, decoded, losses, nil
}

// labelWaiting is of a workload that has no tasks because something that they refer to is not there: what it is.
const labelWaiting = "isthmus.io/waiting"

// waiting tells what a workload waits for, where that is all that is wrong. Only one that has a number of tasks can wait
// with none.
func waiting(form workloadForm, err error) (names string, other error) {
	var missing missingError
	if !errors.As(err, &missing) || form.resource() != deploymentResource {
		return "", err
	}
	names, ok := missing.waits()
	if !ok {
		return "", err
	}
	return names, nil
}

// awaken starts what waited for something that is there now. One that cannot be started goes on waiting: a loss says so,
// for what it waited for was written nevertheless.
func (s *Server) awaken(ctx context.Context, d deed) ([]neutral.Loss, error) {
	if d.dry {
		return nil, nil
	}
	if err := s.refresh(ctx); err != nil {
		return nil, err
	}
	var losses []neutral.Loss
	all, _ := s.store.list(deploymentResource, d.next.GetNamespace())
	for _, e := range all {
		if err := s.start(ctx, d, keyOf(e.object)); err != nil {
			losses = append(losses, neutral.Loss{Field: "metadata.name", Change: "deployment " + e.object.GetName() + " goes on waiting", Reason: statusOf(err, nil, "").Message})
		}
	}
	return losses, nil
}

// awakenLeft starts what waits though all is there by now: a gateway was killed between the two.
func (s *Server) awakenLeft(ctx context.Context, w *world) error {
	var failed error
	for i := range w.workloads {
		live := &w.workloads[i]
		if live.Labels[labelWaiting] == "" || !s.vouched(vouchedDeployment, live.Origin, live.Namespace, live.Name) {
			continue
		}
		k, of := key{live.Namespace, live.Name}, workloadKind{s, deploymentForm{}}
		e := s.store.get(deploymentResource, k)
		if e == nil || !e.native.waiting || e.native.id != live.ID {
			continue
		}
		d := deed{peer: live.Origin.Peer, anew: true, old: e, next: e.object.DeepCopyObject().(object)}
		made, _, _, err := of.workload(d)
		if err == nil && made.Labels[labelWaiting] == "" {
			err = s.start(ctx, d, k)
		}
		failed = errors.Join(failed, err)
	}
	return failed
}

// start writes a Deployment that waits anew, also when somebody else writes it at the same time.
func (s *Server) start(ctx context.Context, d deed, k key) error {
	for try := 1; ; try++ {
		e := s.store.get(deploymentResource, k)
		if e == nil || !e.native.waiting {
			return nil
		}
		_, err := workloadKind{s, deploymentForm{}}.write(ctx, deed{peer: d.peer, anew: true, old: e, next: e.object.DeepCopyObject().(object)})
		if !fault.Is(err, fault.Conflict) || try == conflicts {
			return err
		}
		if err := s.refresh(ctx); err != nil {
			return err
		}
	}
}

// paused tells whether a rollout is held: the template is written down, and the tasks stay as they are.
func paused(o object) bool {
	d, ok := o.(*appsv1.Deployment)
	return ok && d.Spec.Paused
}

// labelAdopted is of a workload that docker made and a client of the API has changed since: its template is docker's.
const labelAdopted = "isthmus.io/adopted"

// foreignMade tells whether docker made a workload.
func foreignMade(w *neutral.Workload) bool {
	return w.Origin == nil || w.Origin.Dialect != neutral.Kubernetes || w.Labels[labelAdopted] != ""
}

// hold keeps the template that a workload's tasks have where it is not to change: a rollout is paused, or something else is
// changed. Of a workload that docker made it keeps all that the API has no words for: its networks, published ports and
// constraints.
func (k workloadKind) hold(ctx context.Context, d deed, w *neutral.Workload) error {
	if d.old == nil || !paused(d.next) && (d.anew || !d.old.native.own && !k.sameTemplate(d)) {
		return nil
	}
	result, err := k.under.Do(ctx, neutral.Operation{Action: neutral.WorkloadInspect, Verb: neutral.Get, Peer: d.peer, Ref: d.old.native.id,
		Object: neutral.Object{Kind: neutral.KindWorkload, Namespace: w.Namespace, Name: w.Name}})
	if err != nil {
		return err
	}
	was := result.Workload
	if d.old.native.own {
		w.Labels = withLabel(w.Labels, labelAdopted, "true")
		w.Placement, w.Mode, w.Force, w.Headless = was.Placement, was.Mode, was.Force, was.Headless
		w.Template.Networks, w.Template.Ports = was.Template.Networks, was.Template.Ports
		if sameStrategy(d.old.object, d.next) {
			w.Update = was.Update
		}
	}
	if paused(d.next) || k.sameTemplate(d) {
		made := w.Template
		w.Template = was.Template
		if d.anew { // a Service has come or gone
			w.Template.Networks, w.Template.Ports = made.Networks, made.Ports
		}
	}
	return nil
}

// sameStrategy tells whether a Deployment is rolled out as it was before.
func sameStrategy(old, next object) bool {
	before, ok := old.(*appsv1.Deployment)
	return !ok || apiequality.Semantic.DeepEqual(before.Spec.Strategy, next.(*appsv1.Deployment).Spec.Strategy)
}

// sameTemplate tells whether a write leaves the tasks as they are.
func (k workloadKind) sameTemplate(d deed) bool {
	if d.old == nil || paused(d.old.object) || d.old.native.waiting { // what was written then is still to come
		return false
	}
	return apiequality.Semantic.DeepEqual(k.form.template(d.old.object), k.form.template(d.next))
}

func withLabel(labels map[string]string, key, value string) map[string]string {
	all := map[string]string{}
	maps.Copy(all, labels)
	all[key] = value
	return all
}

func (k workloadKind) remove(ctx context.Context, d deed) error {
	if d.dry {
		return nil
	}
	_, err := k.under.Do(ctx, neutral.Operation{Action: neutral.WorkloadRemove, Verb: neutral.Destroy, Peer: d.peer, Ref: d.old.native.id,
		Object: neutral.Object{Kind: neutral.KindWorkload, Namespace: d.old.object.GetNamespace(), Name: d.old.object.GetName()}})
	return err
}

// gone tells that what was to be removed is not there.
func gone(err error) bool { return apierrors.IsNotFound(err) || isNotFound(err) }

// bare is an image's name without the digest that Swarm pins it by.
func bare(image string) string {
	name, _, _ := strings.Cut(image, "@")
	return name
}
