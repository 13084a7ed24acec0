package kubernetes

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/isthmus-mesh/isthmus/modules/adapter/mask"
	"github.com/isthmus-mesh/isthmus/modules/adapter/replica"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

const (
	hindrancePatience = 15 * time.Second       // how long what hinders a start may last
	hindranceGap      = 5 * time.Second        // a container that is started again and again is not hindered in between
	lookInterval      = time.Second            // what is not watched is looked at so often
	lookPause         = 100 * time.Millisecond // between two looks
)

// wantedPods is how many Pods a workload is to have.
func wantedPods(workload *unstructured.Unstructured) int64 {
	if workload.GetKind() == kindDaemonSet {
		scheduled, _ := replica.Object(workload.Object, "status")["desiredNumberScheduled"].(int64)
		return scheduled
	}
	replicas, given := replica.Object(workload.Object, "spec")["replicas"].(int64)
	if !given {
		return 1
	}
	return replicas
}

// restored tells whether Pods of a mode are back in the place of all others. A controller may count a Pod that is on its
// way out, and says late that one has gone.
func restored(pods []corev1.Pod, mode neutral.NetworkMode, wanted int64) (done bool, state string) {
	ready := int64(0)
	for i := range pods {
		switch {
		case podMode(&pods[i]) != mode:
			return false, "Pods of the other network mode have not gone"
		case podReady(&pods[i]):
			ready++
		}
	}
	if ready < wanted {
		return false, fmt.Sprintf("%d of %d Pods are ready", ready, wanted)
	}
	return true, ""
}

// rolledOut tells whether all Pods of a workload are of its template and ready; state says what is not so.
func rolledOut(workload *unstructured.Unstructured) (done bool, state string) {
	status := replica.Object(workload.Object, "status")
	number := func(field string) int64 {
		n, _ := status[field].(int64)
		return n
	}
	if number("observedGeneration") < workload.GetGeneration() {
		return false, "its controller has not seen it yet"
	}
	wanted, updated, ready, all := wantedPods(workload), number("updatedReplicas"), number("readyReplicas"), number("replicas")
	switch workload.GetKind() {
	case kindDaemonSet:
		updated, ready, all = number("updatedNumberScheduled"), number("numberReady"), wanted
	case kindStatefulSet:
		if replica.Text(status, "updateRevision") == replica.Text(status, "currentRevision") {
			updated = all // some versions count only while there are two revisions
		} else if updated == wanted && ready == wanted {
			return false, "its controller has not closed the rollout yet"
		}
	}
	switch {
	case updated < wanted:
		return false, fmt.Sprintf("%d of %d Pods are of its template", updated, wanted)
	case all > wanted:
		return false, fmt.Sprintf("%d old Pods have not gone", all-wanted)
	case ready < wanted:
		return false, fmt.Sprintf("%d of %d Pods are ready", ready, wanted)
	}
	return true, ""
}

// stalledRollout says why a controller has given up, or cannot make Pods.
func stalledRollout(workload *unstructured.Unstructured) (why string, final bool) {
	for _, element := range replica.List(workload.Object, "status", "conditions") {
		condition, _ := element.(map[string]any)
		kind, status := replica.Text(condition, "type"), replica.Text(condition, "status")
		switch {
		case kind == "ReplicaFailure" && status == "True":
			return "no Pod can be made: " + plainMessage(replica.Text(condition, "message"), replica.Text(condition, "reason")), false
		case kind == "Progressing" && status == "False":
			return "its controller has given up", true
		}
	}
	return "", false
}

// plainMessage is a message of the cluster's that names no address; else the word for it.
func plainMessage(message, reason string) string {
	for _, word := range strings.FieldsFunc(message, func(r rune) bool { return strings.ContainsRune(" \"'(),;=[]{}/", r) }) {
		host, _, _ := strings.Cut(word, ":")
		if mask.IsAddress(word) || mask.IsAddress(host) {
			return reason
		}
	}
	return withoutAccount(message)
}

// failures are the reasons for which a container waits that do not pass by themselves, mostly.
var failures = map[string]bool{"ErrImagePull": true, "ImagePullBackOff": true, "ErrImageNeverPull": true, "InvalidImageName": true,
	"ImageInspectError": true, "CreateContainerConfigError": true, "CreateContainerError": true, "RunContainerError": true, "CrashLoopBackOff": true}

// podHindrance says what keeps a Pod from being ready; lasting tells that it is no matter of time alone.
func podHindrance(pod *corev1.Pod) (why string, lasting bool) {
	if pod.Status.Phase == corev1.PodFailed && pod.Status.Reason != "" {
		return fmt.Sprintf("its node refuses pod %s (%s)", pod.Name, pod.Status.Reason), true
	}
	if terminal(pod) {
		return fmt.Sprintf("pod %s has ended", pod.Name), true
	}
	for i := range pod.Status.Conditions {
		if c := &pod.Status.Conditions[i]; c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return fmt.Sprintf("no node takes pod %s: %s", pod.Name, plainMessage(c.Message, c.Reason)), true
		}
	}
	waits := ""
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for i := range statuses {
			status := &statuses[i]
			switch w := status.State.Waiting; {
			case w != nil && failures[w.Reason]:
				return fmt.Sprintf("container %s of pod %s: %s", status.Name, pod.Name, w.Reason), true
			case !status.Ready:
				waits = fmt.Sprintf("container %s of pod %s is not ready", status.Name, pod.Name)
			}
		}
	}
	return waits, false
}

// look is what one look at a switch tells.
type look struct {
	done    bool
	why     string // what hinders it
	lasting bool
	final   bool // nothing is to be waited for
}

// hindered remembers how long something has been in the way.
type hindered struct {
	why         string
	since, last time.Time
}

// see tells whether what hinders has lasted too long.
func (h *hindered) see(l look, now time.Time) bool {
	if l.why != "" {
		h.why = l.why
	}
	if !l.lasting {
		if now.Sub(h.last) > hindranceGap {
			h.since = time.Time{}
		}
		return false
	}
	if h.since.IsZero() {
		h.since = now
	}
	h.last = now
	return now.Sub(h.since) > hindrancePatience
}

// await looks again and again, whenever an object changes and now and then, until it is done. patient waits on when
// something hinders that does not pass by itself.
func (r *switchRun) await(ctx context.Context, patient bool, inspect func(context.Context) (look, error)) error {
	changes := r.watch(ctx)
	defer func() {
		if changes != nil {
			changes.Stop()
		}
	}()
	ticker := time.NewTicker(lookInterval)
	defer ticker.Stop()
	var h hindered
	for {
		l, err := inspect(ctx)
		if ctx.Err() != nil {
			return fault.New(fault.Timeout, "%s did not come up in time: %s", r.note.described(), cmp.Or(h.why, "nothing was heard of it"))
		}
		if err != nil || l.done {
			return err
		}
		if h.see(l, time.Now()) && !patient || l.final && !patient {
			return fault.New(fault.Unavailable, "%s does not come up: %s", r.note.described(), h.why)
		}
		var events <-chan watch.Event
		if changes != nil {
			events = changes.ResultChan()
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
			if changes == nil {
				changes = r.watch(ctx)
			}
		case _, open := <-events:
			if !open {
				changes = nil
			}
			select { // more often comes more than one
			case <-ctx.Done():
			case <-time.After(lookPause):
			}
		}
	}
}

// watch follows the object of the switch; nil where that cannot be, and it is looked at only now and then.
func (r *switchRun) watch(ctx context.Context) watch.Interface {
	seconds := int64(watchSeconds)
	options := metav1.ListOptions{FieldSelector: "metadata.name=" + r.note.Name, TimeoutSeconds: &seconds}
	changes, err := r.cluster.dynamic.Resource(switchedKinds[r.note.Kind].resource).Namespace(r.note.Namespace).Watch(ctx, options)
	if err != nil {
		return nil
	}
	return changes
}

// chosen is the Pod of a workload that takes the target's place: of the same name, or on the same node, or any.
func chosen(pods []corev1.Pod, note *switchNote, mode neutral.NetworkMode) *corev1.Pod {
	var best *corev1.Pod
	rank := func(pod *corev1.Pod) int {
		switch {
		case pod.Name == note.Pod:
			return 0
		case pod.Spec.NodeName == note.Node:
			return 1
		}
		return 2
	}
	for i := range pods {
		pod := &pods[i]
		if !podReady(pod) || podMode(pod) != mode {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(rank(pod), rank(best)), cmp.Compare(pod.Name, best.Name)) < 0 {
			best = pod
		}
	}
	return best
}
