package proxy

import (
	"net"
	"strconv"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// defaultPort is the port of an HTTP request whose authority names none.
const defaultPort = 80

// parse reads <container>.<namespace>.ctr.<cluster>.<suffix>[:port]. With pods the container is a pod or
// <container>.<pod>; without, whatever stands before the namespace is the container's name, dots included.
func (m *Module) parse(authority string) (neutral.TargetRef, error) {
	host, port := authority, uint64(defaultPort)
	if strings.Contains(authority, ":") {
		h, p, err := net.SplitHostPort(authority)
		if err != nil {
			return neutral.TargetRef{}, fault.New(fault.Invalid, "%q is not a name and a port", authority)
		}
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return neutral.TargetRef{}, fault.New(fault.Invalid, "port %q is not a number between 1 and 65535", p)
		}
		host, port = h, n
	}
	zone := "." + names.AccessLabel + "." + m.config.Cluster + "." + m.config.Suffix
	host = strings.TrimSuffix(host, ".")
	if len(host) <= len(zone) || !strings.EqualFold(host[len(host)-len(zone):], zone) {
		return neutral.TargetRef{}, fault.New(fault.NotFound, "%q is not a container's name here; the form is "+
			"<container>.<namespace>%s:<port>", host, zone)
	}
	rest := host[:len(host)-len(zone)] // the case of a container's name counts on docker
	dot := strings.LastIndexByte(rest, '.')
	if dot <= 0 || dot == len(rest)-1 || strings.Contains(rest, "..") || rest[0] == '.' {
		return neutral.TargetRef{}, fault.New(fault.Invalid, "%q does not name a container and its namespace; the form "+
			"is <container>.<namespace>%s:<port>", host, zone)
	}
	name, ref := rest[:dot], neutral.TargetRef{Namespace: rest[dot+1:], Port: uint16(port)}
	if !m.config.Pods {
		ref.Container = name
		return ref, nil
	}
	ref.Pod = name
	if container, pod, ok := strings.Cut(name, "."); ok {
		ref.Container, ref.Pod = container, pod
	}
	return ref, nil
}
