package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/isthmus-mesh/isthmus/modules/freezer"
)

const (
	scheme      = "containerd://" // of the ids of containers in a Pod's status
	callTimeout = 10 * time.Second
	manager     = "isthmus-agent"
)

// subject is a container with its name in the Pod; "" where the Pod's status knows it no more.
type subject struct {
	freezer.Target
	name string
}

// reconcile makes a Pod's containers as they are wished to be, and says how they are.
func (a *Agent) reconcile(ctx context.Context, name cache.ObjectName) error {
	pod, before := a.pod(name), freezer.Report(nil)
	report, subjects := freezer.Report{}, map[string]subject{}
	if pod != nil {
		wishes, err := freezer.ParseWishes(pod.Annotations[freezer.Annotation])
		if err != nil { // what was wished before is over, then
			a.Log.Warn("the wishes of a Pod cannot be read", "pod", name.String(), "err", err)
		}
		before = reportOf(pod)
		report, subjects = read(pod, wishes, before, time.Now().UTC())
	}
	if err := a.strays(ctx, name, subjects); err != nil {
		return err
	}
	var failed error
	for id, s := range subjects {
		if s.Wish != "" {
			a.hold(id, name)
		}
		state, reason, err := freezer.Settle(ctx, a.Runtime, s.Target)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("container %s: %w", id, err))
			if known, ok := before[s.name]; ok && known.Instance == scheme+id {
				report[s.name] = known // for all that is known
			}
			continue
		}
		if state != freezer.Frozen && state != freezer.Resumed {
			a.letGo(id)
		}
		if state != "" && s.name != "" {
			report[s.name] = freezer.Answer{Wish: s.Wish, Instance: scheme + id, State: state, Reason: reason, Since: time.Now().UTC()}
		}
	}
	if pod == nil {
		return failed
	}
	return errors.Join(failed, a.answer(ctx, pod, before, report.After(before)))
}

// read makes of a Pod what is to be settled, and the answers that take no look at the runtime.
func read(pod *corev1.Pod, wishes freezer.Wishes, before freezer.Report, now time.Time) (freezer.Report, map[string]subject) {
	report, subjects := freezer.Report{}, map[string]subject{}
	for i := range pod.Status.ContainerStatuses {
		status := &pod.Status.ContainerStatuses[i]
		s := subject{name: status.Name}
		id, ours := strings.CutPrefix(status.ContainerID, scheme)
		s.ID, s.Pod = id, string(pod.UID)
		wish, wished := wishes[status.Name]
		old := before[status.Name]
		switch {
		case !wished:
		case old.Wish == wish.ID && (old.State == freezer.Refused || old.State == freezer.Ended):
			report[status.Name] = old // once answered so, a wish is over
		case wish.Instance != status.ContainerID || status.State.Running == nil || pod.DeletionTimestamp != nil || pod.Status.Phase != corev1.PodRunning:
			report[status.Name] = freezer.Answer{Wish: wish.ID, Instance: wish.Instance, State: freezer.Ended, Since: now}
		case old.Wish != wish.ID && now.Sub(wish.At).Abs() > freezer.WishLifetime:
			report[status.Name] = freezer.Answer{Wish: wish.ID, Instance: wish.Instance, State: freezer.Refused, Since: now,
				Reason: "that was asked for too long ago, or the clocks of gateway and node differ"}
		default:
			s.Wish, s.Refusal = wish.ID, refusal(pod, status.Name)
		}
		if ours && id != "" {
			subjects[id] = s
		}
	}
	return report, subjects
}

// refusal is why a container is not frozen, whoever wishes it.
func refusal(pod *corev1.Pod, name string) string {
	if owner := metav1.GetControllerOfNoCopy(pod); owner != nil {
		return fmt.Sprintf("it belongs to %s %s", owner.Kind, owner.Name)
	}
	for i := range pod.Spec.Containers {
		if c := &pod.Spec.Containers[i]; c.Name == name {
			return killer(c)
		}
	}
	return ""
}

// killer names what would kill a container that stands still, "" where nothing would.
func killer(c *corev1.Container) string {
	switch {
	case c.LivenessProbe != nil:
		return "its liveness probe would fail, and its node would kill it"
	case c.StartupProbe != nil:
		return "its startup probe would fail, and its node would kill it"
	}
	return ""
}

// strays adds what carries a mark and is not in the Pod's status: what ran before, or is of a Pod that is gone.
func (a *Agent) strays(ctx context.Context, name cache.ObjectName, subjects map[string]subject) error {
	if !a.holding(name) {
		return nil
	}
	marked, err := a.Runtime.Marked(ctx)
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, m := range marked {
		there[m.ID] = true
		if _, known := subjects[m.ID]; !known && cache.NewObjectName(m.Namespace, m.Name) == name {
			subjects[m.ID] = subject{Target: freezer.Target{ID: m.ID, Pod: m.Pod}}
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, pod := range a.holds {
		if pod == name && !there[id] {
			delete(a.holds, id)
		}
	}
	return nil
}

func (a *Agent) hold(id string, pod cache.ObjectName) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.holds[id] = pod
}

func (a *Agent) letGo(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.holds, id)
}

// pod gives a Pod of the node, nil where there is none.
func (a *Agent) pod(name cache.ObjectName) *corev1.Pod {
	informer, followed := a.pods[name.Namespace]
	if !followed {
		return nil
	}
	obj, ok, err := informer.GetStore().GetByKey(name.String())
	if err != nil || !ok {
		return nil
	}
	pod, _ := obj.(*corev1.Pod)
	return pod
}

// answer writes what there is to say into the Pod's status.
func (a *Agent) answer(ctx context.Context, pod *corev1.Pod, before, report freezer.Report) error {
	was := condition(pod)
	if was == nil && len(report) == 0 || was != nil && before.Equal(report) {
		return nil
	}
	now := corev1.PodCondition{Type: freezer.Condition, Status: corev1.ConditionFalse, Reason: "NothingFrozen", Message: report.String(),
		LastTransitionTime: metav1.Now()}
	if report.Frozen() {
		now.Status, now.Reason = corev1.ConditionTrue, "ContainersFrozen"
	}
	if was != nil && was.Status == now.Status {
		now.LastTransitionTime = was.LastTransitionTime
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID},
		"status": map[string]any{"conditions": []corev1.PodCondition{now}}})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = a.Client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch,
		metav1.PatchOptions{FieldManager: manager}, "status")
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // it is gone, and another one may have its name
	}
	if err == nil {
		a.Log.Info("answered", "pod", pod.Namespace+"/"+pod.Name, "answer", report.String())
	}
	return err
}

func condition(pod *corev1.Pod) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == freezer.Condition {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

// reportOf is what the agent answered last. One that cannot be read is none: it is written anew.
func reportOf(pod *corev1.Pod) freezer.Report {
	c := condition(pod)
	if c == nil {
		return nil
	}
	report, err := freezer.ParseReport(c.Message)
	if err != nil {
		return nil
	}
	return report
}

// slim keeps of a Pod what an agent reads.
func slim(obj any) (any, error) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return obj, nil
	}
	kept := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
			DeletionTimestamp: pod.DeletionTimestamp, OwnerReferences: pod.OwnerReferences},
		Status: corev1.PodStatus{Phase: pod.Status.Phase},
	}
	if wishes, ok := pod.Annotations[freezer.Annotation]; ok {
		kept.Annotations = map[string]string{freezer.Annotation: wishes}
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		kept.Spec.Containers = append(kept.Spec.Containers, corev1.Container{Name: c.Name, LivenessProbe: c.LivenessProbe, StartupProbe: c.StartupProbe})
	}
	for i := range pod.Status.ContainerStatuses {
		s := &pod.Status.ContainerStatuses[i]
		kept.Status.ContainerStatuses = append(kept.Status.ContainerStatuses, corev1.ContainerStatus{Name: s.Name, ContainerID: s.ContainerID, State: s.State})
	}
	if c := condition(pod); c != nil {
		kept.Status.Conditions = []corev1.PodCondition{*c}
	}
	return kept, nil
}
