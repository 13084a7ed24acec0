package proxy

import (
	"cmp"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// Lister is a Locator that tells all containers of a namespace, or of all.
type Lister interface {
	Targets(ctx context.Context, namespace string) ([]neutral.Target, error)
}

// HostPage is how many containers one answer holds at most.
const HostPage = 500

// The query of a request for the list.
const (
	QueryNamespace = "namespace" // the only one that is listed
	QueryAfter     = "after"     // HostList.Next of the answer before
)

// HostList is the answer to a GET of the name under which containers have theirs: which host runs each of them.
type HostList struct {
	Cluster    string      `json:"cluster"`
	Containers []Placement `json:"containers"`     // in the order of their names
	Next       string      `json:"next,omitempty"` // there are more, which begin after this one
}

// Placement is where one container is.
type Placement struct {
	Namespace string `json:"namespace"`
	Pod       string `json:"pod,omitempty"`
	Container string `json:"container"`
	Host      string `json:"host,omitempty"`
	// NetworkMode is "container:<name>" for one in another's network, "container" where the other one is not in the list.
	NetworkMode string `json:"networkMode"`
	Running     bool   `json:"running"`
}

// Key is what the list is ordered by, and HostList.Next.
func (p Placement) Key() string { return p.Namespace + "/" + p.Pod + "/" + p.Container }

// asksHosts tells whether a request is for the list of hosts: its authority names no container.
func (m *Module) asksHosts(authority string) bool {
	host := authority
	if h, _, err := net.SplitHostPort(authority); err == nil {
		host = h
	}
	return strings.EqualFold(strings.TrimSuffix(host, "."), names.AccessZone(m.config.Cluster, m.config.Suffix))
}

// hosts answers with the containers that the caller may list, or reach.
func (m *Module) hosts(ctx context.Context, req *modules.Request) (modules.Verdict, error) {
	verdict := modules.Verdict{Record: modules.Record{Verb: neutral.List, Object: neutral.Object{Kind: neutral.KindContainer}}}
	query, err := hostQuery(req)
	if err != nil {
		return verdict, err
	}
	verdict.Record.Object.Namespace = query.Get(QueryNamespace)
	if req.Peer.Name == "" {
		return verdict, m.stranger()
	}
	subject, policy := req.Subject(), m.config.Policy()
	foreseen := m.foreseeList(subject, verdict.Record.Object)
	if !foreseen.Allowed && !foreseen.Open {
		return verdict, foreseen.Err()
	}
	verdict.Record.Rule = foreseen.Rule
	lister, ok := m.config.Locator.(Lister)
	if !ok {
		return verdict, fault.New(fault.Unsupported, "the orchestrator of %s does not list its containers", m.config.Cluster)
	}
	targets, err := lister.Targets(ctx, verdict.Record.Object.Namespace)
	if err != nil {
		return verdict, err
	}
	shown := Placements(targets, func(t *neutral.Target) bool {
		judgement := policy.Judge(subject, neutral.List, t.Object)
		if !judgement.Allowed {
			judgement = policy.Judge(subject, neutral.Access, t.Object)
		}
		if judgement.Allowed {
			verdict.Record.Rule = cmp.Or(verdict.Record.Rule, judgement.Rule)
			if !judgement.ShowAddresses {
				t.Node = m.hostName(t.Node)
			}
		}
		return judgement.Allowed
	})
	list := HostList{Cluster: m.config.Cluster, Containers: after(shown, query.Get(QueryAfter))}
	if len(list.Containers) > HostPage {
		list.Containers = list.Containers[:HostPage]
		list.Next = list.Containers[HostPage-1].Key()
	}
	body, err := json.Marshal(list)
	if err != nil {
		return verdict, fault.Wrap(fault.Internal, err, "the list of hosts cannot be written")
	}
	verdict.Answer = &modules.Answer{Status: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: append(body, '\n')}
	return verdict, nil
}

// hostQuery reads what is asked of the list.
func hostQuery(req *modules.Request) (url.Values, error) {
	target, err := url.ParseRequestURI(req.Path)
	if err != nil || req.Method != http.MethodGet {
		return nil, fault.New(fault.Invalid, "%s names no container; what it has is the list of hosts, which is read by GET /", req.Authority)
	}
	if target.Path != "/" {
		return nil, fault.New(fault.NotFound, "the list of hosts is at /, not at %s", target.Path)
	}
	query, err := url.ParseQuery(target.RawQuery)
	if err != nil {
		return nil, fault.New(fault.Invalid, "the query cannot be read: %v", err)
	}
	for key := range query {
		if key != QueryNamespace && key != QueryAfter {
			return nil, fault.New(fault.Invalid, "the list of hosts knows no %q in its query, but %s and %s", key, QueryNamespace, QueryAfter)
		}
	}
	return query, nil
}

// foreseeList denies whom no rule allows any container of the list, by either verb.
func (m *Module) foreseeList(subject modules.Subject, object neutral.Object) modules.Judgement {
	objects := []neutral.Object{object}
	if m.config.Pods { // where rules may be for them by their native resource
		object.Resource = "core/pods"
		objects = append(objects, object)
	}
	policy := m.config.Policy()
	var denial modules.Judgement
	for i, o := range objects {
		for _, verb := range [...]neutral.Verb{neutral.List, neutral.Access} {
			switch j := policy.Foresee(subject, verb, o); {
			case j.Allowed || j.Open:
				return j
			case i == 0 && verb == neutral.List:
				denial = j
			}
		}
	}
	return denial
}

// stranger refuses a caller whose gateway is not known.
func (m *Module) stranger() error {
	return fault.New(fault.Denied, "no permission: the caller's gateway is not a peer of %s", m.config.Cluster)
}

// Placements are where containers are, in the order of their names: those that are kept, of which keep may change what is
// told.
func Placements(targets []neutral.Target, keep func(*neutral.Target) bool) []Placement {
	placed := make([]Placement, 0, len(targets))
	byID := map[string]string{} // names of containers
	for _, t := range targets {
		if !keep(&t) {
			continue
		}
		p := Placement{Namespace: t.Object.Namespace, Container: t.Object.Name, Host: t.Node, NetworkMode: string(t.Network), Running: t.Running}
		if t.Container != "" {
			p.Pod, p.Container = t.Object.Name, t.Container
		}
		if c := t.Object.Container; c != nil && c.ID != "" {
			byID[c.ID] = p.Container
		}
		placed = append(placed, p)
	}
	for i := range placed {
		other, shared := strings.CutPrefix(placed[i].NetworkMode, "container:")
		switch name := byID[other]; {
		case shared && name == "":
			placed[i].NetworkMode = "container"
		case shared:
			placed[i].NetworkMode = "container:" + name
		}
	}
	slices.SortFunc(placed, func(a, b Placement) int { return strings.Compare(a.Key(), b.Key()) })
	return placed
}

// after are those that come after the one of a key.
func after(placed []Placement, key string) []Placement {
	i, found := slices.BinarySearchFunc(placed, key, func(p Placement, key string) int { return strings.Compare(p.Key(), key) })
	if found {
		i++
	}
	return placed[i:]
}

// find finds a target. Its host may be named as the list tells it. That it is on another one, which is an error by itself, is
// for those who may know of the target.
func (m *Module) find(ctx context.Context, ref neutral.TargetRef) (target neutral.Target, elsewhere, err error) {
	target, err = m.config.Locator.Locate(ctx, ref)
	if ref.Node == "" || !fault.Is(err, fault.Conflict) {
		return target, nil, err
	}
	given, conflict := ref.Node, err
	ref.Node = ""
	if target, err = m.config.Locator.Locate(ctx, ref); err != nil {
		return target, nil, err
	}
	if tellsAddress(target.Node) && m.hostName(target.Node) == given {
		return target, nil, nil
	}
	return target, conflict, nil
}

// hostName is a host's name for a peer that may not know addresses: one that holds an address has a stand-in.
func (m *Module) hostName(name string) string {
	switch {
	case !tellsAddress(name):
		return name
	case m.config.StandIn == nil:
		return ""
	}
	return m.config.StandIn(name)
}

var (
	numbersOfAddress = regexp.MustCompile(`(?:^|[^0-9])(?:[0-9]{1,3}[-._]){3}[0-9]{1,3}(?:[^0-9]|$)`)
	digitsOfAddress  = regexp.MustCompile(`(?i)(?:^|[^0-9a-z])ip-?[0-9a-f]{8}(?:[^0-9a-z]|$)`)
)

// tellsAddress tells whether the name of a host holds an address, as those that clouds give do: 10.0.0.3, ip-10-0-0-3,
// ip-0a000003, fd00--3. A name that only looks so has a stand-in as well.
func tellsAddress(name string) bool {
	if strings.Contains(name, ":") || numbersOfAddress.MatchString(name) || digitsOfAddress.MatchString(name) {
		return true
	}
	label, _, _ := strings.Cut(name, ".")
	for {
		if _, err := netip.ParseAddr(strings.ReplaceAll(label, "-", ":")); err == nil {
			return true
		}
		_, rest, more := strings.Cut(label, "-")
		if !more {
			return false
		}
		label = rest
	}
}
