package orchestration

import (
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func web(endpoints ...string) neutral.Service {
	s := neutral.Service{Namespace: "shop", Name: "web", Ports: []neutral.ServicePort{{Number: 80, Protocol: "tcp", App: neutral.HTTP1}}}
	for _, e := range endpoints {
		s.Ports[0].Endpoints = append(s.Ports[0].Endpoints, netip.MustParseAddrPort(e))
	}
	return s
}

func TestCatalogueChanges(t *testing.T) {
	t.Parallel()
	c := NewCatalogue()
	before, changed := c.Changed()
	if before.Synced || len(before.Services) != 0 {
		t.Fatalf("a new catalogue: %+v", before)
	}
	c.Publish(nil) // nothing exported is news as well: now it is known
	select {
	case <-changed:
	default:
		t.Fatal("the first publication tells nobody")
	}
	steps := []struct {
		services []neutral.Service
		news     bool
	}{
		{[]neutral.Service{web("10.0.0.1:80")}, true},
		{[]neutral.Service{web("10.0.0.1:80")}, false},
		{[]neutral.Service{web("10.0.0.1:80", "10.0.0.2:80")}, true},
		{[]neutral.Service{web()}, true},
		{nil, true},
	}
	for i, s := range steps {
		_, changed := c.Changed()
		version := c.Snapshot().Version
		c.Publish(s.services)
		news := false
		select {
		case <-changed:
			news = true
		default:
		}
		if news != s.news || (c.Snapshot().Version != version) != s.news {
			t.Errorf("step %d: news %t, version %d after %d", i, news, c.Snapshot().Version, version)
		}
	}
	if _, ok := c.Snapshot().Find("web.shop"); ok {
		t.Error("a service that is gone is found")
	}
}

func TestCatalogueIsSafe(t *testing.T) {
	t.Parallel()
	c := NewCatalogue()
	var wait sync.WaitGroup
	for i := range 4 {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for range 100 {
				if i%2 == 0 {
					c.Publish([]neutral.Service{web("10.0.0.1:80")})
					c.Publish(nil)
				} else if s, ok := c.Snapshot().Find("web.shop"); ok && s.Name != "web" {
					t.Error("found another service")
				}
			}
		}()
	}
	wait.Wait()
}

// fakePolicy lets west query and know, north know, others nothing.
type fakePolicy struct{}

func (fakePolicy) Judge(s modules.Subject, _ neutral.Verb, _ neutral.Object) modules.Judgement {
	return modules.Judgement{Allowed: s.Peer == "west", Reason: "you may not"}
}
func (fakePolicy) Foresee(modules.Subject, neutral.Verb, neutral.Object) modules.Judgement {
	return modules.Judgement{Open: true}
}
func (fakePolicy) MayKnow(s modules.Subject, _ neutral.Object) bool { return s.Peer != "stranger" }

// routed is a policy that looks at no caller.
func routed(string, neutral.Service) bool { return false }

// TestByCaller lets through what the route of a peer cannot decide.
func TestByCaller(t *testing.T) {
	t.Parallel()
	catalogue := NewCatalogue()
	s := web("10.0.0.1:80")
	s.Ports = append(s.Ports, neutral.ServicePort{Number: 5432, Protocol: "tcp", App: neutral.TCP})
	catalogue.Publish([]neutral.Service{s})
	m := New(Config{Cluster: "east", Suffix: "isthmus.internal", Catalogue: catalogue, Policy: func() modules.Policy { return fakePolicy{} },
		ByCaller: func(peer string, s neutral.Service) bool { return peer != "south" && s.Name == "web" }})
	for _, c := range []struct{ peer, method, port, upstream string }{
		{"west", "GET", "", "service/shop/web/80"}, {"west", "GET", ":80", "service/shop/web/80"},
		{"west", "CONNECT", ":5432", "service/shop/web/5432"}, {"west", "GET", ":5432", ""}, {"west", "CONNECT", ":80", ""},
		{"north", "GET", "", ""}, {"south", "GET", "", ""},
	} {
		verdict, err := m.Decide(t.Context(), &modules.Request{Method: c.method, Authority: "web.shop.svc.east.isthmus.internal" + c.port, Peer: modules.Peer{Name: c.peer}})
		if c.upstream == "" {
			if err == nil || verdict.Route != nil {
				t.Errorf("%v: %+v", c, verdict.Route)
			}
			continue
		}
		if err != nil || verdict.Route == nil || verdict.Route.Upstream != c.upstream || verdict.Record.Upstream != c.upstream {
			t.Errorf("%v: %+v, %v", c, verdict, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	full, empty := NewCatalogue(), NewCatalogue()
	full.Publish([]neutral.Service{web("10.0.0.1:80")})
	raw := NewCatalogue()
	raw.Publish([]neutral.Service{{Name: "db", Namespace: "shop", Ports: []neutral.ServicePort{{Number: 5432, App: neutral.TCP}}}})
	for name, test := range map[string]struct {
		catalogue       *Catalogue
		peer, authority string
		kind            fault.Kind
		message         string
		method          string
	}{
		"unknown":          {full, "west", "nothing.shop.svc.east.isthmus.internal", fault.NotFound, "not in the catalogue", http.MethodGet},
		"not synced":       {empty, "west", "web.shop.svc.east.isthmus.internal", fault.Unavailable, "not complete", http.MethodGet},
		"forbidden, known": {full, "north", "web.shop.svc.east.isthmus.internal", fault.Denied, "no permission", http.MethodGet},
		"forbidden":        {full, "stranger", "web.shop.svc.east.isthmus.internal", fault.NotFound, "not in the catalogue", http.MethodGet},
		"no such port":     {full, "west", "web.shop.svc.east.isthmus.internal:81", fault.NotFound, "no port 81", http.MethodGet},
		"just changed":     {full, "west", "web.shop.svc.east.isthmus.internal:80", fault.Unavailable, "try again", http.MethodGet},
		"CONNECT to HTTP":  {full, "west", "web.shop.svc.east.isthmus.internal:80", fault.Unprocessable, "without CONNECT", http.MethodConnect},
		"HTTP to TCP":      {raw, "west", "db.shop.svc.east.isthmus.internal", fault.Unprocessable, "by CONNECT", http.MethodGet},
		"TCP just changed": {raw, "west", "db.shop.svc.east.isthmus.internal", fault.Unavailable, "try again", http.MethodConnect},
		"no peer":          {full, "", "web.shop.svc.east.isthmus.internal", fault.Denied, "not a peer", http.MethodGet},
		"no namespace":     {full, "west", "web.svc.east.isthmus.internal", fault.NotFound, "the form is", http.MethodGet},
		"too many labels":  {full, "west", "a.web.shop.svc.east.isthmus.internal", fault.NotFound, "the form is", http.MethodGet},
	} {
		m := New(Config{Cluster: "east", Suffix: "isthmus.internal", Catalogue: test.catalogue, Policy: func() modules.Policy { return fakePolicy{} }, ByCaller: routed})
		_, err := m.Decide(t.Context(), &modules.Request{Method: test.method, Authority: test.authority, Peer: modules.Peer{Name: test.peer}})
		f := fault.Of(err)
		if f == nil || f.Kind != test.kind || !strings.Contains(f.Message, test.message) {
			t.Errorf("%s: %v, want %s %q", name, err, test.kind, test.message)
		}
	}
	// To a stranger a forbidden service reads exactly as an unknown one.
	m := New(Config{Cluster: "east", Suffix: "isthmus.internal", Catalogue: full, Policy: func() modules.Policy { return fakePolicy{} }, ByCaller: routed})
	text := func(service string) string {
		_, err := m.Decide(t.Context(), &modules.Request{Authority: service + ".shop.svc.east.isthmus.internal", Peer: modules.Peer{Name: "stranger"}})
		return strings.ReplaceAll(fault.Of(err).Message, service, "X")
	}
	if a, b := text("web"), text("nothing"); a != b {
		t.Errorf("a forbidden service (%s) differs from an unknown one (%s)", a, b)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("web.shop.svc.east.isthmus.internal:80")
	m := New(Config{Cluster: "east", Suffix: "isthmus.internal"})
	f.Fuzz(func(t *testing.T, authority string) {
		name, namespace, _, err := m.parse(authority)
		if err == nil && (name == "" || namespace == "" || strings.ContainsAny(name+namespace, ".")) {
			t.Errorf("%q read as %q %q", authority, name, namespace)
		}
	})
}
