package kubernetes

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/isthmus-mesh/isthmus/modules/adapter/replica"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// switchSubject is what is known of a switch before it is done.
type switchSubject struct {
	need  neutral.NetworkNeed
	to    neutral.NetworkMode        // "" where Kubernetes has no such mode
	pod   *corev1.Pod                // the target
	owner *unstructured.Unstructured // what is acted on: the workload, or the Pod itself
	note  *switchNote
	spec  map[string]any // of the template, or of the Pod
	pods  []corev1.Pod   // that are made anew

	free  int      // nodes on which the ports are free, -1 where that is not known
	taken []string // which ports are not

	refusals []string
}

func (s *switchSubject) refuse(format string, args ...any) {
	s.refusals = append(s.refusals, fmt.Sprintf(format, args...))
}

// refuseBy makes of what the cluster refuses a reason; what went wrong otherwise stays an error.
func (s *switchSubject) refuseBy(err error) error {
	switch f := fault.Of(err); {
	case err == nil:
		return nil
	case f.Kind == fault.Denied, f.Kind == fault.Unprocessable, f.Kind == fault.Invalid, f.Kind == fault.Conflict:
		s.refuse("%s", strings.TrimSuffix(f.Message, "."))
		return nil
	}
	return err
}

// workload tells whether something keeps the target.
func (s *switchSubject) workload() bool { return s.note.Kind != kindPod }

func (s *switchSubject) from() neutral.NetworkMode { return podMode(s.pod) }

// judge says all that can be said without asking the cluster again.
func (s *switchSubject) judge() {
	name := s.note.described()
	switch {
	case s.need.Mode == "":
		s.refuse("a Pod is reachable unless it is isolated, and isolated Pods are not switched: a NetworkPolicy would have to let the gateway in")
	case s.to == "":
		s.refuse("Kubernetes has no network mode %q: it has host and pod", string(s.need.Mode))
	case s.to == s.from():
		s.refuse("pod %s is in the network mode %s already", s.pod.Name, s.to)
	}
	if s.need.Layer == neutral.LayerCommit {
		s.refuse("Kubernetes cannot keep the files that a container changed beside its volumes (commit); discard lets them go")
	}
	switch {
	case s.pod.DeletionTimestamp != nil:
		s.refuse("pod %s is being removed", s.pod.Name)
	case s.pod.Status.Phase != corev1.PodRunning:
		s.refuse("pod %s does not run", s.pod.Name)
	case stands(s.pod, s.note.Container):
		s.refuse("pod %s is paused", s.pod.Name)
	}
	if lease := s.owner.GetAnnotations()[annotationSwitch]; lease != "" {
		s.refuse("%s is in a switch already (lease %s)", name, lease)
	}
	if s.owner.GetDeletionTimestamp() != nil && s.workload() {
		s.refuse("%s is being removed", name)
	}
	if s.need.Layer != neutral.LayerDiscard {
		for _, volume := range shortLived(s.spec) {
			s.refuse("volume %s lives as long as its Pod, and what is in it would be lost; discard lets it go", volume)
		}
	}
	if s.workload() {
		s.judgeWorkload(name)
	} else {
		s.judgePod()
	}
	s.judgePorts(name)
}

func (s *switchSubject) judgeWorkload(name string) {
	spec := replica.Object(s.owner.Object, "spec")
	if paused, _ := spec["paused"].(bool); paused {
		s.refuse("%s is paused: its Pods do not follow its template", name)
	}
	strategy := replica.Object(spec, switchedKinds[s.note.Kind].strategy)
	if replica.Text(strategy, "type") == "OnDelete" {
		s.refuse("%s has the update strategy OnDelete: its Pods do not follow its template", name)
	}
	if partition, _ := replica.Object(strategy, "rollingUpdate")["partition"].(int64); partition > 0 {
		s.refuse("%s has an update strategy with a partition: not all of its Pods follow its template", name)
	}
	if done, state := rolledOut(s.owner); !done {
		s.refuse("%s is not at rest: %s", name, state)
	}
}

func (s *switchSubject) judgePod() {
	for _, finalizer := range s.pod.Finalizers {
		s.refuse("pod %s has the finalizer %s: somebody else says when it may go", s.pod.Name, finalizer)
	}
	if s.need.Layer == neutral.LayerDiscard {
		return
	}
	for i := range s.pod.Spec.Containers {
		container := &s.pod.Spec.Containers[i]
		if context := container.SecurityContext; context == nil || context.ReadOnlyRootFilesystem == nil || !*context.ReadOnlyRootFilesystem {
			s.refuse("container %s may have changed files beside its volumes, which Kubernetes cannot tell and which would be lost; discard lets "+
				"them go", container.Name)
		}
	}
}

func (s *switchSubject) judgePorts(name string) {
	if s.free < 0 {
		return
	}
	wanted := len(s.pods)
	if count, ok := replica.Object(s.owner.Object, "spec")["replicas"].(int64); ok && s.workload() {
		wanted = int(count)
	}
	switch taken := strings.Join(s.taken, ", "); {
	case s.free >= wanted:
	case taken != "" && s.note.Kind == kindPod:
		s.refuse("on its node the ports that it needs are taken: %s", taken)
	case taken != "":
		s.refuse("%s has %d Pods, and there are only %d nodes on which their ports are free; taken are %s", name, wanted, s.free, taken)
	default:
		s.refuse("%s has %d Pods, and two cannot have the same ports of one host; there are %d nodes", name, wanted, s.free)
	}
}

// shortLived are the volumes of a spec that end with their Pod.
func shortLived(spec map[string]any) []string {
	var names []string
	for _, element := range replica.List(spec, "volumes") {
		volume, _ := element.(map[string]any)
		if volume["emptyDir"] != nil || volume["ephemeral"] != nil {
			names = append(names, replica.Text(volume, "name"))
		}
	}
	return names
}

// lost says what a switch costs.
func (s *switchSubject) lost() []string {
	if s.to == "" || s.to == s.from() {
		return nil
	}
	lost := []string{"connections to it end, and it has another address"}
	if s.workload() && len(s.pods) > 1 {
		lost[0] = fmt.Sprintf("all %d Pods of %s are made anew: connections to them end, and they have other addresses", len(s.pods), s.note.described())
	}
	if s.to == neutral.NetworkHost {
		lost = append(lost, "meanwhile no NetworkPolicy holds for it, and what it listens on is open on its node")
		lost = append(lost, movedPorts(s.spec)...)
		for _, network := range networksFromMeta(s.pod.ObjectMeta) {
			lost = append(lost, fmt.Sprintf("meanwhile its names on network %s lead nowhere", network.Name))
		}
	}
	seen := map[string]bool{}
	for i := range s.pods {
		for j := range s.pods[i].Spec.Containers {
			container := &s.pods[i].Spec.Containers[j]
			if context := container.SecurityContext; context != nil && context.ReadOnlyRootFilesystem != nil && *context.ReadOnlyRootFilesystem || seen[container.Name] {
				continue
			}
			seen[container.Name] = true
			lost = append(lost, fmt.Sprintf("files that container %s changed beside its volumes are lost, each way", container.Name))
		}
	}
	for _, volume := range shortLived(s.spec) {
		lost = append(lost, fmt.Sprintf("what is in volume %s, which lives as long as its Pod, is lost, each way", volume))
	}
	if !s.workload() {
		if s.pod.Spec.RestartPolicy != corev1.RestartPolicyAlways {
			lost = append(lost, fmt.Sprintf("it begins anew, each way, whatever it has done so far (restartPolicy %s)", s.pod.Spec.RestartPolicy))
		}
		if len(s.pod.Spec.EphemeralContainers) > 0 {
			lost = append(lost, "its ephemeral containers are not made anew")
		}
	}
	return lost
}

// object is what policy and leases know the subject by.
func (s *switchSubject) object() neutral.Object {
	o := neutral.Object{Kind: neutral.KindWorkload, Resource: "apps/" + switchedKinds[s.note.Kind].resource.Resource, Namespace: s.note.Namespace,
		Name: s.owner.GetName(), Labels: labelsFromMeta(metav1.ObjectMeta{Labels: s.owner.GetLabels(), Annotations: s.owner.GetAnnotations()})}
	if !s.workload() {
		o.Kind, o.Resource = neutral.KindContainer, coreGroup+"/pods"
	}
	return o
}

// away is how long the target does not answer: at most its time to end, unless another Pod is made at once, and what its
// start takes.
func (s *switchSubject) away() time.Duration {
	const start = 3 * time.Second
	ready := time.Duration(0)
	for i := range s.pod.Spec.Containers {
		for _, probe := range []*corev1.Probe{s.pod.Spec.Containers[i].ReadinessProbe, s.pod.Spec.Containers[i].StartupProbe} {
			if probe != nil {
				ready = max(ready, time.Duration(probe.InitialDelaySeconds)*time.Second)
			}
		}
	}
	if s.note.Kind == kindDeployment && replica.Text(s.owner.Object, "spec", "strategy", "type") != "Recreate" {
		return start + ready
	}
	return gracePeriod(s.pod) + start + ready
}
