package kubernetes

import (
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// networks are the two that every cluster has: the Pods' own, which docker's callers know as their bridge, and the
// nodes'. Docker's "none" is not among them, for no Pod is without a network. They have no ids here: a dialect whose
// callers want one derives it from the name.
func networks() []neutral.Network {
	return []neutral.Network{
		{Name: "bridge", Driver: "bridge", Scope: "local"},
		{Name: "host", Driver: "host", Scope: "local"},
	}
}

func networkObject(n *neutral.Network) neutral.Object {
	return neutral.Object{Kind: neutral.KindNetwork, Name: n.Name, Labels: n.Labels}
}

func (a *action) planNetworkList() (dialect.Plan, error) {
	filter := a.op.Filter
	result := neutral.Result{Networks: []neutral.Network{}}
	for _, n := range networks() {
		if oneOf(filter.Names, func(name string) bool { return strings.Contains(n.Name, name) }) &&
			matchLabels(filter.Labels, n.Labels) && a.permit(networkObject(&n)) == nil {
			result.Networks = append(result.Networks, n)
		}
	}
	return dialect.Plan{Answer: &result}, nil
}

func (a *action) planNetworkInspect() (dialect.Plan, error) {
	all := networks()
	i := slices.IndexFunc(all, func(n neutral.Network) bool { return n.Name == a.op.Ref })
	if i < 0 {
		return dialect.Plan{}, fault.New(fault.NotFound, "network %s not found", a.op.Ref)
	}
	if err := a.permit(networkObject(&all[i])); err != nil {
		return dialect.Plan{}, err
	}
	return dialect.Plan{Answer: &neutral.Result{Network: &all[i]}}, nil
}
