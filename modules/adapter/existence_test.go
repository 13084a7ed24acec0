package adapter_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// counted counts what reaches the orchestrator.
func counted(asked *atomic.Int32, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		h(w, r)
	}
}

// TestFilteredByAddress asks for objects by addresses, and by parts of them: neither tells whether one is there.
func TestFilteredByAddress(t *testing.T) {
	t.Parallel()
	const containers = `[{"Id":"a","Names":["/db-10.0.0.5"],"Labels":{}},{"Id":"b","Names":["/web5"],"Labels":{}}]`
	var asked atomic.Int32
	s := newSameType(t, neutral.Docker, fakePolicy{}, counted(&asked, answers("application/json", containers)))
	path := func(list, filters string) string { return "/v1.44/" + list + "?filters=" + url.QueryEscape(filters) }
	for _, p := range []string{
		path("containers/json", `{"name":{"10.0.0.5":true}}`), path("containers/json", `{"name":["db-10.0.0.5"]}`),
		path("containers/json", `{"name":["^/db-10\\.0\\.0\\.5$"]}`), path("containers/json", `{"id":["10.0.0.5"]}`),
		path("containers/json", `{"label":["at=10.0.0.5"]}`), path("containers/json", `{"ancestor":["10.0.0.5:5000/app:1"]}`),
		path("containers/json", `{"network":["10.0.0.5"]}`), path("containers/json", `{"volume":["fd00::5"]}`),
		path("containers/json", `{"status":["running"]}`) + "&filters=" + url.QueryEscape(`{"name":["10.0.0.5"]}`),
		path("nodes", `{"name":["10.0.0.5"]}`), path("nodes", `{"node.label":["at=10.0.0.5"]}`), path("volumes", `{"name":["10.0.0.5"]}`),
		path("events", `{"container":["10.0.0.5"]}`), path("images/json", `{"reference":["10.0.0.5:5000/*"]}`),
		path("images/json", `{"before":["10.0.0.5:5000/app"]}`), "/v1.24/images/json?filter=10.0.0.5:5000/app",
	} {
		code, body := s.ask("GET", p, "", nil)
		if code != http.StatusForbidden || !strings.Contains(body, "nothing can be filtered by an address, as in ") {
			t.Errorf("%s: %d %s", p, code, body)
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("the engine was asked %d times", n)
	}
	for filters, want := range map[string]string{
		`{}`:                               `/db-` + standIn("10.0.0.5") + " /web5",
		`{"status":["running"]}`:           `/db-` + standIn("10.0.0.5") + " /web5",
		`{"name":["5"]}`:                   "/web5", // it would tell with which digit the other one's name ends
		`{"name":["5"],"label":["a"]}`:     "/web5",
		`{"ancestor":["app:1.2.3.4"]}`:     `/db-` + standIn("10.0.0.5") + " /web5",
		`{"label":["version=1.2.3"]}`:      `/db-` + standIn("10.0.0.5") + " /web5",
		`{"network":["front","10.0-net"]}`: `/db-` + standIn("10.0.0.5") + " /web5",
	} {
		code, body := s.ask("GET", path("containers/json", filters), "", nil)
		var found []struct{ Names []string }
		if err := json.Unmarshal([]byte(body), &found); err != nil || code != http.StatusOK {
			t.Fatalf("%s: %d %s", filters, code, body)
		}
		var names []string
		for _, f := range found {
			names = append(names, f.Names...)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: %s, want %s", filters, got, want)
		}
	}
	for list, body := range map[string]string{
		"nodes":       `[{"ID":"n","Spec":{"Labels":{}},"Description":{"Hostname":"10.0.0.5"}}]`,
		"images/json": `[{"Id":"i","RepoTags":["10.0.0.5:5000/app:1"]}]`,
		"services":    `[{"ID":"s","Spec":{"Name":"to-10.0.0.5"}}]`,
		"networks":    `[{"Id":"n","Name":"net-10.0.0.5"}]`,
	} {
		s := newSameType(t, neutral.Docker, fakePolicy{}, answers("application/json", body))
		key := "name"
		if list == "images/json" {
			key = "reference"
		}
		if code, got := s.ask("GET", path(list, `{"`+key+`":["5"]}`), "", nil); code != http.StatusOK || strings.TrimSpace(got) != "[]" {
			t.Errorf("%s: %d %s", list, code, got)
		}
	}
}

// TestNamedByAddress asks for objects that are called by addresses: the answer is the same whether there is one.
func TestNamedByAddress(t *testing.T) {
	t.Parallel()
	const there = `{"metadata":{"name":"10.0.0.5","labels":{"tier":"front"}},"ID":"n","Spec":{"Labels":{"tier":"front"}},"Description":{"Hostname":"10.0.0.5"}}`
	missing := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"message":"node 10.0.0.5 not found","kind":"Status","code":404}`))
	}
	shut := fakePolicy{foresee: always(open), judge: always(denied)}
	for _, of := range []neutral.Orchestrator{neutral.Docker, neutral.Kubernetes} {
		paths := []string{"/v1.44/nodes/10.0.0.5", "/v1.44/nodes/node-10.0.0.5", "/v1.44/containers/10.0.0.5/json", "/v1.44/networks/10.0.0.5"}
		if of == neutral.Kubernetes {
			paths = []string{"/api/v1/nodes/10.0.0.5", "/api/v1/nodes/10.0.0.5/proxy/healthz", "/api/v1/nodes/ip-10.0.0.5.internal",
				"/apis/networking.k8s.io/v1/ipaddresses/10.0.0.5", "/api/v1/namespaces/a/pods/10.0.0.5/log"}
		}
		for name, native := range map[string]http.HandlerFunc{"there": answers("application/json", there), "not there": missing} {
			for policyName, policy := range map[string]fakePolicy{"allowed": {}, "by label": front, "by another label": shut} {
				s := newSameType(t, of, policy, native)
				for _, path := range paths {
					code, body := s.ask("GET", path, "", nil)
					if code != http.StatusForbidden || !strings.Contains(body, "nothing can be asked for by an address") {
						t.Errorf("%s, %s: %s: %d %s", name, policyName, path, code, body)
					}
				}
			}
			s := newSameType(t, of, showing, native)
			for _, path := range paths {
				verdict, err := s.module.Decide(t.Context(), &modules.Request{Class: modules.ContainerOperation, Peer: s.peer, Method: "GET", Path: path,
					Header: http.Header{}})
				// Of a network the containers on it are judged in any case.
				if err != nil || verdict.Route == nil || (verdict.Route.Upstream == names.Bridge && !strings.Contains(path, "networks")) {
					t.Errorf("where addresses are shown, %s: %+v, %v", path, verdict, err)
				}
			}
		}
	}
	s := newSameType(t, neutral.Docker, fakePolicy{}, answers("application/json", there))
	for _, path := range []string{"/v1.44/nodes/self", "/v1.44/nodes/node-5", "/v1.44/containers/web-10.0.0.5/json"} { // a name that somebody gave
		if code, body := s.ask("GET", path, "", nil); code != http.StatusOK {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
}

// TestVolumeThere creates a volume that is there already: who may not get it is told no more than what it asked for.
func TestVolumeThere(t *testing.T) {
	t.Parallel()
	const was = `{"Name":"data","Driver":"local","Mountpoint":"/var/lib/docker/volumes/data","CreatedAt":"2026-01-01T00:00:00Z",` +
		`"Labels":{"team":"payments"},"Options":{"o":"username=root,password=of-the-share"},"Scope":"local"}`
	creates := func(gets bool) fakePolicy {
		return fakePolicy{judge: func(_ modules.Subject, verb neutral.Verb, o neutral.Object) modules.Judgement {
			if verb == neutral.Get && (!gets || o.Labels["team"] != "payments") {
				return denied
			}
			return allowed
		}}
	}
	create := func(policy fakePolicy, status int, body string) (int, string) {
		s := newSameType(t, neutral.Docker, policy, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		})
		return s.ask("POST", "/v1.44/volumes/create", `{"Name":"data","Labels":{"mine":"yes"}}`, http.Header{"Content-Type": {"application/json"}})
	}
	code, body := create(creates(false), http.StatusCreated, was)
	if code != http.StatusCreated || !strings.Contains(body, `"Name":"data"`) || !strings.Contains(body, `"mine":"yes"`) {
		t.Errorf("%d %s", code, body)
	}
	for _, word := range []string{"payments", "/var/lib", "2026", "username"} {
		if strings.Contains(body, word) {
			t.Errorf("who may not get it is told %s: %s", word, body)
		}
	}
	if code, body := create(creates(true), http.StatusCreated, was); code != http.StatusCreated || !strings.Contains(body, "payments") {
		t.Errorf("who may get it: %d %s", code, body)
	}
	code, body = create(creates(false), http.StatusConflict, `{"message":"a volume named data already exists with the secret driver"}`)
	if code != http.StatusConflict || strings.Contains(body, "secret") || !strings.Contains(body, "volume of this name") {
		t.Errorf("a conflict: %d %s", code, body)
	}
	if code, body = create(creates(false), http.StatusBadRequest, `{"message":"no such driver"}`); code != http.StatusBadRequest || !strings.Contains(body, "no such driver") {
		t.Errorf("an error: %d %s", code, body)
	}
}
