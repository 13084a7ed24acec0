package docker

import (
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// An engine has no namespaces. A stack is one, and so is a compose project: an object of namespace N whose name is X is
// N_X with the label of a stack, as docker stack deploy makes it, and X in the namespace "default".

// dockerName is what an engine calls an object.
func dockerName(namespace, name string) string {
	if namespace == "" || namespace == defaultNamespace {
		return name
	}
	return namespace + "_" + name
}

// neutralName is what an object is called within its namespace.
func neutralName(name string, labels map[string]string) (namespace, short string) {
	namespace = namespaceOf(labels)
	name = strings.TrimPrefix(name, "/")
	if labels[labelStack] == "" && labels[labelComposeProject] == "" {
		return namespace, name
	}
	if short, ok := strings.CutPrefix(name, namespace+"_"); ok && short != "" {
		return namespace, short
	}
	return namespace, name
}

// labelsIn adds the label of a namespace.
func labelsIn(namespace string, labels map[string]string) map[string]string {
	in := make(map[string]string, len(labels)+1)
	for key, value := range labels {
		in[key] = value
	}
	if namespace != "" && namespace != defaultNamespace {
		in[labelStack] = namespace
	}
	return in
}

// named is what an object is found by.
type named struct {
	id        string
	docker    string // the engine's name
	namespace string
	name      string
}

func nameOf(id, docker string, labels map[string]string) named {
	n := named{id: id, docker: strings.TrimPrefix(docker, "/")}
	n.namespace, n.name = neutralName(docker, labels)
	return n
}

// in tells whether the object is in a namespace; "" is all.
func (n named) in(namespace string) bool { return namespace == "" || namespace == n.namespace }

// find gives the index of the object that a reference means in a namespace: by name, id or the beginning of one id alone.
// Of two of one name the one that is called so after its namespace is meant.
func find(kind, namespace, ref string, all []named) (int, error) {
	missing := fault.New(fault.NotFound, "%s %s not found", kind, ref)
	ref = strings.TrimPrefix(ref, "/")
	if ref == "" {
		return 0, missing
	}
	at := namespace
	if at == "" {
		at = defaultNamespace
	}
	named, prefixed, several := -1, -1, false
	for i, n := range all {
		if !n.in(namespace) {
			continue
		}
		switch {
		case n.id == ref:
			return i, nil
		case n.namespace == at && n.name == ref && (named < 0 || n.docker == dockerName(at, ref)), namespace == "" && n.docker == ref && named < 0:
			named = i
		case strings.HasPrefix(n.id, ref):
			several = prefixed >= 0
			prefixed = i
		}
	}
	switch {
	case named >= 0:
		return named, nil
	case several:
		return 0, fault.New(fault.Invalid, "%s %s is ambiguous: it begins more than one id", kind, ref)
	case prefixed >= 0:
		return prefixed, nil
	}
	return 0, missing
}

// taken is the fault of a create whose name is in use.
func taken(kind, name string) error {
	return fault.New(fault.Conflict, "name conflicts with an existing object: %s %s already exists", kind, name)
}

// object is what policy sees of one that was found.
func (n named) object(kind neutral.Kind, labels map[string]string) neutral.Object {
	if labels == nil {
		labels = map[string]string{}
	}
	return neutral.Object{Kind: kind, Namespace: n.namespace, Name: n.name, Labels: labels}
}
