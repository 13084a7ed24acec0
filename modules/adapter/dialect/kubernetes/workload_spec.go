package kubernetes

import (
	"encoding/json"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// annotationPublished keeps the ports that a caller published, JSON; the Service is made from it.
const annotationPublished = "isthmus.io/published"

// annotationUpdate keeps how a caller wants a workload to change, JSON; the strategy is made from it.
const annotationUpdate = "isthmus.io/update"

// workloadName is the object's name for a caller's name. It names a Service too, which may not begin with a digit.
func workloadName(name string) (legal string, kept bool) {
	return legalName(name, validation.IsDNS1035Label, validation.DNS1035LabelMaxLength)
}

// builtWorkload is a workload written for Kubernetes, before its kind is chosen.
type builtWorkload struct {
	meta     metav1.ObjectMeta
	template corev1.PodTemplateSpec
	ports    []neutral.Port // of its Service
	losses   []neutral.Loss
}

// buildWorkload writes what all kinds share.
func buildWorkload(w *neutral.Workload, namespace string) (*builtWorkload, error) {
	legal, kept := workloadName(w.Name)
	b := &builtWorkload{meta: metav1.ObjectMeta{Name: legal, Namespace: namespace, Annotations: map[string]string{}}}
	if !kept {
		b.meta.Annotations[annotationName] = w.Name
	}
	if err := labelMeta(&b.meta, w.Labels); err != nil {
		return nil, err
	}
	template, losses, err := templateOf(w)
	if err != nil {
		return nil, err
	}
	b.template, b.losses = *template, losses
	b.template.Labels[labelWorkload] = legal
	if onUserNetwork(b.template.Labels) {
		searchNetworks(b.template.ObjectMeta, namespace, &b.template.Spec)
		if w.Origin != nil && w.Origin.Peer != "" {
			b.template.Annotations[annotationPeer] = w.Origin.Peer // whose tasks they are, whose names the gateway looks after
		}
	}
	if b.ports, err = servicePorts(w); err != nil {
		return nil, err
	}
	if err := notePorts(&b.meta, w.Template.Ports); err != nil {
		return nil, err
	}
	return b, nil
}

// labelMeta writes a caller's labels.
func labelMeta(meta *metav1.ObjectMeta, labels map[string]string) error {
	legal, illegal := splitLabels(labels)
	meta.Labels = legal
	delete(meta.Annotations, annotationLabels)
	if len(illegal) == 0 {
		return nil
	}
	text, err := json.Marshal(illegal)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "labels cannot be written")
	}
	meta.Annotations[annotationLabels] = string(text)
	return nil
}

// templateOf writes a workload's template. Ports that are published cluster-wide belong to its Service.
func templateOf(w *neutral.Workload) (*corev1.PodTemplateSpec, []neutral.Loss, error) {
	c := w.Template
	c.Ports = nil
	for _, p := range w.Template.Ports {
		if p.Publish && !p.HostMode {
			p.Publish, p.Published, p.HostIP = false, 0, ""
		}
		if !slices.ContainsFunc(c.Ports, func(q neutral.Port) bool {
			return q.Container == p.Container && q.Protocol == p.Protocol && q.Published == p.Published
		}) {
			c.Ports = append(c.Ports, p)
		}
	}
	template, losses, err := serviceTemplate(&c, w.Name)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range w.Template.Ports {
		if p.Publish && onUserNetwork(template.Labels) {
			template.Labels[publishedLabel(p.Protocol, int(p.Container))] = "true"
		}
	}
	affinity, err := placementToAffinity(w.Placement)
	if err != nil {
		return nil, nil, err
	}
	template.Spec.Affinity = affinity
	if w.Force != 0 {
		template.Annotations[annotationForce] = strconv.Itoa(w.Force)
	}
	return template, losses, nil
}

func (b *builtWorkload) lose(field, change, reason string) {
	b.losses = append(b.losses, neutral.Loss{Field: field, Change: change, Reason: reason})
}

func (b *builtWorkload) selector() *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{labelWorkload: b.meta.Name}}
}

// always holds a restart policy to what a Deployment and a DaemonSet do.
func (b *builtWorkload) always(policy neutral.RestartPolicy) error {
	const field = "TaskTemplate.RestartPolicy.Condition"
	b.template.Spec.RestartPolicy = corev1.RestartPolicyAlways
	switch policy.Mode {
	case neutral.RestartNo:
		return refuse(field, "a service of Kubernetes starts its containers again always; a replicated job does not")
	case neutral.RestartOnFailure:
		b.lose(field, "any", "a service of Kubernetes starts its containers again always")
	}
	return nil
}

func deploymentFromWorkload(w *neutral.Workload, namespace string) (*appsv1.Deployment, *builtWorkload, error) {
	b, err := buildWorkload(w, namespace)
	if err != nil {
		return nil, nil, err
	}
	if err := b.always(w.Template.Restart); err != nil {
		return nil, nil, err
	}
	replicas := int32(min(max(w.Replicas, 0), 1<<20))
	d := &appsv1.Deployment{TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		Spec: appsv1.DeploymentSpec{Replicas: &replicas, Selector: b.selector()}}
	if w.Update != nil {
		if err := applyUpdate(workloadFromDeployment(d), &b.meta, w.Update, &b.losses); err != nil {
			return nil, nil, err
		}
	}
	if err := keepBeside(&b.meta, w.Origin, append(slices.Clone(w.Losses), b.losses...)); err != nil {
		return nil, nil, err
	}
	d.ObjectMeta, d.Spec.Template = b.meta, b.template
	return d, b, nil
}

// rollout is how many containers change at a time, and in which order.
type rollout struct {
	surge, unavailable intstr.IntOrString
	ready              int32 // seconds
}

// rolloutFromPolicy writes a caller's policy.
func rolloutFromPolicy(u *neutral.UpdatePolicy) (rollout, []neutral.Loss) {
	step, none := intstr.FromString("100%"), intstr.FromInt32(0)
	if u.Parallelism > 0 {
		step = intstr.FromInt32(int32(min(u.Parallelism, 1<<20)))
	}
	r := rollout{surge: none, unavailable: step, ready: int32(min(u.Delay.Seconds(), 1<<20))}
	if u.Order == "start-first" {
		r.surge, r.unavailable = step, none
	}
	var losses []neutral.Loss
	if u.OnFailure == "rollback" || u.OnFailure == "continue" {
		losses = append(losses, neutral.Loss{Field: "UpdateConfig.FailureAction", Change: "pause",
			Reason: "a Deployment that cannot roll out stops there"})
	}
	if r.ready > 0 {
		losses = append(losses, neutral.Loss{Field: "UpdateConfig.Delay", Change: "the time that a new container must be ready",
			Reason: "a Deployment waits for its containers, not between them"})
	}
	return r, losses
}

// applyUpdate sets a workload's strategy and keeps the policy that it was made from.
func applyUpdate(n *nativeWorkload, meta *metav1.ObjectMeta, policy *neutral.UpdatePolicy, losses *[]neutral.Loss) error {
	if n.roll == nil {
		return fault.New(fault.Unsupported, "the update policy of a %s is not changed from outside the cluster", n.kind)
	}
	text, err := json.Marshal(policy)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "an update policy cannot be written")
	}
	r, lost := rolloutFromPolicy(policy)
	n.roll(r)
	meta.Annotations[annotationUpdate] = string(text)
	*losses = append(*losses, lost...)
	return nil
}

// policyFromMeta gives the policy of a caller; nil for a workload that no caller gave one.
func policyFromMeta(meta metav1.ObjectMeta) *neutral.UpdatePolicy {
	var policy neutral.UpdatePolicy
	if text := meta.Annotations[annotationUpdate]; text == "" || json.Unmarshal([]byte(text), &policy) != nil {
		return nil
	}
	return &policy
}

func daemonSetFromWorkload(w *neutral.Workload, namespace string) (*appsv1.DaemonSet, *builtWorkload, error) {
	b, err := buildWorkload(w, namespace)
	if err != nil {
		return nil, nil, err
	}
	if err := b.always(w.Template.Restart); err != nil {
		return nil, nil, err
	}
	d := &appsv1.DaemonSet{TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "DaemonSet"},
		Spec: appsv1.DaemonSetSpec{Selector: b.selector()}}
	if w.Update != nil {
		if err := applyUpdate(workloadFromDaemonSet(d), &b.meta, w.Update, &b.losses); err != nil {
			return nil, nil, err
		}
	}
	if err := keepBeside(&b.meta, w.Origin, append(slices.Clone(w.Losses), b.losses...)); err != nil {
		return nil, nil, err
	}
	d.ObjectMeta, d.Spec.Template = b.meta, b.template
	return d, b, nil
}

func jobFromWorkload(w *neutral.Workload, namespace string) (*batchv1.Job, *builtWorkload, error) {
	b, err := buildWorkload(w, namespace)
	if err != nil {
		return nil, nil, err
	}
	policy, losses := restartToPod(w.Template.Restart, b.template.Annotations)
	if policy == corev1.RestartPolicyAlways {
		policy = corev1.RestartPolicyOnFailure
		delete(b.template.Annotations, annotationRestart)
		b.lose("TaskTemplate.RestartPolicy.Condition", "on-failure", "a job's containers end for good when they succeed")
	}
	b.losses = append(b.losses, serviceLosses(losses)...)
	b.template.Spec.RestartPolicy = policy
	count := int32(min(max(w.Replicas, 0), 1<<20))
	backoff := int32(0)
	j := &batchv1.Job{TypeMeta: metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"},
		Spec: batchv1.JobSpec{Completions: &count, Parallelism: &count}}
	if policy == corev1.RestartPolicyNever {
		j.Spec.BackoffLimit = &backoff
	}
	if err := keepBeside(&b.meta, w.Origin, append(slices.Clone(w.Losses), b.losses...)); err != nil {
		return nil, nil, err
	}
	// A Job makes its selector itself.
	j.ObjectMeta, j.Spec.Template = b.meta, b.template
	return j, b, nil
}
