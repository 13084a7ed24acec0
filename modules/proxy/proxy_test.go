package proxy

import (
	"context"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/load"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// fakeLocator knows a few containers.
type fakeLocator map[string]neutral.Target

func (f fakeLocator) Locate(_ context.Context, ref neutral.TargetRef) (neutral.Target, error) {
	target, ok := f[ref.Namespace+"/"+objectName(ref)]
	if !ok {
		return target, fault.New(fault.NotFound, "no container %s", objectName(ref))
	}
	target.Object = neutral.Object{Kind: neutral.KindContainer, Namespace: ref.Namespace, Name: objectName(ref), Labels: target.Object.Labels}
	return target, nil
}

// fakePolicy allows one peer everything but what is labelled secret, in the network mode that a label says.
type fakePolicy struct{}

func (fakePolicy) Judge(s modules.Subject, _ neutral.Verb, o neutral.Object) modules.Judgement {
	if s.Peer != "west" || o.Labels["secret"] != "" {
		return modules.Judgement{Reason: "it is secret"}
	}
	return modules.Judgement{Allowed: true, Rule: "west/0", Mode: neutral.NetworkMode(o.Labels["mode"])}
}
func (f fakePolicy) Foresee(s modules.Subject, _ neutral.Verb, _ neutral.Object) modules.Judgement {
	return modules.Judgement{Open: s.Peer == "west", Reason: "nothing is allowed"}
}
func (fakePolicy) MayKnow(modules.Subject, neutral.Object) bool { return false }

func module(pods bool) *Module {
	address := netip.MustParseAddr("10.9.8.7")
	return New(Config{Cluster: "east", Suffix: "isthmus.internal", Pods: pods, Policy: func() modules.Policy { return fakePolicy{} },
		Locator: fakeLocator{
			"shop/db-0":       {Network: neutral.NetworkBridge, Address: address, Running: true},
			"shop/main.web":   {Network: neutral.NetworkPod, Address: address, Running: true},
			"shop/alone":      {Network: neutral.NetworkNone, Running: true},
			"shop/gone":       {Network: neutral.NetworkBridge, Address: address},
			"shop/vault":      {Network: neutral.NetworkBridge, Address: address, Running: true, Object: neutral.Object{Labels: map[string]string{"secret": "yes"}}},
			"shop/inside":     {Network: neutral.NetworkPod, Address: address, Running: true, Object: neutral.Object{Labels: map[string]string{"mode": "bridge"}}},
			"shop/outside":    {Network: neutral.NetworkBridge, Address: address, Running: true, Object: neutral.Object{Labels: map[string]string{"mode": "host"}}},
			"default/web.1.x": {Network: neutral.NetworkHost, Address: netip.MustParseAddr("127.0.0.1"), Running: true},
		}})
}

func TestDecide(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		authority   string
		peer        string
		mode        string
		destination string
		kind        fault.Kind
		message     string
	}{
		"bridge":                       {authority: "db-0.shop.ctr.east.isthmus.internal:5432", destination: "10.9.8.7:5432"},
		"no port is http":              {authority: "db-0.shop.ctr.east.isthmus.internal", destination: "10.9.8.7:80"},
		"container of a pod":           {authority: "main.web.shop.ctr.east.isthmus.internal:1", destination: "10.9.8.7:1"},
		"mode asked and so":            {authority: "db-0.shop.ctr.east.isthmus.internal:5432", mode: "bridge", destination: "10.9.8.7:5432"},
		"mode differs":                 {authority: "db-0.shop.ctr.east.isthmus.internal:5432", mode: "host", kind: fault.Conflict, message: "runs with network mode bridge, and the access needs host"},
		"mode unknown":                 {authority: "db-0.shop.ctr.east.isthmus.internal:5432", mode: "zigzag", kind: fault.Invalid, message: "zigzag"},
		"mode demanded":                {authority: "inside.shop.ctr.east.isthmus.internal:1", destination: "10.9.8.7:1"},
		"mode demanded, and asked for": {authority: "inside.shop.ctr.east.isthmus.internal:1", mode: "pod", destination: "10.9.8.7:1"},
		"mode against the demand":      {authority: "inside.shop.ctr.east.isthmus.internal:1", mode: "host", kind: fault.Denied, message: "no permission"},
		"mode missing":                 {authority: "outside.shop.ctr.east.isthmus.internal:1", kind: fault.Conflict, message: "needs host"},
		"none":                         {authority: "alone.shop.ctr.east.isthmus.internal:1", kind: fault.Conflict, message: "runs with network mode none"},
		"stopped":                      {authority: "gone.shop.ctr.east.isthmus.internal:1", kind: fault.Conflict, message: "not running"},
		"unknown":                      {authority: "nobody.shop.ctr.east.isthmus.internal:1", kind: fault.NotFound},
		"by label":                     {authority: "vault.shop.ctr.east.isthmus.internal:1", kind: fault.NotFound, message: "no container vault in namespace shop"},
		"a peer without":               {authority: "db-0.shop.ctr.east.isthmus.internal:1", peer: "south", kind: fault.Denied, message: "no permission"},
		"no peer":                      {authority: "db-0.shop.ctr.east.isthmus.internal:1", peer: "-", kind: fault.Denied, message: "not a peer"},
		"port 0":                       {authority: "db-0.shop.ctr.east.isthmus.internal:0", kind: fault.Invalid},
		"port too large":               {authority: "db-0.shop.ctr.east.isthmus.internal:70000", kind: fault.Invalid},
		"no namespace":                 {authority: "db-0.ctr.east.isthmus.internal:1", kind: fault.Invalid},
		"another cluster":              {authority: "db-0.shop.ctr.west.isthmus.internal:1", kind: fault.NotFound},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			req := &modules.Request{Authority: test.authority, Peer: modules.Peer{Name: "west"}, Header: http.Header{}}
			if test.peer != "" {
				req.Peer.Name = strings.Trim(test.peer, "-")
			}
			req.Header.Set(names.HeaderNetworkMode, test.mode)
			verdict, err := module(true).Decide(t.Context(), req)
			if test.destination != "" {
				if err != nil || verdict.Route == nil || verdict.Route.Destination != test.destination || verdict.Record.Rule != "west/0" {
					t.Fatalf("verdict %+v, error %v", verdict, err)
				}
				return
			}
			f := fault.Of(err)
			if f == nil || f.Kind != test.kind || !strings.Contains(f.Message, test.message) {
				t.Fatalf("error %v, want %s %q", err, test.kind, test.message)
			}
			if strings.Contains(f.Message, "10.9.8.7") {
				t.Errorf("an address leaks: %s", f.Message)
			}
		})
	}
}

// TestRawLimits holds raw connections into containers to the streams of a peer; requests of HTTP are none.
func TestRawLimits(t *testing.T) {
	t.Parallel()
	m := module(true)
	m.config.Load = load.New(load.Config{Limits: func(string) load.Limits { return load.Limits{Share: load.Share{Streams: 1}} }})
	ask := func(method string) (modules.Verdict, error) {
		return m.Decide(t.Context(), &modules.Request{Method: method, Authority: "db-0.shop.ctr.east.isthmus.internal:5432",
			Peer: modules.Peer{Name: "west"}, Header: http.Header{}})
	}
	for range 3 {
		if verdict, err := ask(http.MethodGet); err != nil || verdict.Route.Set.Get(names.HeaderHold) != "" {
			t.Fatalf("%+v, %v", verdict, err)
		}
	}
	verdict, err := ask(http.MethodConnect)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ask(http.MethodConnect); !fault.Is(err, fault.Exhausted) {
		t.Errorf("one more: %v", err)
	}
	leave, ok := m.config.Load.Follow(verdict.Route.Set.Get(names.HeaderHold))
	if !ok {
		t.Fatal("what is held cannot be followed")
	}
	leave()
	if _, err := ask(http.MethodConnect); err != nil {
		t.Errorf("after the end: %v", err)
	}
}

// An engine's container names hold dots; all before the namespace is the name.
func TestEngineNames(t *testing.T) {
	t.Parallel()
	req := &modules.Request{Authority: "web.1.x.default.ctr.east.isthmus.internal:80", Peer: modules.Peer{Name: "west"}, Header: http.Header{}}
	verdict, err := module(false).Decide(t.Context(), req)
	if err != nil || verdict.Route.Destination != "127.0.0.1:80" {
		t.Fatalf("%+v %v", verdict, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("db-0.shop.ctr.east.isthmus.internal:5432")
	f.Add("a.b.c.ctr.east.isthmus.internal")
	m := module(true)
	f.Fuzz(func(t *testing.T, authority string) {
		ref, err := m.parse(authority)
		if err != nil {
			return
		}
		if ref.Namespace == "" || ref.Pod == "" || ref.Port == 0 || strings.Contains(ref.Namespace, ".") {
			t.Errorf("%q read as %+v", authority, ref)
		}
	})
}
