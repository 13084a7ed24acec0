package resource

import (
	"strconv"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// Endpoints are what serves one port of a service now.
func Endpoints(s neutral.Service, port neutral.ServicePort) *endpointv3.ClusterLoadAssignment {
	addresses := make([]string, len(port.Endpoints))
	for i, e := range port.Endpoints {
		addresses[i] = e.String()
	}
	return assignment(serviceCluster(s, port), addresses)
}

func serviceCluster(s neutral.Service, port neutral.ServicePort) string {
	return names.ServiceCluster(s.Namespace, s.Name, strconv.Itoa(int(port.Number)))
}

func assignment(cluster string, addresses []string) *endpointv3.ClusterLoadAssignment {
	endpoints := make([]*endpointv3.LbEndpoint, len(addresses))
	for i, a := range addresses {
		at := address(a)
		if pipe := at.GetPipe(); pipe != nil {
			pipe.Mode = 0 // of listeners only
		}
		endpoints[i] = &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
			Endpoint: &endpointv3.Endpoint{Address: at},
		}}
	}
	return &endpointv3.ClusterLoadAssignment{
		ClusterName: cluster, Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: endpoints}},
	}
}
