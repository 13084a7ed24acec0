package podstatus

import (
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// FuzzTask goes through any succession of states.
func FuzzTask(f *testing.F) {
	for _, state := range []string{"new", "pending", "assigned", "ready", "starting", "running", "complete", "shutdown", "failed", "rejected", "remove", "orphaned"} {
		f.Add(state, "running", "", 0, "abc", "healthy")
		f.Add(state, "shutdown", "No such image: x", 1, "", "")
	}
	f.Fuzz(func(t *testing.T, state, desired, message string, code int, id, health string) {
		task := neutral.Task{State: state, Desired: desired, Err: message, ExitCode: code, NodeID: id, Created: created, Updated: now}
		task.Container = neutral.Container{ID: id, Health: &neutral.HealthCheck{Test: []string{health}}, State: neutral.State{
			Status: neutral.Status(state), Health: health, ExitCode: code, Error: message}, CreatedAt: created}
		status := Task(&task, spec)
		check(t, state, &status)
		again := Task(&neutral.Task{State: "ready", Desired: "ready", NodeID: "n", Created: created}, spec, task)
		check(t, state, &again)
		container := Container(&task.Container, spec)
		check(t, state, &container)
		several, holder := severalSpec(), podOf("new runs done again failed")
		for i := range holder.Members {
			if i%2 == code&1 {
				holder.Members[i].State = task.Container.State
			}
		}
		pod := Several(holder, several)
		checkSeveral(t, state, several, &pod)
		Next(holder, several)
	})
}
