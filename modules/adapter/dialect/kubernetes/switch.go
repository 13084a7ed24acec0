package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utiljson "k8s.io/apimachinery/pkg/util/json"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/replica"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// The network mode of a Pod never changes: a switch changes the template of what keeps the Pod, and makes anew a Pod that
// nothing keeps. All of it is done in the name of the peer for whom it is done.

// annotationSwitch is the lease of the switch that an object is in.
const annotationSwitch = "isthmus.io/switch"

// switchPatience is how long a switch may take where its caller has no deadline.
const switchPatience = 10 * time.Minute

var _ dialect.Switcher = (*Cluster)(nil)

// switchNote is what must be remembered of a switch.
type switchNote struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
	Pod       string `json:"pod"`
	Container string `json:"container,omitempty"`
	Node      string `json:"node,omitempty"` // that the Pod ran on

	// Of a workload: how it was, and what was written in the place of that.
	Template      map[string]any `json:"template,omitempty"`
	Strategy      map[string]any `json:"strategy,omitempty"`
	Wrote         map[string]any `json:"wrote,omitempty"`
	WroteStrategy map[string]any `json:"wroteStrategy,omitempty"`

	// Of a Pod that nothing keeps: how it is made. Ending tells that its deletion, on the way there or back, is this switch's.
	Object map[string]any `json:"object,omitempty"`
	Ending bool           `json:"ending,omitempty"`
}

func (n *switchNote) described() string { return described(n.Kind, n.Name) }

func (n *switchNote) raw() (json.RawMessage, error) {
	raw, err := json.Marshal(n)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "what a switch must remember cannot be written")
	}
	return raw, nil
}

func noteOf(s *neutral.Switching) (*switchNote, error) {
	var note switchNote
	if err := utiljson.Unmarshal(s.Plan.Native, &note); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "what a switch remembers cannot be read")
	}
	if _, known := switchedKinds[note.Kind]; !known {
		return nil, fault.New(fault.Internal, "what a switch remembers is of the unknown kind %q", note.Kind)
	}
	return &note, nil
}

// PlanSwitch says what it takes that a need is served.
func (c *Cluster) PlanSwitch(ctx context.Context, peer string, ref neutral.TargetRef, need neutral.NetworkNeed) (neutral.SwitchPlan, error) {
	ctx = dialect.WithActor(ctx, dialect.Actor{Peer: peer})
	namespace := ref.Namespace
	if namespace == "" {
		namespace = c.namespace
	}
	found, container, err := c.find(ctx, namespace, ref)
	if err != nil {
		return neutral.SwitchPlan{}, err
	}
	native, err := c.readNative(ctx, corePods, namespace, found.Name)
	if err != nil {
		return neutral.SwitchPlan{}, err
	}
	pod, err := typedPod(native)
	if err != nil {
		return neutral.SwitchPlan{}, err
	}
	if ref.Node != "" && ref.Node != pod.Spec.NodeName {
		return neutral.SwitchPlan{}, fault.New(fault.Conflict, "container %q of namespace %q does not run on node %q", pod.Name, namespace, ref.Node)
	}
	owner, refusal, err := c.ownerOf(ctx, native)
	if err != nil {
		return neutral.SwitchPlan{}, err
	}
	subject := &switchSubject{need: need, pod: pod, owner: owner, free: -1,
		note: &switchNote{Kind: owner.GetKind(), Namespace: namespace, Name: owner.GetName(), UID: string(owner.GetUID()),
			Pod: pod.Name, Container: container, Node: pod.Spec.NodeName}}
	if refusal != "" {
		subject.refuse("%s", refusal)
		subject.owner, subject.note.Kind = native, kindPod // nothing is acted on
	}
	if err := c.survey(ctx, native, subject, refusal == ""); err != nil {
		return neutral.SwitchPlan{}, err
	}
	return subject.plan()
}

// survey looks at the cluster for all that speaks for and against a switch. acted tells that there is something to act on.
func (c *Cluster) survey(ctx context.Context, native *unstructured.Unstructured, s *switchSubject, acted bool) error {
	s.to = s.wanted()
	spec := replica.Object(native.Object, "spec")
	s.pods = []corev1.Pod{*s.pod}
	if s.note.Kind != kindPod {
		spec = replica.Object(s.owner.Object, "spec", "template", "spec")
		pods, err := c.podsOf(ctx, s.owner)
		if err != nil {
			return err
		}
		s.pods = pods
	}
	s.spec = spec
	if s.to == neutral.NetworkHost && s.from() != s.to && acted {
		if err := c.surveyPorts(ctx, s); err != nil {
			return err
		}
	}
	s.judge()
	if s.to == "" || s.to == s.from() || !acted {
		return nil
	}
	made := newPodObject(native)
	made["spec"] = withMode(replica.Object(made, "spec"), s.to)
	if s.note.Kind != kindPod {
		if err := c.rehearsePatch(ctx, s); err != nil {
			return s.refuseBy(err)
		}
		// Admission judges the Pods of a workload when they are made, which is too late.
		delete(replica.Object(made, "metadata"), "ownerReferences")
		if allowed, err := c.mayCreatePods(ctx, s.note.Namespace); err != nil || !allowed {
			return err
		}
		return s.refuseBy(c.rehearseCreation(ctx, made))
	}
	s.note.Object = newPodObject(native)
	return errors.Join(s.refuseBy(c.rehearseCreation(ctx, made)), s.refuseBy(c.rehearseDeletion(ctx, s.pod)))
}

// Switch brings the target of a plan into its new mode.
func (c *Cluster) Switch(ctx context.Context, s *neutral.Switching) (neutral.TargetRef, error) {
	run, ctx, cancel, err := c.runOf(ctx, s)
	if err != nil {
		return neutral.TargetRef{}, err
	}
	defer cancel()
	var pod *corev1.Pod
	if run.note.Kind == kindPod {
		pod, err = run.switchPod(ctx)
	} else {
		pod, err = run.switchWorkload(ctx)
	}
	if err != nil {
		return neutral.TargetRef{}, err
	}
	c.awaitCached(ctx, pod)
	run.record(ctx, "NetworkModeSwitched", s.Plan.From, s.Plan.To)
	target := neutral.TargetRef{Namespace: run.note.Namespace, Pod: pod.Name, Container: run.note.Container, Port: s.Ref.Port}
	if s.Ref.Node != "" {
		target.Node = pod.Spec.NodeName
	}
	return target, nil
}

// Restore brings the target back into its old mode.
func (c *Cluster) Restore(ctx context.Context, s *neutral.Switching) error {
	run, ctx, cancel, err := c.runOf(ctx, s)
	if err != nil {
		return err
	}
	defer cancel()
	if run.note.Kind == kindPod {
		err = run.restorePod(ctx)
	} else {
		err = run.restoreWorkload(ctx)
	}
	if run.touched && err == nil {
		run.record(ctx, "NetworkModeRestored", s.Plan.To, s.Plan.From)
	}
	return err
}

// Keep makes the new mode the target's own.
func (c *Cluster) Keep(ctx context.Context, s *neutral.Switching) error {
	run, ctx, cancel, err := c.runOf(ctx, s)
	if err != nil {
		return err
	}
	defer cancel()
	return run.keep(ctx)
}

// runOf begins a call about a switch: in its peer's name, and with an end.
func (c *Cluster) runOf(ctx context.Context, s *neutral.Switching) (*switchRun, context.Context, context.CancelFunc, error) {
	note, err := noteOf(s)
	if err != nil {
		return nil, nil, nil, err
	}
	ctx, cancel := dialect.WithActor(ctx, dialect.Actor{Peer: s.Peer}), context.CancelFunc(func() {})
	if _, limited := ctx.Deadline(); !limited {
		ctx, cancel = context.WithTimeout(ctx, switchPatience)
	}
	return &switchRun{cluster: c, switching: s, note: note}, ctx, cancel, nil
}

// switchRun is one call about a switch.
type switchRun struct {
	cluster   *Cluster
	switching *neutral.Switching
	note      *switchNote
	touched   bool   // something was changed
	made      string // the UID of the Pod that this call made
}

// step writes the journal before a touch; noted tells that what is remembered has changed.
func (r *switchRun) step(ctx context.Context, name string, noted bool) error {
	var raw json.RawMessage
	if noted {
		var err error
		if raw, err = r.note.raw(); err != nil {
			return err
		}
	}
	if err := r.switching.Step(ctx, name, raw); err != nil {
		return err
	}
	r.touched = true
	return nil
}

// ours tells whether an object is in this switch.
func (r *switchRun) ours(object *unstructured.Unstructured) bool {
	return object.GetAnnotations()[annotationSwitch] == r.switching.ID
}

// current is what the switch is about, nil where there is none of that name.
func (r *switchRun) current(ctx context.Context) (*unstructured.Unstructured, error) {
	object, err := r.cluster.readNative(ctx, switchedKinds[r.note.Kind].resource, r.note.Namespace, r.note.Name)
	if fault.Is(err, fault.NotFound) {
		return nil, nil
	}
	return object, err
}

// awaitCached waits until accesses, too, find a Pod that was made anew under its old name.
func (c *Cluster) awaitCached(ctx context.Context, pod *corev1.Pod) {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline) && ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		known := c.pods.get(pod.Namespace, pod.Name)
		if known != nil && known.UID == pod.UID && known.Status.PodIP != "" && known.Status.Phase == corev1.PodRunning || !c.pods.fresh() {
			return
		}
	}
}

// record tells of a switch on the object itself. It is the gateway that tells, and it need not have the right to.
func (r *switchRun) record(ctx context.Context, reason string, from, to neutral.NetworkMode) {
	object, err := r.current(ctx)
	if err != nil || object == nil {
		return
	}
	now := metav1.Now()
	event := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{GenerateName: r.note.Name + ".", Namespace: r.note.Namespace},
		InvolvedObject: corev1.ObjectReference{APIVersion: object.GetAPIVersion(), Kind: object.GetKind(), Namespace: object.GetNamespace(),
			Name: object.GetName(), UID: object.GetUID(), ResourceVersion: object.GetResourceVersion()},
		Reason: reason, Type: corev1.EventTypeNormal,
		Message:        "the network mode is " + string(to) + " in the place of " + string(from) + " for peer " + r.switching.Peer + " (lease " + r.switching.ID + ")",
		Source:         corev1.EventSource{Component: fieldManager},
		FirstTimestamp: now, LastTimestamp: now, Count: 1, ReportingController: "isthmus.io/gateway", ReportingInstance: r.cluster.cluster,
	}
	call, cancel := context.WithTimeout(asGateway(ctx), callTimeout)
	defer cancel()
	_, err = r.cluster.client.CoreV1().Events(r.note.Namespace).Create(call, event, metav1.CreateOptions{FieldManager: fieldManager})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		r.cluster.log.Info("an event of a switch is not recorded", "reason", reason, "object", r.note.described(), "error", err)
	}
}

// wanted is the mode that is needed, "" where Kubernetes has none such.
func (s *switchSubject) wanted() neutral.NetworkMode {
	switch s.need.Mode {
	case neutral.NetworkHost:
		return neutral.NetworkHost
	case neutral.NetworkPod, neutral.NetworkBridge: // as callers of docker call it
		return neutral.NetworkPod
	}
	return ""
}

// plan is what was found.
func (s *switchSubject) plan() (neutral.SwitchPlan, error) {
	plan := neutral.SwitchPlan{Object: s.object(), From: s.from(), To: s.to, Lost: s.lost(), Refusals: s.refusals, Away: s.away()}
	for i := range s.pods {
		for index := range s.pods[i].Spec.Containers {
			plan.Recreated = append(plan.Recreated, displayName(&s.pods[i], index))
		}
	}
	slices.Sort(plan.Recreated)
	raw, err := s.note.raw()
	plan.Native = raw
	return plan, err
}
