package adapter

import (
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/adapter/mask"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// conceal takes the credentials out of the environments that a translated answer tells, but for those that came through
// a gateway themselves: who wrote a thing reads it back as it was. The result is not changed: it may be somebody's cache.
func conceal(result neutral.Result) neutral.Result {
	if c := result.Container; c != nil && c.Origin == nil {
		copied := *c
		copied.Env = concealed(c.Env)
		result.Container = &copied
	}
	if w := result.Workload; w != nil && w.Origin == nil {
		copied := *w
		copied.Template.Env = concealed(w.Template.Env)
		result.Workload = &copied
	}
	if t := result.Task; t != nil && t.Container.Origin == nil {
		copied := *t
		copied.Container.Env = concealed(t.Container.Env)
		result.Task = &copied
	}
	result.Containers = slices.Clone(result.Containers)
	for i := range result.Containers {
		if c := &result.Containers[i]; c.Origin == nil {
			c.Env = concealed(c.Env)
		}
	}
	result.Workloads = slices.Clone(result.Workloads)
	for i := range result.Workloads {
		if w := &result.Workloads[i]; w.Origin == nil {
			w.Template.Env = concealed(w.Template.Env)
		}
	}
	result.Tasks = slices.Clone(result.Tasks)
	for i := range result.Tasks {
		if c := &result.Tasks[i].Container; c.Origin == nil {
			c.Env = concealed(c.Env)
		}
	}
	return result
}

// concealed is an environment without its credentials.
func concealed(env []string) []string {
	shown := slices.Clone(env)
	for i, variable := range shown {
		if name, value, ok := strings.Cut(variable, "="); ok && value != "" && mask.IsCredential(name) {
			shown[i] = name + "=" + mask.Hidden
		}
	}
	return shown
}

// refuseConcealed refuses to make something whose environment was read from an answer: nobody would find out why it does
// not work.
func refuseConcealed(op neutral.Operation) error {
	var env []string
	switch {
	case op.Action == neutral.WorkloadUpdate:
		return nil // the target knows what stood there
	case op.Container != nil:
		env = op.Container.Env
	case op.Workload != nil:
		env = op.Workload.Template.Env
	}
	for _, variable := range env {
		if name, value, _ := strings.Cut(variable, "="); value == mask.Hidden {
			return fault.New(fault.Invalid, "the environment variable %s has the value %s, which stands for a credential that is not "+
				"told: give its real value", name, mask.Hidden)
		}
	}
	return nil
}
