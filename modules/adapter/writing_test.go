package adapter_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// fakeObjects is an API of one object, which says what it was asked to write.
type fakeObjects struct {
	t  *testing.T
	mu sync.Mutex
	// object is what is there; "" for nothing. tried is what a dry run gives.
	object, tried string
	// conflicts is how often a write is told that somebody was faster, and stale how often a dry run is.
	conflicts, stale int
	wrote            []string
	kinds            []string
}

func (f *fakeObjects) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	body, err := io.ReadAll(r.Body)
	if err != nil {
		f.t.Error(err)
	}
	switch {
	case r.Method == http.MethodGet && f.object == "":
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404,"message":"not there"}`)
	case r.Method == http.MethodGet:
		_, _ = io.WriteString(w, f.object)
	case r.URL.Query().Get("dryRun") == "All" && f.stale > 0:
		f.stale--
		w.WriteHeader(http.StatusConflict)
		_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Conflict","code":409,"message":"changed"}`)
	case r.URL.Query().Get("dryRun") == "All" && f.tried == "":
		w.WriteHeader(http.StatusUnprocessableEntity)
		_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Invalid","code":422,"message":"10.0.0.9 is bad"}`)
	case r.URL.Query().Get("dryRun") == "All":
		_, _ = io.WriteString(w, f.tried)
	default:
		f.wrote, f.kinds = append(f.wrote, string(body)), append(f.kinds, r.Header.Get("Content-Type"))
		if f.conflicts > 0 {
			f.conflicts--
			w.WriteHeader(http.StatusConflict)
			_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Conflict","code":409,"message":"changed"}`)
			return
		}
		_, _ = io.WriteString(w, f.tried)
	}
}

const (
	deployment = `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","namespace":"x","resourceVersion":"7","labels":{}},` +
		`"spec":{"template":{"spec":{"containers":[{"name":"a","image":"i"}]}}}}`
	privileged = `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","namespace":"x","resourceVersion":"7","labels":{}},` +
		`"spec":{"template":{"spec":{"containers":[{"name":"a","image":"i"}],"initContainers":[{"name":"b","image":"i","securityContext":{"privileged":true}}]}}}}`
)

// modest allows what has no privileges.
var modest = fakePolicy{foresee: always(open), judge: func(_ modules.Subject, _ neutral.Verb, o neutral.Object) modules.Judgement {
	if o.Container == nil || o.Container.Security.Privileged || len(o.Container.Security.Devices) > 0 {
		return denied
	}
	return modules.Judgement{Allowed: true, Rule: "modest/0"}
}}

// A create, an update and a patch are judged by what they would make, and a patch is bound to what it was judged on.
func TestConditionsOnWrites(t *testing.T) {
	t.Parallel()
	const path = "/apis/apps/v1/namespaces/x/deployments"
	for name, c := range map[string]struct {
		method, path, kind, body string
		object, tried            string
		conflicts                int
		status                   int
		wrote                    string
	}{
		"a create":            {"POST", path, "application/json", `{"a":1}`, "", deployment, 0, 200, `{"a":1}`},
		"one too mighty":      {"POST", path, "application/json", `{"a":1}`, "", privileged, 0, 403, ""},
		"one the API refuses": {"POST", path, "application/json", `{"a":1}`, "", "", 0, 422, ""},
		"an update":           {"PUT", path + "/web", "application/json", `{"a":1}`, deployment, deployment, 0, 200, `{"a":1}`},
		"one to more":         {"PUT", path + "/web", "application/json", `{"a":1}`, deployment, privileged, 0, 403, ""},
		"a merge patch": {"PATCH", path + "/web", "application/merge-patch+json", `{"spec":{}}`, deployment, deployment, 0, 200,
			`{"metadata":{"resourceVersion":"7"},"spec":{}}`},
		"one of no version": {"PATCH", path + "/web", "application/strategic-merge-patch+json", `{"metadata":{"resourceVersion":null,"labels":{"a":"b"}}}`, deployment, deployment, 0, 200,
			`{"metadata":{"labels":{"a":"b"},"resourceVersion":"7"}}`},
		"one of its own version": {"PATCH", path + "/web", "application/merge-patch+json", `{"metadata":{"resourceVersion":"6"}}`, deployment, deployment, 0, 200,
			`{"metadata":{"resourceVersion":"6"}}`},
		"a JSON patch": {"PATCH", path + "/web", "application/json-patch+json", `[{"op":"remove","path":"/spec"}]`, deployment, deployment, 0, 200,
			`[{"op":"test","path":"/metadata/resourceVersion","value":"7"},{"op":"remove","path":"/spec"},{"op":"add","path":"/metadata/resourceVersion","value":"7"}]`},
		"one of what is not there": {"PATCH", path + "/web", "application/json-patch+json", `[{"op":"remove","path":"/a"}]`, deployment, deployment, 0, 400, ""},
		"an apply": {"PATCH", path + "/web?fieldManager=x", "application/apply-patch+yaml", "metadata:\n  name: web\n", deployment, deployment, 0, 200,
			`{"metadata":{"name":"web","resourceVersion":"7"}}`},
		"an apply of what is not there": {"PATCH", path + "/web?fieldManager=x", "application/apply-patch+yaml", "metadata:\n  name: web\n", "", deployment, 0, 200,
			"metadata:\n  name: web\n"},
		"one that others change meanwhile": {"PATCH", path + "/web", "application/merge-patch+json", `{"spec":{}}`, deployment, deployment, 2, 200,
			strings.Repeat(`{"metadata":{"resourceVersion":"7"},"spec":{}}`, 3)},
		"a patch to more": {"PATCH", path + "/web", "application/merge-patch+json", `{"spec":{}}`, deployment, privileged, 0, 403, ""},
		"an object that may not be touched": {"PATCH", path + "/web", "application/merge-patch+json", `{"spec":{}}`, strings.Replace(deployment, `"image":"i"`,
			`"image":"i","securityContext":{"privileged":true}`, 1), deployment, 0, 403, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			api := &fakeObjects{t: t, object: c.object, tried: c.tried, conflicts: c.conflicts}
			s := newSameType(t, neutral.Kubernetes, modest, api.ServeHTTP)
			req := http.Header{"Content-Type": {c.kind}}
			if c.status == 403 && c.object != "" && c.tried == deployment { // refused before the bridge
				verdict, err := s.module.Decide(t.Context(), &modules.Request{Class: modules.ContainerOperation, Peer: s.peer, Method: c.method, Path: c.path, Header: req})
				if err == nil {
					t.Errorf("%+v", verdict)
				}
				return
			}
			status, text := s.ask(c.method, c.path, c.body, req)
			wrote := strings.Join(api.wrote, "")
			if status != c.status || wrote != c.wrote || strings.Contains(text, "10.0.0.9") {
				t.Errorf("%d %s\nwrote %s\nwant  %s", status, text, wrote, c.wrote)
			}
		})
	}
}

// A JSON patch reads nothing of an object that is hidden.
func TestStepsRevealNothing(t *testing.T) {
	t.Parallel()
	const path = "/api/v1/namespaces/x/pods/web"
	const object = `{"kind":"Pod","metadata":{"name":"web","resourceVersion":"7","labels":{"a":"b"}},"spec":{"containers":[{"name":"c","env":` +
		`[{"name":"DB_PASSWORD","value":"s3cret"},{"name":"PLAIN","value":"p"}]}]},"status":{"podIP":"10.0.0.1"}}`
	for patch, status := range map[string]int{
		`[{"op":"add","path":"/metadata/labels/x","value":"y"}]`:                                         200,
		`[{"op":"copy","from":"/metadata/labels/a","path":"/metadata/labels/x"}]`:                        200,
		`[{"op":"test","path":"/status/podIP","value":"` + standIn("10.0.0.1") + `"}]`:                   200,
		`[{"op":"copy","from":"/spec/containers/0/env/0/value","path":"/metadata/labels/x"}]`:            403,
		`[{"op":"test","path":"/spec/containers/0/env/0/value","value":"s3cret"}]`:                       403,
		`[{"op":"test","path":"/status/podIP","value":"10.0.0.1"}]`:                                      403,
		`[{"op":"replace","path":"/spec/containers/0/env/0/name","value":"OTHER"}]`:                      403,
		`[{"op":"move","from":"/status/podIP","path":"/metadata/labels/version"}]`:                       403,
		`[{"op":"add","path":"/metadata/labels/x","value":"hidden-by-isthmus"}]`:                         400,
		`[{"op":"remove","path":"/metadata/resourceVersion"},{"op":"remove","path":"/metadata/labels"}]`: 200,
	} {
		api := &fakeObjects{t: t, object: object, tried: object}
		s := newSameType(t, neutral.Kubernetes, fakePolicy{}, api.ServeHTTP)
		got, text := s.ask("PATCH", path, patch, http.Header{"Content-Type": {"application/json-patch+json"}})
		wrote := strings.Join(api.wrote, "")
		if got != status || (wrote != "") != (status == 200) || strings.Contains(text, "s3cret") {
			t.Errorf("%s: %d %s, wrote %s", patch, got, text, wrote)
		}
		if status == 200 && !strings.HasSuffix(wrote, `{"op":"add","path":"/metadata/resourceVersion","value":"7"}]`) {
			t.Errorf("%s is not bound: %s", patch, wrote)
		}
	}
	for _, kind := range []string{"application/json-patch+json; charset", "Application/JSON-Patch+json;=;", "application/json-patch+json ;a=b"} {
		api := &fakeObjects{t: t, object: object, tried: object}
		s := newSameType(t, neutral.Kubernetes, fakePolicy{}, api.ServeHTTP)
		patch := `[{"op":"copy","from":"/spec/containers/0/env/0/value","path":"/metadata/labels/x"}]`
		if got, text := s.ask("PATCH", path, patch, http.Header{"Content-Type": {kind}}); got != 403 || len(api.wrote) != 0 {
			t.Errorf("%s: %d %s", kind, got, text)
		}
	}
	api := &fakeObjects{t: t, object: object, tried: object, conflicts: 2}
	s := newSameType(t, neutral.Kubernetes, fakePolicy{}, api.ServeHTTP)
	if status, text := s.ask("PATCH", path, `[{"op":"remove","path":"/metadata/labels"}]`, http.Header{"Content-Type": {"application/json-patch+json"}}); status != 200 || len(api.wrote) != 3 {
		t.Errorf("changed meanwhile: %d %s", status, text)
	}
	api = &fakeObjects{t: t, object: deployment, tried: deployment, stale: 2}
	s = newSameType(t, neutral.Kubernetes, modest, api.ServeHTTP)
	if status, text := s.ask("PATCH", "/apis/apps/v1/namespaces/x/deployments/web", `[{"op":"remove","path":"/metadata/labels"}]`,
		http.Header{"Content-Type": {"application/json-patch+json"}}); status != 200 || len(api.wrote) != 1 || api.stale != 0 {
		t.Errorf("changed before it was tried: %d %s", status, text)
	}
	api = &fakeObjects{t: t}
	s = newSameType(t, neutral.Kubernetes, fakePolicy{}, api.ServeHTTP)
	if status, text := s.ask("PATCH", path, `[{"op":"remove","path":"/metadata/labels"}]`, http.Header{"Content-Type": {"application/json-patch+json"}}); status != 404 || len(api.wrote) != 0 {
		t.Errorf("not there: %d %s", status, text)
	}
}

// Nor can one ask which object has an address.
func TestSelectedByAddress(t *testing.T) {
	t.Parallel()
	asked := 0
	s := newSameType(t, neutral.Kubernetes, fakePolicy{}, func(w http.ResponseWriter, r *http.Request) {
		asked++
		answers("application/json", `{"kind":"PodList","items":[]}`)(w, r)
	})
	for _, query := range []string{"fieldSelector=status.podIP%3D10.0.0.1", "fieldSelector=status.phase%3DRunning,status.hostIP!%3D10.0.0.1", "watch=1&fieldSelector=status.podIPs%3D10.0.0.1",
		"fieldSelector=spec.nodeName%3D10.0.0.1", "fieldSelector=metadata.name!%3Dfd00::1", "labelSelector=kubernetes.io/hostname%3D10.0.0.1",
		"labelSelector=a,kubernetes.io/hostname+in+(b,10.0.0.1)", "labelSelector=!10.0.0.1"} {
		if status, text := s.ask("GET", "/api/v1/namespaces/x/pods?"+query, "", nil); status != 403 || asked != 0 {
			t.Errorf("%s: %d %s", query, status, text)
		}
	}
	if status, text := s.ask("DELETE", "/api/v1/namespaces/x/pods?fieldSelector=status.podIP%3D10.0.0.1", "", nil); status != 403 || asked != 0 {
		t.Errorf("a deletion: %d %s", status, text)
	}
	for _, query := range []string{"fieldSelector=status.phase%3DRunning", "fieldSelector=spec.nodeName%3Da.b.example.com", "labelSelector=app.kubernetes.io/version%3D1.2.3.4,a.b.c.d/e"} {
		if status, text := s.ask("GET", "/api/v1/namespaces/x/pods?"+query, "", nil); status != 200 {
			t.Errorf("%s: %d %s", query, status, text)
		}
	}
}

// What a caller was shown and writes back is what was there.
func TestWritesBack(t *testing.T) {
	t.Parallel()
	const path, object = "/api/v1/namespaces/x/services/web", `{"kind":"Service","metadata":{"name":"web"},"spec":{"clusterIP":"10.0.0.1"}}`
	for name, c := range map[string]struct {
		method, kind, body string
		status             int
		wrote, as          string
	}{
		"an update":            {"PUT", "application/json", standIn(object), 200, object, "application/json"},
		"in YAML":              {"PUT", "application/yaml", "kind: Service\nspec: {clusterIP: " + standIn("10.0.0.1") + "}", 200, `{"kind":"Service","spec":{"clusterIP":"10.0.0.1"}}`, "application/json"},
		"an apply":             {"PATCH", "application/apply-patch+yaml", "spec: {clusterIP: " + standIn("10.0.0.1") + "}", 200, `{"spec":{"clusterIP":"10.0.0.1"}}`, "application/apply-patch+yaml"},
		"spelled in YAML":      {"PUT", "application/yaml", `a: "\x68idden-by-isthmus"`, 400, "", ""},
		"of another type":      {"PATCH", "application/apply-patch+yaml", "a: !!binary aGlkZGVuLWJ5LWlzdGhtdXM=", 400, "", ""},
		"in escapes":           {"PATCH", "application/merge-patch+json", `{"metadata":{"annotations":{"a":"\u0068idden-by-isthmus"}}}`, 400, "", ""},
		"nothing that is ours": {"PUT", "application/json", `{"a": "10.0.0.2"}`, 200, `{"a": "10.0.0.2"}`, "application/json"},
		"another's":            {"PUT", "application/json", standIn(`{"a":"10.0.0.2"}`), 400, "", ""},
		"in protobuf":          {"PUT", "application/vnd.kubernetes.protobuf", "k8s\x00 " + standIn("10.0.0.1"), 400, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			api := &fakeObjects{t: t, object: object, tried: object}
			s := newSameType(t, neutral.Kubernetes, fakePolicy{}, api.ServeHTTP)
			status, text := s.ask(c.method, path, c.body, http.Header{"Content-Type": {c.kind}})
			wrote := strings.Join(api.wrote, "")
			same := wrote == c.wrote
			if json.Valid([]byte(wrote)) && json.Valid([]byte(c.wrote)) {
				same = compact(t, wrote) == compact(t, c.wrote)
			}
			if status != c.status || !same || strings.Join(api.kinds, "") != c.as || status == 200 && text != standIn(object) {
				t.Errorf("%d %s\nwrote %s as %v", status, text, wrote, api.kinds)
			}
		})
	}
}

func compact(t *testing.T, text string) string {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// Docker's creates and updates are judged by their bodies, of which conditions must have seen everything that matters.
func TestConditionsOnDocker(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		path, body string
		status     int
	}{
		"a container":               {"/v1.44/containers/create?name=web", `{"Image":"busybox"}`, 200},
		"a privileged one":          {"/v1.44/containers/create?name=web", `{"Image":"busybox","HostConfig":{"Privileged":true}}`, 403},
		"one in other letters":      {"/v1.44/containers/create?name=web", `{"Image":"busybox","hostconfig":{"privileged":true}}`, 403},
		"one with a device":         {"/v1.44/containers/create?name=web", `{"Image":"busybox","HostConfig":{"Devices":[{"PathOnHost":"/dev/sda","PathInContainer":"/dev/sda"}]}}`, 403},
		"a service":                 {"/v1.44/services/create", `{"Name":"a","TaskTemplate":{"ContainerSpec":{"Image":"busybox"}}}`, 200},
		"no JSON":                   {"/v1.44/containers/create", `{"Image"`, 400},
		"a network, without a spec": {"/v1.44/networks/create", `{"Name":"a"}`, 403},
		"a value that is not shown": {"/v1.44/containers/create?name=web", `{"Image":"busybox","Env":["A_KEY=hidden-by-isthmus"]}`, 400},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wrote := ""
			s := newSameType(t, neutral.Docker, modest, func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				wrote = string(body)
				answers("application/json", `{"Id":"1"}`)(w, r)
			})
			status, text := s.ask("POST", c.path, c.body, http.Header{"Content-Type": {"application/json"}})
			if status != c.status || (status == 200) != (wrote == c.body) {
				t.Errorf("%d %s, wrote %s", status, text, wrote)
			}
		})
	}
}

// A session that an engine refuses shows no address either; one that it takes is carried as it is.
func TestSessionRefused(t *testing.T) {
	t.Parallel()
	s := newSameType(t, neutral.Docker, fakePolicy{}, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "good") {
			w.Header().Set("Content-Type", "application/vnd.docker.raw-stream")
			_, _ = io.WriteString(w, "it says 10.0.0.1")
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusConflict)
		_, _ = io.WriteString(w, `{"message":"container 10.0.0.1 is not running"}`)
	})
	session := http.Header{"X-Isthmus-Link-Session": {"tcp"}, "X-Isthmus-Link-Session-Body": {"0"}}
	if status, text := s.ask("POST", "/v1.44/containers/bad/attach", "", session); status != http.StatusConflict || text != standIn(`{"message":"container 10.0.0.1 is not running"}`) {
		t.Errorf("%d %s", status, text)
	}
	if status, text := s.ask("POST", "/v1.44/containers/good/attach", "", session); status != http.StatusOK || text != "it says 10.0.0.1" {
		t.Errorf("%d %s", status, text)
	}
}
