package extproc

import (
	"net"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// Zone is the part of the name space that this gateway answers for: everything under <cluster>.<suffix>.
type Zone struct{ dotted, suffix string }

// NewZone makes the zone of a cluster.
func NewZone(cluster, suffix string) Zone {
	suffix = "." + strings.ToLower(suffix)
	return Zone{dotted: "." + strings.ToLower(cluster) + suffix, suffix: suffix}
}

// Classify tells from the authority alone which kind of request it is. A name outside the zone is Unknown.
func (z Zone) Classify(authority string) modules.Class {
	rest, ok := under(authority, z.dotted)
	if !ok {
		return modules.Unknown
	}
	return classOf(rest)
}

// ClassifyEdge tells which kind of request a caller of this cluster makes by one of its edges, and to which peer. The
// edge of an API leads there whatever the authority.
func (z Zone) ClassifyEdge(edge, authority string) (class modules.Class, peer string) {
	if peer, ok := names.APIEdgePeer(edge); ok {
		return modules.ContainerOperation, peer
	}
	rest, ok := under(authority, z.suffix)
	if !ok {
		return modules.Unknown, ""
	}
	dot := strings.LastIndexByte(rest, '.')
	if dot < 0 {
		return modules.Unknown, ""
	}
	return classOf(rest[:dot]), rest[dot+1:]
}

// classOf classifies what stands before a cluster's name.
func classOf(rest string) modules.Class {
	switch rest {
	case names.APILabel:
		return modules.ContainerOperation
	case names.AccessLabel: // the list of hosts
		return modules.ContainerAccess
	}
	switch last := rest[strings.LastIndexByte(rest, '.')+1:]; {
	case last == names.ServiceLabel && len(rest) > len(names.ServiceLabel):
		return modules.ServiceQuery
	case last == names.AccessLabel:
		return modules.ContainerAccess
	}
	return modules.Unknown
}

// under strips port and zone from an authority: "web.shop.svc.east.isthmus.internal:80" gives "web.shop.svc".
func under(authority, zone string) (string, bool) {
	host := strings.ToLower(authority)
	if strings.IndexByte(host, ':') >= 0 {
		h, _, err := net.SplitHostPort(host)
		if err != nil {
			return "", false
		}
		host = h
	}
	host = strings.TrimSuffix(host, ".")
	rest, ok := strings.CutSuffix(host, zone)
	return rest, ok && rest != "" && !strings.Contains(rest, "..") && rest[0] != '.'
}
