package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// taskFromPod reads a Pod as a task of its workload.
func taskFromPod(cluster string, w *neutral.Workload, pod *corev1.Pod, slot int, now time.Time) neutral.Task {
	c := containerFromPod(cluster, pod, 0, now)
	t := neutral.Task{
		ID: shortID("task", cluster, string(pod.UID)), Name: fmt.Sprintf("%s.%d", w.Name, slot), Workload: w.ID, Slot: slot,
		Node: pod.Spec.NodeName, Desired: "running", ExitCode: c.State.ExitCode, Container: c,
		Created: pod.CreationTimestamp.Time, Updated: pod.CreationTimestamp.Time,
	}
	if pod.Spec.NodeName != "" {
		t.NodeID = nodeID(cluster, pod.Spec.NodeName)
	}
	if w.Mode == neutral.ModeGlobal {
		t.Slot = 0
	}
	for _, at := range []time.Time{c.State.StartedAt, c.State.FinishedAt} {
		if at.After(t.Updated) {
			t.Updated = at
		}
	}
	t.State, t.Message = taskState(pod, &c)
	if t.State == "failed" || t.State == "rejected" || t.State == "pending" || t.State == "preparing" {
		t.Err = c.State.Error
	}
	if t.State == "failed" && t.Err == "" {
		t.Err = fmt.Sprintf("task: non-zero exit (%d)", c.State.ExitCode)
	}
	switch {
	case pod.DeletionTimestamp != nil, t.State == "failed" && terminal(pod):
		t.Desired = "shutdown"
	case w.Mode == neutral.ModeJob, t.State == "complete":
		t.Desired = "complete"
	}
	return t
}

// taskState says in Swarm's words how a Pod is.
func taskState(pod *corev1.Pod, c *neutral.Container) (state, message string) {
	switch {
	case pod.DeletionTimestamp != nil:
		return "shutdown", "shutting down"
	case pod.Status.Phase == corev1.PodSucceeded:
		return "complete", "finished"
	case pod.Status.Phase == corev1.PodFailed:
		return "failed", "started"
	}
	switch c.State.Status {
	case neutral.StatusRunning:
		if c.State.Health == "starting" {
			return "starting", "starting"
		}
		return "running", "started"
	case neutral.StatusRestarting:
		return "failed", "restarting"
	}
	if pod.Spec.NodeName == "" {
		return "pending", "pending task scheduling"
	}
	return "preparing", "preparing"
}

// tasksOf gives the tasks of workloads, each with its Pod. Slots are counted from the oldest that still has a claim
// to run; those that ended have no slot of their own.
func (a *action) tasksOf(ctx context.Context, workloads []locatedWorkload) ([]neutral.Task, map[string]*corev1.Pod, error) {
	list, err := a.client.CoreV1().Pods(a.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, nil, nativeFault(err)
	}
	now := time.Now()
	var tasks []neutral.Task
	pods := map[string]*corev1.Pod{}
	for i := range workloads {
		w := &workloads[i]
		var own []*corev1.Pod
		wanted := func(*corev1.Pod) bool { return true }
		if a.op.Filter.Current {
			if wanted, err = w.native.current(ctx, a.Cluster); err != nil {
				return nil, nil, err
			}
		}
		for j := range list.Items {
			if belongsTo(&list.Items[j], w) && wanted(&list.Items[j]) {
				own = append(own, &list.Items[j])
			}
		}
		slices.SortFunc(own, func(x, y *corev1.Pod) int {
			if order := x.CreationTimestamp.Compare(y.CreationTimestamp.Time); order != 0 {
				return order
			}
			return strings.Compare(x.Name, y.Name)
		})
		for slot, pod := range slots(own) {
			if terminal(pod) || pod.DeletionTimestamp != nil { // as Swarm shows them: the slot's former tasks
				slot %= max(w.Desired, 1)
			}
			t := taskFromPod(a.cluster, &w.Workload, pod, slot+1, now)
			tasks, pods[t.ID] = append(tasks, t), pod
		}
	}
	return tasks, pods, nil
}

// slots puts the Pods that run or will run first.
func slots(pods []*corev1.Pod) []*corev1.Pod {
	live := slices.DeleteFunc(slices.Clone(pods), func(p *corev1.Pod) bool { return terminal(p) || p.DeletionTimestamp != nil })
	gone := slices.DeleteFunc(slices.Clone(pods), func(p *corev1.Pod) bool { return !terminal(p) && p.DeletionTimestamp == nil })
	return append(live, gone...)
}

func belongsTo(pod *corev1.Pod, w *locatedWorkload) bool {
	owner := ownerFromPod(pod)
	return owner != nil && owner.Kind == w.native.kind && owner.Name == w.native.meta.Name
}

// allWorkloads gives those that the caller may see.
func (a *action) allWorkloads(ctx context.Context) ([]locatedWorkload, error) {
	natives, err := a.natives(ctx)
	if err != nil {
		return nil, err
	}
	var all []locatedWorkload
	for _, n := range natives {
		all = append(all, locatedWorkload{Workload: workloadFromNative(a.cluster, n), native: n})
	}
	return all, nil
}

func taskObject(t *neutral.Task) neutral.Object {
	return neutral.Object{Kind: neutral.KindTask, Namespace: t.Container.Namespace, Name: t.Name, Labels: t.Container.Labels, Container: &t.Container}
}

// listTasks lists the Pods of workloads.
func (a *action) listTasks(ctx context.Context) (neutral.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	workloads, err := a.allWorkloads(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	f := a.op.Filter
	workloads = slices.DeleteFunc(workloads, func(w locatedWorkload) bool {
		return !oneOf(f.Workloads, func(ref string) bool { return ref == w.Name || strings.HasPrefix(w.ID, ref) })
	})
	tasks, _, err := a.tasksOf(ctx, workloads)
	if err != nil {
		return neutral.Result{}, err
	}
	return neutral.Result{Tasks: slices.DeleteFunc(tasks, func(t neutral.Task) bool {
		return !oneOf(f.IDs, func(id string) bool { return strings.HasPrefix(t.ID, id) }) ||
			!oneOf(f.Names, func(name string) bool { return strings.HasPrefix(t.Name, name) }) ||
			!oneOf(f.Nodes, func(node string) bool { return node == t.Node || strings.HasPrefix(t.NodeID, node) }) ||
			!oneOf(f.States, func(state string) bool { return state == t.Desired }) ||
			!matchLabels(f.Labels, t.Container.Labels) || a.permit(taskObject(&t)) != nil
	})}, nil
}

// findTask gives the task that the operation names.
func (a *action) findTask(ctx context.Context) (*neutral.Task, *corev1.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	workloads, err := a.allWorkloads(ctx)
	if err != nil {
		return nil, nil, err
	}
	tasks, pods, err := a.tasksOf(ctx, workloads)
	if err != nil {
		return nil, nil, err
	}
	i, err := matchReference(a.op.Ref, "task", len(tasks), func(i int) string { return tasks[i].ID }, func(i int) string { return tasks[i].Name })
	if err != nil {
		return nil, nil, fault.New(fault.NotFound, "task %s not found", a.op.Ref)
	}
	if err := a.permit(taskObject(&tasks[i])); err != nil {
		return nil, nil, err
	}
	return &tasks[i], pods[tasks[i].ID], nil
}

func (a *action) inspectTask(ctx context.Context) (neutral.Result, error) {
	task, _, err := a.findTask(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	return neutral.Result{Task: task}, nil
}

func (a *action) logOptions() neutral.LogOptions {
	if a.op.Logs != nil {
		return *a.op.Logs
	}
	return neutral.LogOptions{Stdout: true, Stderr: true, Tail: -1}
}

// taskLogs gives one task's log.
func (a *action) taskLogs(ctx context.Context, session neutral.Session) (neutral.Result, error) {
	task, pod, err := a.findTask(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	found := &located{Container: task.Container, pod: pod}
	return neutral.Result{Losses: []neutral.Loss{mergedLog}}, a.readLog(ctx, found, a.logOptions(), session, func(chunk neutral.Chunk) error {
		chunk.Context = task
		return session.Output(chunk)
	})
}

// workloadLogs gives the logs of all tasks, and of those that come while it follows.
func (a *action) workloadLogs(ctx context.Context, session neutral.Session) (neutral.Result, error) {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	found, err := a.findWorkload(call, a.op.Ref)
	if err != nil {
		return neutral.Result{}, err
	}
	result := neutral.Result{Losses: []neutral.Loss{mergedLog}}
	tasks, pods, err := a.tasksOf(call, []locatedWorkload{*found})
	if err != nil {
		return neutral.Result{}, err
	}
	if err := session.Accept(); err != nil {
		return neutral.Result{}, err
	}
	r := newLogReaders(ctx, a, session)
	for i := range tasks {
		r.read(&tasks[i], pods[tasks[i].ID])
	}
	if !a.logOptions().Follow {
		return result, r.wait()
	}
	return result, r.follow(found, len(tasks))
}

// logReaders reads the logs of several tasks at once. The first that breaks ends them all.
type logReaders struct {
	*action
	ctx     context.Context
	cancel  context.CancelCauseFunc
	session neutral.Session
	group   sync.WaitGroup
	seen    map[string]bool
}

func newLogReaders(ctx context.Context, a *action, session neutral.Session) *logReaders {
	r := &logReaders{action: a, session: session, seen: map[string]bool{}}
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	return r
}

func (r *logReaders) read(task *neutral.Task, pod *corev1.Pod) {
	r.seen[string(pod.UID)] = true
	found := &located{Container: task.Container, pod: pod}
	r.group.Go(func() {
		err := r.readLog(r.ctx, found, r.logOptions(), r.session, func(chunk neutral.Chunk) error {
			chunk.Context = task
			return r.session.Output(chunk)
		})
		if err != nil && !fault.Is(err, fault.NotFound) { // a Pod that was removed meanwhile has no more to say
			r.cancel(err)
		}
	})
}

// wait returns when all are read.
func (r *logReaders) wait() error {
	r.group.Wait()
	err := context.Cause(r.ctx)
	r.cancel(nil)
	return err
}

// follow reads the logs of tasks as they come, until the caller goes or the wanted time is over.
func (r *logReaders) follow(w *locatedWorkload, slot int) error {
	options := r.logOptions()
	ctx := r.ctx
	if !options.Until.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, options.Until, errLogEnd)
		defer cancel()
	}
	take := func(pod *corev1.Pod) {
		if r.seen[string(pod.UID)] || !belongsTo(pod, w) || terminal(pod) {
			return
		}
		slot++
		task := taskFromPod(r.cluster, &w.Workload, pod, slot, time.Now())
		r.read(&task, pod)
	}
	err := r.followPods(ctx, r.namespace, metav1.ListOptions{}, podVisitor{
		list: func(pods []corev1.Pod) (bool, error) {
			for i := range pods {
				take(&pods[i])
			}
			return false, nil
		},
		change: func(kind watch.EventType, pod *corev1.Pod) (bool, error) {
			if kind != watch.Deleted {
				take(pod)
			}
			return false, nil
		},
	})
	if broken := context.Cause(r.ctx); broken != nil && !errors.Is(broken, context.Canceled) {
		err = broken
	}
	r.cancel(err)
	r.group.Wait()
	return logEnd(ctx, err)
}
