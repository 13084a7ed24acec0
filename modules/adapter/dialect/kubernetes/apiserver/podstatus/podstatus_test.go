package podstatus

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	resources "github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/resource"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/table"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

var (
	now     = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	created = now.Add(-time.Hour)
	spec    = &corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "nginx:1"}}}
)

// columns are what kubectl get pods shows of a status.
func columns(t *testing.T, status corev1.PodStatus) string {
	t.Helper()
	of, ok := resources.Find("", "v1", "pods")
	if !ok {
		t.Fatal("no pods")
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web", CreationTimestamp: metav1.NewTime(created)}, Spec: *spec, Status: status}
	shown, err := table.Of(of, []runtime.Object{pod}, metav1.ListMeta{}, metav1.TableOptions{}, now)
	if err != nil || len(shown.Rows) != 1 {
		t.Fatal(err)
	}
	cells := shown.Rows[0].Cells
	return fmt.Sprint(cells[1], " ", cells[2], " ", cells[3])
}

func TestContainer(t *testing.T) {
	t.Parallel()
	at := func(minutes int) time.Time { return now.Add(-time.Duration(minutes) * time.Minute) }
	for name, test := range map[string]struct {
		state neutral.State
		want  string // READY STATUS RESTARTS
		phase corev1.PodPhase
	}{
		"created":         {neutral.State{Status: neutral.StatusCreated}, "0/1 ContainerCreating 0", corev1.PodPending},
		"pulling":         {neutral.State{Status: neutral.StatusCreated, Reason: "ImagePullBackOff", Error: "no such image"}, "0/1 ImagePullBackOff 0", corev1.PodPending},
		"not started":     {neutral.State{Status: neutral.StatusCreated, Error: "port is taken"}, "0/1 RunContainerError 0", corev1.PodPending},
		"running":         {neutral.State{Status: neutral.StatusRunning, StartedAt: at(9)}, "1/1 Running 0", corev1.PodRunning},
		"healthy":         {neutral.State{Status: neutral.StatusRunning, StartedAt: at(9), Health: "healthy"}, "1/1 Running 0", corev1.PodRunning},
		"ill":             {neutral.State{Status: neutral.StatusRunning, StartedAt: at(9), Health: "unhealthy"}, "0/1 Running 0", corev1.PodRunning},
		"not yet healthy": {neutral.State{Status: neutral.StatusRunning, StartedAt: at(9), Health: "starting"}, "0/1 Running 0", corev1.PodRunning},
		"restarted":       {neutral.State{Status: neutral.StatusRunning, StartedAt: at(9), FinishedAt: at(10), RestartCount: 3}, "1/1 Running 3 (10m ago)", corev1.PodRunning},
		"started again":   {neutral.State{Status: neutral.StatusRunning, StartedAt: at(9), FinishedAt: at(10)}, "1/1 Running 0", corev1.PodRunning},
		"paused":          {neutral.State{Status: neutral.StatusPaused, StartedAt: at(9)}, "0/1 Paused 0", corev1.PodRunning},
		"restarting":      {neutral.State{Status: neutral.StatusRestarting, StartedAt: at(9), FinishedAt: at(5), ExitCode: 1, RestartCount: 4}, "0/1 CrashLoopBackOff 4 (5m ago)", corev1.PodRunning},
		"completed":       {neutral.State{Status: neutral.StatusExited, StartedAt: at(9), FinishedAt: at(5)}, "0/1 Completed 0", corev1.PodSucceeded},
		"failed":          {neutral.State{Status: neutral.StatusExited, StartedAt: at(9), FinishedAt: at(5), ExitCode: 3}, "0/1 Error 0", corev1.PodFailed},
		"out of memory":   {neutral.State{Status: neutral.StatusExited, StartedAt: at(9), FinishedAt: at(5), ExitCode: 137, OOMKilled: true}, "0/1 OOMKilled 0", corev1.PodFailed},
		"dead":            {neutral.State{Status: neutral.StatusDead, StartedAt: at(9), FinishedAt: at(5)}, "0/1 ContainerStatusUnknown 0", corev1.PodFailed},
		"going":           {neutral.State{Status: neutral.StatusRemoving, StartedAt: at(9)}, "0/1 Running 0", corev1.PodRunning},
		"gone":            {neutral.State{Status: neutral.StatusRemoving, StartedAt: at(9), FinishedAt: at(5), ExitCode: 143}, "0/1 Error 0", corev1.PodFailed},
		"nothing said":    {neutral.State{}, "0/1 ContainerCreating 0", corev1.PodPending},
	} {
		c := neutral.Container{ID: "abc", Image: "nginx:1", CreatedAt: created, State: test.state}
		status := Container(&c, spec)
		if got := columns(t, status); got != test.want || status.Phase != test.phase {
			t.Errorf("%s: %s, %s, want %s, %s", name, got, status.Phase, test.want, test.phase)
		}
		check(t, name, &status)
	}
}

// check holds what every status has.
func check(t *testing.T, name string, status *corev1.PodStatus) {
	t.Helper()
	if status.HostIP+status.PodIP != "" || len(status.HostIPs)+len(status.PodIPs) > 0 {
		t.Errorf("%s: there is an address", name)
	}
	types := map[corev1.PodConditionType]corev1.PodCondition{}
	for _, condition := range status.Conditions {
		types[condition.Type] = condition
		if condition.LastTransitionTime.IsZero() {
			t.Errorf("%s: %s has no time", name, condition.Type)
		}
	}
	scheduled := types[corev1.PodScheduled].Status == corev1.ConditionTrue
	if scheduled != (len(status.ContainerStatuses) == 1) || scheduled != (status.StartTime != nil) {
		t.Errorf("%s: scheduled %v, %d containers, started %v", name, scheduled, len(status.ContainerStatuses), status.StartTime)
	}
	if !scheduled {
		return
	}
	c := status.ContainerStatuses[0]
	said := 0
	for _, is := range []bool{c.State.Waiting != nil, c.State.Running != nil, c.State.Terminated != nil} {
		if is {
			said++
		}
	}
	ready := types[corev1.PodReady].Status == corev1.ConditionTrue
	if said != 1 || c.Ready != ready || types[corev1.ContainersReady].Status != types[corev1.PodReady].Status || c.Ready && c.State.Running == nil ||
		types[corev1.PodInitialized].Status != corev1.ConditionTrue {
		t.Errorf("%s: %+v", name, status)
	}
	if c.State.Terminated != nil && c.State.Terminated.Reason == "" {
		t.Errorf("%s: it ended without a reason", name)
	}
}

func TestTask(t *testing.T) {
	t.Parallel()
	updated := now.Add(-time.Minute)
	checked := &neutral.HealthCheck{Test: []string{"CMD", "true"}}
	ended := neutral.Task{State: "failed", Desired: "shutdown", ExitCode: 2, Updated: now.Add(-7 * time.Minute), Err: "task: non-zero exit (2)", NodeID: "n"}
	for name, test := range map[string]struct {
		task   neutral.Task
		before []neutral.Task
		want   string
		phase  corev1.PodPhase
	}{
		"new":             {neutral.Task{State: "new"}, nil, "0/1 Pending 0", corev1.PodPending},
		"allocated":       {neutral.Task{State: "allocated"}, nil, "0/1 Pending 0", corev1.PodPending},
		"no node":         {neutral.Task{State: "pending", Err: "no suitable node (insufficient resources on 3 nodes)"}, nil, "0/1 Pending 0", corev1.PodPending},
		"assigned":        {neutral.Task{State: "assigned", NodeID: "n"}, nil, "0/1 ContainerCreating 0", corev1.PodPending},
		"accepted":        {neutral.Task{State: "accepted", NodeID: "n"}, nil, "0/1 ContainerCreating 0", corev1.PodPending},
		"preparing":       {neutral.Task{State: "preparing", NodeID: "n"}, nil, "0/1 ContainerCreating 0", corev1.PodPending},
		"ready":           {neutral.Task{State: "ready", Desired: "running", NodeID: "n"}, nil, "0/1 ContainerCreating 0", corev1.PodPending},
		"between tasks":   {neutral.Task{State: "ready", Desired: "ready", NodeID: "n"}, []neutral.Task{ended, ended}, "0/1 CrashLoopBackOff 2 (7m ago)", corev1.PodRunning},
		"starting":        {neutral.Task{State: "starting", NodeID: "n"}, nil, "0/1 ContainerCreating 0", corev1.PodPending},
		"not yet healthy": {neutral.Task{State: "starting", NodeID: "n", Container: neutral.Container{ID: "abc", Health: checked}}, nil, "0/1 Running 0", corev1.PodRunning},
		"running":         {neutral.Task{State: "running", NodeID: "n"}, nil, "1/1 Running 0", corev1.PodRunning},
		"running again":   {neutral.Task{State: "running", NodeID: "n"}, []neutral.Task{ended}, "1/1 Running 1 (7m ago)", corev1.PodRunning},
		"complete":        {neutral.Task{State: "complete", NodeID: "n"}, nil, "0/1 Completed 0", corev1.PodSucceeded},
		"shutdown":        {neutral.Task{State: "shutdown", NodeID: "n"}, nil, "0/1 Completed 0", corev1.PodSucceeded},
		"killed":          {neutral.Task{State: "shutdown", NodeID: "n", ExitCode: 137}, nil, "0/1 Error 0", corev1.PodFailed},
		"failed":          {ended, nil, "0/1 Error 0", corev1.PodFailed},
		"failed unsaid":   {neutral.Task{State: "failed", NodeID: "n"}, nil, "0/1 Error 0", corev1.PodFailed},
		"not startable":   {neutral.Task{State: "failed", NodeID: "n", Err: "starting container failed: exec: \"nope\": executable file not found in $PATH"}, nil, "0/1 StartError 0", corev1.PodFailed},
		"no image":        {neutral.Task{State: "rejected", NodeID: "n", Err: "No such image: nope:1"}, nil, "0/1 ImagePullBackOff 0", corev1.PodPending},
		"rejected":        {neutral.Task{State: "rejected", NodeID: "n", Err: "invalid mount config for type \"bind\": bind source path does not exist: /nope"}, nil, "0/1 CreateContainerError 0", corev1.PodPending},
		"remove":          {neutral.Task{State: "remove", NodeID: "n", ExitCode: 143}, nil, "0/1 Error 0", corev1.PodFailed},
		"orphaned":        {neutral.Task{State: "orphaned", NodeID: "n"}, nil, "0/1 NodeLost 0", corev1.PodUnknown},
		"unknown":         {neutral.Task{State: "dreaming", NodeID: "n"}, nil, "0/1 ContainerCreating 0", corev1.PodUnknown},
	} {
		test.task.Created, test.task.Updated = created, updated
		if name == "failed" {
			test.task.Updated = ended.Updated
		}
		status := Task(&test.task, spec, test.before...)
		if got := columns(t, status); got != test.want || status.Phase != test.phase {
			t.Errorf("%s: %s, %s, want %s, %s", name, got, status.Phase, test.want, test.phase)
		}
		check(t, name, &status)
		if test.task.Err != "" && !strings.Contains(fmt.Sprintf("%+v", status), test.task.Err) {
			text, _ := yaml.Marshal(status)
			t.Errorf("%s: why is not said:\n%s", name, text)
		}
	}
}

func TestQOSClass(t *testing.T) {
	t.Parallel()
	list := func(cpu, memory string) corev1.ResourceList {
		out := corev1.ResourceList{}
		for name, text := range map[corev1.ResourceName]string{corev1.ResourceCPU: cpu, corev1.ResourceMemory: memory} {
			if text != "" {
				out[name] = resource.MustParse(text)
			}
		}
		return out
	}
	for _, test := range []struct {
		limits, requests corev1.ResourceList
		want             corev1.PodQOSClass
	}{
		{nil, nil, corev1.PodQOSBestEffort},
		{list("0", ""), nil, corev1.PodQOSBestEffort},
		{list("1", "1Gi"), nil, corev1.PodQOSGuaranteed},
		{list("1", "1Gi"), list("1", "1Gi"), corev1.PodQOSGuaranteed},
		{list("1", "1Gi"), list("500m", "1Gi"), corev1.PodQOSBurstable},
		{list("1", ""), nil, corev1.PodQOSBurstable},
		{nil, list("", "1Gi"), corev1.PodQOSBurstable},
	} {
		spec := &corev1.PodSpec{Containers: []corev1.Container{{Resources: corev1.ResourceRequirements{Limits: test.limits, Requests: test.requests}}}}
		if got := QOSClass(spec); got != test.want {
			t.Errorf("%v, %v: %s, want %s", test.limits, test.requests, got, test.want)
		}
	}
}
