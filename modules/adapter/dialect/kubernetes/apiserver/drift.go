package apiserver

import (
	"reflect"
	"slices"
	"strconv"
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

// keepsAll tells whether a Pod's container, or its holder and each of several, is what its document promised. What is in the
// holder's namespaces and in no document is shown, and so is the rest then.
func keepsAll(spec *corev1.PodSpec, c *neutral.Container) bool {
	decoded, _ := podspec.Decode(spec, nil, podspec.Target{})
	promised := decoded.Whole()
	if !essenceOf(&promised).keeps(c, false) {
		return false
	}
	left := map[string]*neutral.Container{}
	for i := range promised.Members {
		left[promised.Members[i].Name] = &promised.Members[i]
	}
	for i := range c.Members {
		m := &c.Members[i]
		if left[m.Name] == nil || !essenceOf(left[m.Name]).keeps(m, false) {
			return false
		}
		delete(left, m.Name) // there is one of a name
	}
	return true
}

// asItIs is a spec for a container that is not what was written. It is still called as its client calls it.
func asItIs(written *corev1.PodSpec, c *neutral.Container) corev1.PodSpec {
	spec := shownSpec(c)
	if len(c.Members) == 0 {
		spec.Containers[0].Name = written.Containers[0].Name
	}
	return spec
}

// shownSpec is the spec of a container that has no document, or of several.
func shownSpec(c *neutral.Container) corev1.PodSpec {
	spec := podspec.Encode(*c)
	if len(c.Members) == 0 {
		return spec
	}
	spec.Containers, spec.Volumes = nil, nil // a holder runs nothing
	for i := range c.Members {
		of := podspec.Encode(c.Members[i])
		m, own := of.Containers[0], func(volume string) string { return strconv.Itoa(i) + "-" + volume }
		m.Name = c.Members[i].Name
		for j := range m.VolumeMounts {
			m.VolumeMounts[j].Name = own(m.VolumeMounts[j].Name)
		}
		for _, v := range of.Volumes {
			v.Name = own(v.Name)
			spec.Volumes = append(spec.Volumes, v)
		}
		spec.Containers = append(spec.Containers, m)
		spec.HostNetwork, spec.HostPID, spec.HostIPC = spec.HostNetwork || of.HostNetwork, spec.HostPID || of.HostPID, spec.HostIPC || of.HostIPC
		if of.SecurityContext != nil {
			spec.SecurityContext.Sysctls = append(spec.SecurityContext.Sysctls, of.SecurityContext.Sysctls...)
		}
	}
	return spec
}
