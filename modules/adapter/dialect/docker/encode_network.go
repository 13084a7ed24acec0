package docker

import (
	"slices"
	"strings"

	"github.com/moby/moby/api/types/network"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// predefined are the networks that every engine has; they stand for the network modes.
var predefined = []neutral.Network{
	{Name: "bridge", Driver: "bridge", Scope: "local"},
	{Name: "host", Driver: "host", Scope: "local"},
	{Name: "none", Driver: "null", Scope: "local"},
}

// networkID derives a network's id from its name. No other place makes ids of networks: what lists, inspects and names
// one must agree.
func networkID(name string) string { return stableID("network", name) }

// predefinedNetwork gives the mode that a predefined network, by name or id, stands for.
func predefinedNetwork(ref string) (neutral.NetworkMode, bool) {
	for _, n := range predefined {
		if ref == n.Name || ref == networkID(n.Name) {
			return neutral.NetworkMode(n.Name), true
		}
	}
	return "", false
}

// shortID is how much of an id a list shows, and a caller copies.
const shortID = 12

// findPredefined finds a predefined network as a caller names it: by name, id or the beginning of the id.
func findPredefined(ref string) (*neutral.Network, bool) {
	for i := range predefined {
		id := networkID(predefined[i].Name)
		if ref == predefined[i].Name || len(ref) >= shortID && strings.HasPrefix(id, ref) {
			return &predefined[i], true
		}
	}
	return nil, false
}

// networksToDocker renders GET /networks: the predefined ones and those of the target, filtered.
func networksToDocker(q *query, networks []neutral.Network) []any {
	set, err := parseFilters(q.text("filters"))
	if err != nil {
		set = filters{} // Decode refused it
	}
	all := slices.Clone(networks)
	for _, p := range predefined {
		if !slices.ContainsFunc(all, func(n neutral.Network) bool { return n.Name == p.Name }) {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b neutral.Network) int { return strings.Compare(a.Name, b.Name) })
	list := make([]any, 0, len(all))
	for i := range all {
		if networkMatches(set, &all[i]) {
			list = append(list, networkToDocker(&all[i]))
		}
	}
	return list
}

func networkMatches(set filters, n *neutral.Network) bool {
	among := func(key, value string) bool { return len(set[key]) == 0 || slices.Contains(set[key], value) }
	contained := func(key, value string) bool {
		return len(set[key]) == 0 || slices.ContainsFunc(set[key], func(w string) bool { return strings.Contains(value, w) })
	}
	kind := "custom"
	if _, ok := predefinedNetwork(n.Name); ok {
		kind = "builtin"
	}
	return among("driver", n.Driver) && among("scope", n.Scope) && among("type", kind) && contained("name", n.Name) &&
		anyPrefix(set["id"], idOfNetwork(n)) && labelsMatch(set["label"], n.Labels) && len(set["dangling"]) == 0
}

func idOfNetwork(n *neutral.Network) string {
	if n.ID != "" {
		return n.ID
	}
	return networkID(n.Name)
}

// networkToDocker renders a network without its addresses.
func networkToDocker(n *neutral.Network) any {
	members := make(map[string]network.EndpointResource, len(n.Members))
	for _, m := range n.Members {
		members[m.ID] = network.EndpointResource{Name: m.Name}
	}
	return network.Inspect{
		Network: network.Network{
			Name: n.Name, ID: idOfNetwork(n), Created: n.Created.UTC(), Scope: n.Scope, Driver: n.Driver, EnableIPv4: true,
			IPAM: network.IPAM{Driver: "default", Config: []network.IPAMConfig{}}, Internal: n.Internal,
			Options: map[string]string{}, Labels: labelled(n.Labels),
		},
		Containers: members,
	}
}
