package docker

import (
	"slices"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

const reasonSubnet = "the target cluster gives addresses in its own way"

// networkDisposals settle POST /networks/create.
var networkDisposals = map[string]disposal{
	"Scope":           {reason: "the target's networks reach all of its nodes", plain: []string{"local", "swarm"}},
	"Attachable":      {reason: "every container may join"},
	"Ingress":         {refuse: true, reason: "an ingress network belongs to a swarm"},
	"ConfigOnly":      {refuse: true, reason: "a configuration of networks belongs to an engine"},
	"ConfigFrom":      {refuse: true, reason: "a configuration of networks belongs to an engine"},
	"EnableIPv6":      {reason: reasonSubnet},
	"IPAM":            {reason: reasonSubnet},
	"IPAM.Driver":     {reason: reasonSubnet, plain: []string{"default"}},
	"IPAM.Config[]":   {reason: reasonSubnet},
	"IPAM.Options":    {reason: reasonSubnet},
	"Options":         {reason: "they are meant for an engine's network driver"},
	"CheckDuplicate":  {reason: "two networks never have one name", plain: []string{"true"}},
	"EnableIPv4":      {reason: reasonSubnet, plain: []string{"true"}},
	"IPAM.Config":     {reason: reasonSubnet},
	"IPAM.Options.{}": {reason: reasonSubnet},
}

// memberDisposals settle connect and disconnect.
var memberDisposals = map[string]disposal{
	"EndpointConfig":            {reason: reasonEndpoint},
	"EndpointConfig.Links":      {refuse: true, reason: "links are of an engine's network; use aliases"},
	"EndpointConfig.MacAddress": {refuse: true, reason: reasonAddress},
	"EndpointConfig.IPAMConfig": {refuse: true, reason: reasonAddress},
}

// decodeNetworkCreate reads https://docs.docker.com/reference/api/engine/version/v1.49/#tag/Network/operation/NetworkCreate.
func decodeNetworkCreate(op *neutral.Operation, t *tree) ([]neutral.Loss, error) {
	n := &neutral.Network{
		Name:     t.get("Name").str(),
		Driver:   t.get("Driver").str(),
		Internal: t.get("Internal").boolean(),
		Labels:   callerLabels(t.get("Labels").strMap()),
	}
	t.get("IPAM").get("Driver") // so that its parts are settled one by one
	losses, err := settle(t, networkDisposals, string(op.Action))
	if err != nil {
		return nil, err
	}
	if !validName(n.Name) {
		return nil, &fault.Error{Kind: fault.Invalid, Field: "Name", Message: "invalid network name: " + shorten(n.Name)}
	}
	if _, ok := predefinedNetwork(n.Name); ok {
		return nil, fault.New(fault.Conflict, "operation is not permitted on predefined %s network", n.Name)
	}
	switch n.Driver {
	case "", "bridge":
		n.Driver, n.Scope = "bridge", "local"
	case "overlay":
		n.Scope = "swarm"
	default:
		return nil, &fault.Error{Kind: fault.Unsupported, Field: "Driver", Message: "Driver: the network driver \"" + shorten(n.Driver) +
			"\" is an engine's; bridge and overlay stand for networks of the target"}
	}
	op.Network, op.Ref = n, n.Name
	op.Object.Name, op.Object.Labels = n.Name, n.Labels
	return losses, nil
}

// decodeNetworkMember reads connect and disconnect.
func decodeNetworkMember(op *neutral.Operation, t *tree) ([]neutral.Loss, error) {
	m := &neutral.NetworkMember{Name: t.get("Container").str()}
	if op.Action == neutral.NetworkJoin {
		endpoint := t.get("EndpointConfig")
		m.Aliases = endpoint.get("Aliases").strs()
		endpoint.get("NetworkID").understood()
	} else {
		m.Force = t.get("Force").boolean()
	}
	losses, err := settle(t, memberDisposals, string(op.Action))
	if err != nil {
		return nil, err
	}
	if m.Name == "" {
		return nil, &fault.Error{Kind: fault.Invalid, Field: "Container", Message: "no container is named"}
	}
	slices.Sort(m.Aliases)
	op.Member = m
	return losses, nil
}
