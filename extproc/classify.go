package extproc

import (
	"net"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// Zone is the part of the name space that this gateway answers for: everything under <cluster>.<suffix>.
type Zone struct{ dotted string }

// NewZone makes the zone of a cluster.
func NewZone(cluster, suffix string) Zone {
	return Zone{dotted: "." + strings.ToLower(cluster) + "." + strings.ToLower(suffix)}
}

// Classify tells from the authority alone which kind of request it is. A name outside the zone is Unknown.
func (z Zone) Classify(authority string) modules.Class {
	rest, ok := z.under(authority)
	if !ok {
		return modules.Unknown
	}
	if rest == names.APILabel {
		return modules.ContainerOperation
	}
	switch last := rest[strings.LastIndexByte(rest, '.')+1:]; {
	case last == names.ServiceLabel && len(rest) > len(names.ServiceLabel):
		return modules.ServiceQuery
	case last == names.AccessLabel && len(rest) > len(names.AccessLabel):
		return modules.ContainerAccess
	}
	return modules.Unknown
}

// under strips port and zone from an authority: "web.shop.svc.east.isthmus.internal:80" gives "web.shop.svc".
func (z Zone) under(authority string) (string, bool) {
	host := strings.ToLower(authority)
	if strings.IndexByte(host, ':') >= 0 {
		h, _, err := net.SplitHostPort(host)
		if err != nil {
			return "", false
		}
		host = h
	}
	host = strings.TrimSuffix(host, ".")
	rest, ok := strings.CutSuffix(host, z.dotted)
	return rest, ok && rest != "" && !strings.Contains(rest, "..") && rest[0] != '.'
}
