package orchestration

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// Config is what a Module needs. All fields are required.
type Config struct {
	Cluster, Suffix string
	Catalogue       *Catalogue
	Policy          func() modules.Policy
	// ByCaller tells whether it depends on the caller whether a peer may query a service; then no route decides it.
	ByCaller func(peer string, service neutral.Service) bool
}

// Module answers the queries that no route leads anywhere, and decides those that depend on the caller.
type Module struct{ config Config }

var _ modules.Module = (*Module)(nil)

// New makes the module.
func New(config Config) *Module { return &Module{config: config} }

// Class is service queries.
func (m *Module) Class() modules.Class { return modules.ServiceQuery }

// Decide lets through what some callers of the peer may query, and refuses all else: it is unknown, not exported,
// forbidden, or so new that its route is on its way.
func (m *Module) Decide(_ context.Context, req *modules.Request) (modules.Verdict, error) {
	name, namespace, port, err := m.parse(req.Authority)
	record := modules.Record{Verb: neutral.Query, Object: neutral.Object{Kind: neutral.KindService, Namespace: namespace, Name: name}}
	verdict := modules.Verdict{Record: record}
	if err != nil {
		return verdict, err
	}
	if req.Peer.Name == "" {
		return verdict, fault.New(fault.Denied, "no permission: the caller's gateway is not a peer of %s", m.config.Cluster)
	}
	snapshot := m.config.Catalogue.Snapshot()
	service, known := snapshot.Find(name + "." + namespace)
	subject, policy := req.Subject(), m.config.Policy()
	absent := fault.New(fault.NotFound, "service %s.%s is not in the catalogue of %s, or not exported to %s", name, namespace,
		m.config.Cluster, req.Peer.Name)
	if !known {
		if !snapshot.Synced {
			return verdict, fault.New(fault.Unavailable, "the catalogue of %s is not complete yet; try again shortly", m.config.Cluster)
		}
		return verdict, absent
	}
	object := record.Object
	object.Labels = service.Labels
	judgement := policy.Judge(subject, neutral.Query, object)
	if !judgement.Allowed {
		if policy.MayKnow(subject, object) {
			return verdict, judgement.Err()
		}
		return verdict, absent
	}
	if _, ok := portOf(service, port); port != "" && !ok {
		return verdict, fault.New(fault.NotFound, "service %s.%s has no port %s", name, namespace, port)
	}
	if p, ok := portOf(service, port); ok {
		switch raw := req.Method == http.MethodConnect; {
		case (p.App == neutral.TCP) == raw && m.config.ByCaller(req.Peer.Name, service):
			verdict.Route = &modules.Route{Upstream: names.ServiceCluster(service.Namespace, service.Name, strconv.Itoa(int(p.Number)))}
			verdict.Record.Rule, verdict.Record.Upstream = judgement.Rule, verdict.Route.Upstream
			return verdict, nil
		case p.App == neutral.TCP && !raw:
			return verdict, fault.New(fault.Unprocessable, "port %d of service %s.%s speaks raw TCP, not HTTP: it is reached by "+
				"CONNECT", p.Number, name, namespace)
		case p.App != neutral.TCP && raw:
			// A tunnel would carry past what gateways take out of requests.
			return verdict, fault.New(fault.Unprocessable, "port %d of service %s.%s speaks HTTP: it is asked for without CONNECT",
				p.Number, name, namespace)
		}
	}
	return verdict, fault.New(fault.Unavailable, "service %s.%s has just changed and its route is not ready; try again shortly",
		name, namespace)
}

// Refuse answers in JSON.
func (m *Module) Refuse(_ *modules.Request, err error) modules.Answer { return modules.Refusal(err) }

// portOf finds a service's port by number; a name without a port is the first one's.
func portOf(service neutral.Service, port string) (neutral.ServicePort, bool) {
	for _, p := range service.Ports {
		if port == "" || strconv.Itoa(int(p.Number)) == port {
			return p, true
		}
	}
	return neutral.ServicePort{}, false
}

// parse reads <service>.<namespace>.svc.<cluster>.<suffix>[:port].
func (m *Module) parse(authority string) (name, namespace, port string, err error) {
	host := strings.ToLower(authority)
	if strings.Contains(host, ":") {
		if host, port, err = net.SplitHostPort(host); err != nil {
			return "", "", "", fault.New(fault.Invalid, "%q is not a name and a port", authority)
		}
	}
	zone := "." + names.ServiceLabel + "." + m.config.Cluster + "." + m.config.Suffix
	rest, ok := strings.CutSuffix(strings.TrimSuffix(host, "."), strings.ToLower(zone))
	name, namespace, two := strings.Cut(rest, ".")
	if !ok || !two || name == "" || namespace == "" || strings.Contains(namespace, ".") {
		return "", "", "", fault.New(fault.NotFound, "%q is not a service's name here; the form is <service>.<namespace>%s", host, zone)
	}
	return name, namespace, port, nil
}
