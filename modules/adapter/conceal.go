package adapter

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/adapter/mask"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// teller tells a peer's callers of objects in their own words: neither the addresses in them nor the credentials in their
// environments, but for what that peer itself wrote.
type teller struct {
	mask *mask.Mask // nil hides no address
	peer string
}

// conceal is a result as it is told. The result itself is not changed: it may be somebody's cache.
func (m *Module) conceal(result neutral.Result, peer string) neutral.Result {
	t := teller{m.config.Mask, peer}
	if c := result.Container; c != nil {
		told := t.container(*c, c.Origin)
		result.Container = &told
	}
	if w := result.Workload; w != nil {
		told := t.workload(*w)
		result.Workload = &told
	}
	if task := result.Task; task != nil {
		told := t.task(*task)
		result.Task = &told
	}
	result.Containers = slices.Clone(result.Containers)
	for i, c := range result.Containers {
		result.Containers[i] = t.container(c, c.Origin)
	}
	result.Workloads = slices.Clone(result.Workloads)
	for i, w := range result.Workloads {
		result.Workloads[i] = t.workload(w)
	}
	result.Tasks = slices.Clone(result.Tasks)
	for i, task := range result.Tasks {
		result.Tasks[i] = t.task(task)
	}
	return result
}

func (t teller) workload(w neutral.Workload) neutral.Workload {
	w.Template = t.container(w.Template, w.Origin)
	w.UpdateMessage = t.text(w.UpdateMessage)
	return w
}

func (t teller) task(task neutral.Task) neutral.Task {
	task.Container = t.container(task.Container, task.Container.Origin)
	task.Message, task.Err = t.text(task.Message), t.text(task.Err)
	return task
}

func (t teller) container(c neutral.Container, origin *neutral.Origin) neutral.Container {
	wrote := t.wrote(origin)
	texts := func(list []string, hide func(string) string) []string {
		told := slices.Clone(list)
		for i, text := range told {
			if !wrote[text] {
				told[i] = hide(text)
			}
		}
		return told
	}
	secrets := credentials(c.Env)
	c.Env = texts(c.Env, func(variable string) string { return t.variable(variable, secrets) })
	c.Entrypoint, c.Command = texts(c.Entrypoint, t.text), texts(c.Command, t.text)
	c.DNS = texts(c.DNS, t.text)
	c.ExtraHosts = texts(c.ExtraHosts, func(host string) string {
		if name, address, ok := strings.Cut(host, ":"); ok && wrote[address+" "+name] { // as a service has it
			return host
		}
		return t.text(host)
	})
	if c.Health != nil {
		health := *c.Health
		health.Test = texts(health.Test, t.text)
		c.Health = &health
	}
	c.State.Error = t.text(c.State.Error)
	return c
}

// wrote are the texts of an object's document, where the peer wrote it. What the peer was told by stand-ins and wrote back
// is not among them.
func (t teller) wrote(origin *neutral.Origin) map[string]bool {
	if origin == nil || origin.Peer != t.peer || t.peer == "" {
		return nil
	}
	var document any
	if json.Unmarshal(origin.Spec, &document) != nil {
		return nil
	}
	texts := map[string]bool{}
	collect(document, texts)
	return texts
}

func collect(value any, texts map[string]bool) {
	switch v := value.(type) {
	case string:
		texts[v] = true
	case []any:
		for _, element := range v {
			collect(element, texts)
		}
	case map[string]any:
		for _, member := range v {
			collect(member, texts)
		}
	}
}

// text hides the addresses in a text.
func (t teller) text(text string) string {
	if t.mask == nil {
		return text
	}
	return t.mask.String(text)
}

// variable hides what a variable NAME=value of an environment holds, where its name says that it is a credential, or
// where one of the credentials stands in it, as in the URL of a database.
func (t teller) variable(variable string, secrets []string) string {
	name, value, ok := strings.Cut(variable, "=")
	if !ok || value == "" {
		return t.text(variable)
	}
	if mask.IsCredential(name) || slices.ContainsFunc(secrets, func(secret string) bool { return strings.Contains(value, secret) }) {
		return name + "=" + mask.Hidden
	}
	return t.text(variable)
}

// shortest is how long a credential must be for it to be looked for in other texts: a shorter one stands everywhere.
const shortest = 4

// credentials are those that an environment holds.
func credentials(env []string) []string {
	var all []string
	for _, variable := range env {
		if name, value, ok := strings.Cut(variable, "="); ok && len(value) >= shortest && mask.IsCredential(name) {
			all = append(all, value)
		}
	}
	return all
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
