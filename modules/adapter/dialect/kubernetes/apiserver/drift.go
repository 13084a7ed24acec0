package apiserver

import (
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/podspec"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// A document says what a client of the API wrote, and stands in a label that others may write as well; and what runs may
// have been changed by the orchestrator's own client since. Policy judges what may be done with a container by what the API
// shows of it. So a document is believed as far as it says what runs, and no further.

// essence is what a container runs as, and what it may do to its host. Engines keep it as it was written.
type essence struct {
	user    string
	groups  []string
	host    bool // on its host's network
	binds   []neutral.Mount
	devices []string
	neutral.Security
}

// essenceOf takes a container's own words to one form. An engine tells the user of the image as if somebody had asked for it.
func essenceOf(c *neutral.Container) essence {
	e := essence{user: c.User, groups: sorted(c.Groups), host: c.Network == neutral.NetworkHost, Security: c.Security}
	for _, m := range c.Mounts {
		if m.Type == "bind" {
			e.binds = append(e.binds, neutral.Mount{Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly})
		}
	}
	slices.SortFunc(e.binds, func(a, b neutral.Mount) int { return strings.Compare(a.Target, b.Target) })
	e.CapAdd, e.CapDrop, e.devices = capabilities(c.Security.CapAdd), capabilities(c.Security.CapDrop), sorted(c.Security.Devices)
	e.Devices = nil
	if len(e.Sysctls) == 0 {
		e.Sysctls = nil
	}
	if e.PIDMode != "host" {
		e.PIDMode = ""
	}
	if e.IPCMode != "host" {
		e.IPCMode = ""
	}
	if e.Privileged { // it is not restricted by them, whatever it says
		e.Seccomp, e.AppArmor, e.UnmaskedPaths = "", "", false
	}
	return e
}

func sorted(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return slices.Compact(list[:len(list):len(list)])
}

func capabilities(list []string) []string {
	names := make([]string, 0, len(list))
	for _, name := range list {
		names = append(names, strings.TrimPrefix(strings.ToUpper(name), "CAP_"))
	}
	return sorted(names)
}

// promise is what a spec of the API says that there is.
func promise(spec *corev1.PodSpec, swarm bool) essence {
	decoded, _ := podspec.Decode(spec, nil, podspec.Target{Swarm: swarm}) // what could not be made is not what there is
	return essenceOf(&decoded.Container)
}

// keeps tells whether a container is what was promised.
func (e essence) keeps(c *neutral.Container, swarm bool) bool {
	live := essenceOf(c)
	if !swarm && e.user == "" {
		live.user = ""
	}
	return reflect.DeepEqual(e, live)
}

// asItIs is a spec for a container that is not what was written. It is still called as its client calls it.
func asItIs(written *corev1.PodSpec, c *neutral.Container) corev1.PodSpec {
	spec := podspec.Encode(*c)
	spec.Containers[0].Name = written.Containers[0].Name
	return spec
}
