package adapter_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/adapter"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// kubectl is a peer of this cluster's own kind.
var kubectl = modules.Peer{Name: "south", Orchestrator: neutral.Kubernetes, Ready: true}

func decider(policy modules.Policy, target dialect.Cluster) *adapter.Module {
	return adapter.New(adapter.Config{Cluster: "east", Orchestrator: neutral.Kubernetes, Namespace: "team-a", Target: target,
		Dialects: adapter.Dialects, APIVersion: func() string { return "1.34" }, Policy: func() modules.Policy { return policy },
		Log: slog.New(slog.DiscardHandler)})
}

// TestSameType decides requests that are handed on unread: what cannot be judged afterwards is judged before.
func TestSameType(t *testing.T) {
	t.Parallel()
	const pods = "/api/v1/namespaces/shop/pods"
	byName := func(_ modules.Subject, _ neutral.Verb, object neutral.Object) modules.Judgement {
		if object.Name == "web" && object.Labels["tier"] == "front" {
			return modules.Judgement{Allowed: true, Rule: "front"}
		}
		return denied
	}
	for _, c := range []struct {
		name, method, path string
		foresee            modules.Judgement
		kind               fault.Kind
		allow              bool
		rule               string
	}{
		{"allowed by the head", "GET", pods, allowed, 0, true, "fake/0"},
		{"denied by the head", "GET", pods, denied, fault.Denied, false, ""},
		{"a list that depends on its objects", "GET", pods, open, fault.Denied, false, ""},
		{"a watch that depends on its objects", "GET", pods + "?watch=1", open, fault.Denied, false, ""},
		{"a create that depends on its content", "POST", pods, open, fault.Denied, false, ""},
		{"an object that is allowed", "GET", pods + "/web", open, 0, true, "front"},
		{"an object that is not", "GET", pods + "/db", open, fault.Denied, false, ""},
		{"an exec into one that is allowed", "POST", pods + "/web/exec?command=sh", open, 0, true, "front"},
		{"an exec into one that is not", "POST", pods + "/db/exec?command=sh", open, fault.Denied, false, ""},
		{"an object that is not there", "DELETE", pods + "/gone", open, fault.NotFound, false, ""},
		{"a path that is not clean", "GET", pods + "/../../kube-system/secrets", allowed, fault.Invalid, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			target := fakeCluster{plan: unplanned(t), lookup: func(op neutral.Operation) (neutral.Object, error) {
				object := op.Object
				if object.Name == "gone" {
					return object, fault.New(fault.NotFound, "pods %q not found", object.Name)
				}
				object.Labels = map[string]string{"tier": map[string]string{"web": "front", "db": "back"}[object.Name]}
				return object, nil
			}}
			module := decider(fakePolicy{foresee: always(c.foresee), judge: byName}, target)
			req := &modules.Request{Class: modules.ContainerOperation, Peer: kubectl, Method: c.method, Path: c.path, Header: http.Header{
				"Authorization": {"Bearer the-callers-own"}}}
			verdict, err := module.Decide(t.Context(), req)
			if !c.allow {
				if !fault.Is(err, c.kind) || verdict.Route != nil || verdict.Answer != nil || verdict.Exchange != nil {
					t.Errorf("%+v, %v", verdict, err)
				}
				return
			}
			if err != nil || verdict.Route == nil || verdict.Route.Upstream != names.OrchestratorRoute(neutral.Kubernetes) || verdict.Record.Rule != c.rule {
				t.Fatalf("%+v, %v", verdict, err)
			}
			if verdict.Route.Method != "" || verdict.Route.Path != "" || verdict.Route.Authority != "the-api" {
				t.Errorf("the request is changed on its way: %+v", verdict.Route)
			}
			if verdict.Route.Set.Get("Authorization") != "Bearer "+fakeToken || !strings.Contains(strings.Join(verdict.Route.Remove, " "), "impersonate-user") {
				t.Errorf("the caller's credentials go along: %+v", verdict.Route)
			}
			req.Header.Set("Impersonate-User", "root")
			if verdict, err := module.Decide(t.Context(), req); !fault.Is(err, fault.Denied) {
				t.Errorf("impersonation: %+v, %v", verdict, err)
			}
			req.Header.Del("Impersonate-User")
			req.Header.Set(names.HeaderSession, "tcp")
			if verdict, err := module.Decide(t.Context(), req); err != nil || verdict.Route == nil || verdict.Route.Upstream != names.Bridge {
				t.Errorf("a session: %+v, %v", verdict, err)
			}
		})
	}
}

// dockerRoutes are the paths of the Engine API, from its dialect's own list.
func dockerRoutes(t testing.TB) [][2]string {
	t.Helper()
	data, err := os.ReadFile("dialect/docker/testdata/routes.txt")
	if err != nil {
		t.Fatal(err)
	}
	var routes [][2]string
	for line := range strings.Lines(string(data)) {
		if words := strings.Fields(line); len(words) > 4 && !strings.HasPrefix(line, "#") {
			path := words[1]
			for _, hole := range []string{"{id}", "{name}"} {
				path = strings.ReplaceAll(path, hole, "web")
			}
			routes = append(routes, [2]string{words[0], path})
		}
	}
	if len(routes) < 80 {
		t.Fatalf("%d routes only", len(routes))
	}
	return routes
}

// TestOpenPolicy asks every route of docker under a policy whose head leaves everything open and which then denies every
// object: whatever the route, nothing is told and nothing is changed. What slips through here is asked of no policy.
func TestOpenPolicy(t *testing.T) {
	t.Parallel()
	object := func(kind, name, more string) []byte {
		return []byte("apiVersion: v1\nkind: " + kind + "\nmetadata: {name: " + name + ", namespace: team-a, uid: u-" + name +
			", creationTimestamp: 2026-11-24T10:00:00Z}\n" + more)
	}
	pod := object("Pod", "web", "spec: {nodeName: node-a, containers: [{name: main, image: the-secret-image}]}\n"+
		"status: {phase: Running, containerStatuses: [{name: main, image: the-secret-image, state: {running: {startedAt: 2026-11-24T10:00:00Z}}}]}")
	node := object("Node", "web", "status: {nodeInfo: {kubeletVersion: the-secret-version}, images: [{names: ['web:latest', 'the-secret-image:1']}]}")
	claim := object("PersistentVolumeClaim", "web", "spec: {storageClassName: the-secret-class}")
	deployment := []byte(strings.Replace(string(object("Deployment", "web", "spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, "+
		"spec: {containers: [{name: main, image: the-secret-image}]}}}")), "apiVersion: v1", "apiVersion: apps/v1", 1))
	bodies := map[string]string{
		"/containers/create": `{"Image":"busybox"}`, "/containers/web/exec": `{"Cmd":["true"]}`, "/exec/web/start": `{}`,
		"/services/create":     `{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"busybox"}}}`,
		"/services/web/update": `{"Name":"web","TaskTemplate":{"ContainerSpec":{"Image":"busybox"}}}`,
	}
	queries := map[string]string{"/images/create": "fromImage=web", "/containers/web/resize": "h=1&w=1", "/exec/web/resize": "h=1&w=1",
		"/containers/web/logs": "stdout=1", "/services/web/logs": "stdout=1", "/tasks/web/logs": "stdout=1", "/events": "since=1&until=2",
		"/services/web/update": "version=1", "/containers/web/rename": "name=x"}
	for _, route := range dockerRoutes(t) {
		method, path := route[0], route[1]
		t.Run(method+" "+strings.ReplaceAll(path, "/", "."), func(t *testing.T) {
			t.Parallel()
			api := newFakeAPI(t, map[string][]byte{"pod": pod, "node": node, "claim": claim, "deployment": deployment}, map[string][]string{
				"GET /api/v1/namespaces/team-a/pods":                   {"200 list pod"},
				"GET /api/v1/namespaces/team-a/pods/web":               {"200 file pod"},
				"GET /api/v1/nodes":                                    {"200 list node"},
				"GET /api/v1/namespaces/team-a/persistentvolumeclaims": {"200 list claim"},
				"GET /apis/apps/v1/namespaces/team-a/deployments":      {"200 list deployment"},
				"GET /version": {"200\nmajor: '1'\nminor: '34'\ngitVersion: the-secret-version"},
			})
			module := decider(fakePolicy{foresee: always(open), judge: always(denied)}, api.connect("team-a"))
			west := modules.Peer{Name: "west", Orchestrator: neutral.Docker, Ready: true}
			req := &modules.Request{Class: modules.ContainerOperation, Peer: west, Method: method, Path: "/v1.44" + path, Header: http.Header{}}
			if path == "/_ping" || path == "/version" {
				req.Path = path
			}
			if query := queries[path]; query != "" {
				req.Path += "?" + query
			}
			body := []byte(bodies[path])
			if len(body) > 0 {
				req.Header.Set("Content-Type", "application/json")
			}
			answer := carryOut(t, module, api, req, body)
			text := string(answer.Body)
			id := strings.Contains(text, `"Id":`) || strings.Contains(text, `"ID":`)
			if path == "/networks" {
				id = false // docker's own three are everywhere, and their ids are hashes of their names
			}
			if id || strings.Contains(text, "the-secret") {
				t.Errorf("it tells what no policy allows: %d %s", answer.Status, text)
			}
			for line := range strings.Lines(api.asked()) {
				for _, change := range []string{"POST ", "PUT ", "PATCH ", "DELETE "} {
					if strings.HasPrefix(line, change) {
						t.Errorf("it changes what no policy allows: %s", line)
					}
				}
			}
			if method != http.MethodGet && method != http.MethodHead && answer.Status < 400 && !harmless[path] {
				t.Errorf("%d %s", answer.Status, text)
			}
		})
	}
}

// harmless are routes that answer well without having done anything: a prune of nothing, a size for nobody's terminal.
var harmless = map[string]bool{"/containers/prune": true, "/containers/web/resize": true}

// carryOut takes a request through Decide and whoever it chooses.
func carryOut(t *testing.T, module *adapter.Module, api *fakeAPI, req *modules.Request, body []byte) modules.Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	verdict, err := module.Decide(ctx, req)
	if err == nil && verdict.Exchange != nil {
		exchange := verdict.Exchange
		rewrite, other, requestErr := exchange.Request(ctx, body)
		switch err = requestErr; {
		case err == nil && other != nil:
			verdict = *other
		case err == nil:
			answer, responseErr := exchange.Response(ctx, api.send(ctx, rewrite))
			if responseErr == nil {
				return answer
			}
			err = responseErr
		}
	}
	switch {
	case err != nil:
		return module.Refuse(req, err)
	case verdict.Answer != nil:
		return *verdict.Answer
	case verdict.Route == nil || verdict.Route.Upstream != names.Bridge:
		t.Fatalf("%s %s: %+v", req.Method, req.Path, verdict)
	}
	answer, _ := throughBridge(ctx, module, req.Peer, req, body)
	return answer
}

// FuzzAdmit holds that no head of a request panics, and that none is let in where no policy allows anything; docker's
// ping aside, which tells nothing.
func FuzzAdmit(f *testing.F) {
	for _, route := range dockerRoutes(f) {
		f.Add(route[0], route[1], "", "", false)
	}
	for _, path := range []string{"/api/v1/namespaces/shop/pods/web/exec?command=sh", "/apis/apps/v1/deployments?watch=true", "/version", "/healthz",
		"/api/v1/namespaces/shop/services/web:80/proxy/admin", "/openapi/v3", "/api/v1/namespaces/../secrets", "//api/v1/pods", "/api/v1/pods%2fx", "*"} {
		for _, method := range []string{"GET", "POST", "PATCH", "DELETE", "OPTIONS", ""} {
			f.Add(method, path, "Content-Type", "application/apply-patch+yaml", true)
		}
	}
	f.Add("POST", "/v1.44/containers/web/attach", names.HeaderSession, "tcp", false)
	f.Add("HEAD", "/_ping", "Upgrade", "h2c", false)
	f.Fuzz(func(t *testing.T, method, path, key, value string, sameType bool) {
		target := fakeCluster{plan: unplanned(t), lookup: func(op neutral.Operation) (neutral.Object, error) {
			t.Errorf("%s is looked up", op.Action)
			return op.Object, nil
		}}
		module := decider(fakePolicy{foresee: always(denied), judge: always(denied)}, target)
		peer := modules.Peer{Name: "west", Orchestrator: neutral.Docker, Ready: true}
		if sameType {
			peer = kubectl
		}
		header := http.Header{}
		if key != "" {
			header.Set(key, value)
		}
		req := &modules.Request{Class: modules.ContainerOperation, Peer: peer, Method: method, Path: path, Header: header}
		verdict, err := module.Decide(t.Context(), req)
		ping := verdict.Record.Action == neutral.SystemPing && !sameType
		switch {
		case err != nil:
			if answer := module.Refuse(req, err); answer.Status < 400 || answer.Status > 599 {
				t.Errorf("%q %q is refused with %d", method, path, answer.Status)
			}
		case !ping || verdict.Answer == nil:
			t.Errorf("%q %q is let in: %+v", method, path, verdict)
		case bytes.Contains(verdict.Answer.Body, []byte("1.34")):
			t.Errorf("a ping tells of the cluster: %s", verdict.Answer.Body)
		}
		at, err := url.ParseRequestURI(path)
		if err != nil || ping {
			return // net/http lets no such request in
		}
		bridge := adapter.NewBridge(adapter.BridgeConfig{Module: module, Observer: &lastRecord{}, BodyLimit: 1 << 10,
			Peer: func(string) modules.Peer { return peer }})
		defer bridge.Close()
		w := httptest.NewRecorder()
		bridge.ServeHTTP(w, (&http.Request{Method: method, URL: at, Header: header, Body: http.NoBody}).WithContext(t.Context()))
		if w.Code < 400 {
			t.Errorf("the bridge lets %q %q in: %d %s", method, path, w.Code, w.Body)
		}
	})
}
