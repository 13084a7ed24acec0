package kubernetes

import (
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// TestServiceFields holds that a refused or lost part of a service is named as a service's spec has it.
func TestServiceFields(t *testing.T) {
	t.Parallel()
	for field, c := range map[string]neutral.Container{
		"TaskTemplate.ContainerSpec.Mounts": {Mounts: []neutral.Mount{{Type: "bind", Source: "/data", Target: "/data"}}},
		"TaskTemplate.Networks":             {Network: neutral.NetworkNone},
		"TaskTemplate.ContainerSpec.User":   {User: "www"},
		"TaskTemplate.ContainerSpec.Groups": {Groups: []string{"www"}},
		"TaskTemplate.ContainerSpec.Hosts":  {ExtraHosts: []string{"a:host-gateway"}},
	} {
		c.Image = "busybox"
		_, _, err := deploymentFromWorkload(&neutral.Workload{Name: "shop", Template: c}, "team")
		known := fault.Of(err)
		if known.Kind != fault.Unsupported || known.Field != field || !strings.HasPrefix(known.Message, field+" is refused: ") ||
			strings.Contains(known.Message, "HostConfig") {
			t.Errorf("%s: %q %q", field, known.Field, known.Message)
		}
	}
	_, b, err := jobFromWorkload(&neutral.Workload{Name: "job", Mode: neutral.ModeJob, Replicas: 1, Template: neutral.Container{Image: "busybox",
		StopSignal: "SIGINT", Restart: neutral.RestartPolicy{Mode: neutral.RestartOnFailure, Max: 3}}}, "team")
	if err != nil {
		t.Fatal(err)
	}
	var lost []string
	for _, loss := range b.losses {
		lost = append(lost, loss.Field)
	}
	if text := strings.Join(lost, " "); text != "TaskTemplate.ContainerSpec.StopSignal TaskTemplate.RestartPolicy.MaxAttempts" {
		t.Errorf("lost %s", text)
	}
}

// TestUpdateFailureActions holds that what a Deployment cannot do after a failed update is told.
func TestUpdateFailureActions(t *testing.T) {
	t.Parallel()
	for action, lost := range map[string]bool{"": false, "pause": false, "continue": true, "rollback": true} {
		_, losses := rolloutFromPolicy(&neutral.UpdatePolicy{OnFailure: action})
		if told := len(losses) == 1 && losses[0].Field == "UpdateConfig.FailureAction" && losses[0].Change == "pause"; told != lost {
			t.Errorf("%q: %v", action, losses)
		}
	}
}
