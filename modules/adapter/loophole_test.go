package adapter_test

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// What names no object is not let in by a condition that the empty name happens to meet.
func TestNamelessWrites(t *testing.T) {
	t.Parallel()
	notDB := fakePolicy{foresee: always(open), judge: func(_ modules.Subject, _ neutral.Verb, o neutral.Object) modules.Judgement {
		if o.Name == "db" {
			return denied
		}
		return allowed
	}}
	for of, requests := range map[neutral.Orchestrator][][2]string{
		neutral.Kubernetes: {
			{"DELETE", "/api/v1/namespaces/x/pods"}, {"DELETE", "/api/v1/namespaces/x/pods?labelSelector=a"}, {"DELETE", "/apis/apps/v1/namespaces/x/deployments"},
			{"POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/x/rolebindings"},
		},
		neutral.Docker: {
			{"POST", "/v1.44/containers/prune"}, {"POST", "/v1.44/volumes/prune"}, {"POST", "/v1.44/networks/prune"}, {"POST", "/v1.44/images/prune?filters=%7B%7D"},
			{"POST", "/v1.44/build/prune"},
		},
	} {
		s := newSameType(t, of, notDB, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%s %s arrives", r.Method, r.URL) })
		for _, request := range requests {
			verdict, err := s.module.Decide(t.Context(), &modules.Request{Class: modules.ContainerOperation, Peer: s.peer, Method: request[0], Path: request[1],
				Header: http.Header{}})
			if !fault.Is(err, fault.Denied) {
				t.Errorf("%v: %+v, %v", request, verdict, err)
			}
		}
	}
}

// Docker takes a field in any spelling, may know more fields than the gateway, and lets a container share the network of
// another one.
func TestDockerSpellings(t *testing.T) {
	t.Parallel()
	bridged := fakePolicy{foresee: always(open), judge: func(_ modules.Subject, _ neutral.Verb, o neutral.Object) modules.Judgement {
		if o.Container == nil || o.Container.Network == neutral.NetworkHost || len(o.Container.Security.Devices) > 0 {
			return denied
		}
		return allowed
	}}
	for body, status := range map[string]int{
		`{"Image":"b","HostConfig":{"devices":[{"PathOnHost":"/dev/sda"}]}}`:    403,
		`{"Image":"b","hostConfig":{"volumesFrom":["other"]}}`:                  501,
		`{"Image":"b","HostConfig":{"pidmode":"container:x"}}`:                  501,
		"{\"Image\":\"b\",\"HostConfig\":{\"Lin\u212as\":[\"a:b\"]}}":           501,
		`{"Image":"b","HostConfig":{"OfAFutureVersion":1}}`:                     501,
		`{"Image":"b","HostConfig":{"OfAFutureVersion":false,"oomscoreadj":5}}`: 200,
		`{"Image":"b","HostConfig":{"NetworkMode":"container:alone"}}`:          200,
		`{"Image":"b","HostConfig":{"NetworkMode":"container:host"}}`:           403,
		`{"Image":"b","HostConfig":{"NetworkMode":"container:second"}}`:         403,
	} {
		s := newSameType(t, neutral.Docker, bridged, func(w http.ResponseWriter, r *http.Request) {
			for name, mode := range map[string]string{"alone": "bridge", "host": "host", "second": "container:host"} {
				if strings.HasSuffix(r.URL.Path, "/containers/"+name+"/json") {
					answers("application/json", `{"Id":"`+name+`","Name":"/`+name+`","Config":{},"HostConfig":{"NetworkMode":"`+mode+`"},"NetworkSettings":{}}`)(w, r)
					return
				}
			}
			answers("application/json", `{"Id":"1"}`)(w, r)
		})
		if got, text := s.ask("POST", "/v1.44/containers/create?name=web", body, http.Header{"Content-Type": {"application/json"}}); got != status {
			t.Errorf("%s: %d %s", body, got, text)
		}
	}
}

// A process of an exec has what the exec gives it, and a volume may be a path of the host.
func TestDockerDetours(t *testing.T) {
	t.Parallel()
	plain := fakePolicy{foresee: always(open), judge: func(_ modules.Subject, _ neutral.Verb, o neutral.Object) modules.Judgement {
		if o.Kind == neutral.KindVolume {
			if o.Volume == nil || len(o.Volume.HostPaths) > 0 {
				return denied
			}
			return allowed
		}
		if o.Container == nil || o.Container.Security.Privileged || o.Container.User == "root" {
			return denied
		}
		for _, m := range o.Container.Mounts {
			if m.Type == "bind" {
				return denied
			}
		}
		return allowed
	}}
	const container = `{"Id":"1","Name":"/web","Config":{"User":"nobody"},"HostConfig":{"NetworkMode":"bridge"},"NetworkSettings":{}}`
	for request, status := range map[[2]string]int{
		{"/v1.44/containers/web/exec", `{"Cmd":["sh"]}`}:                                                      200,
		{"/v1.44/containers/web/exec", `{"Cmd":["sh"],"Privileged":true}`}:                                    403,
		{"/v1.44/containers/web/exec", `{"Cmd":["sh"],"privileged":true}`}:                                    403,
		{"/v1.44/containers/web/exec", `{"Cmd":["sh"],"User":"root"}`}:                                        403,
		{"/v1.44/containers/create?name=web", `{"Image":"b","HostConfig":{"Binds":["plain:/x","fresh:/y"]}}`}: 200,
		{"/v1.44/containers/create?name=web", `{"Image":"b","HostConfig":{"Binds":["plain:/x","hosts:/y"]}}`}: 403,
		{"/v1.44/volumes/create", `{"Name":"a"}`}:                                                             200,
		{"/v1.44/volumes/create", `{"Name":"a","driverOpts":{"type":"none","o":"bind","device":"/"}}`}:        403,
	} {
		wrote := false
		s := newSameType(t, neutral.Docker, plain, func(w http.ResponseWriter, r *http.Request) {
			switch {
			case strings.HasSuffix(r.URL.Path, "/containers/web/json"):
				answers("application/json", container)(w, r)
			case strings.HasSuffix(r.URL.Path, "/volumes/plain"):
				answers("application/json", `{"Name":"plain","Driver":"local","Options":null}`)(w, r)
			case strings.HasSuffix(r.URL.Path, "/volumes/hosts"):
				answers("application/json", `{"Name":"hosts","Driver":"local","Options":{"type":"none","o":"bind","device":"/etc"}}`)(w, r)
			case r.Method == http.MethodGet:
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusNotFound)
				_, _ = io.WriteString(w, `{"message":"no such thing"}`)
			default:
				wrote = wrote || r.Method == http.MethodPost
				answers("application/json", `{"Id":"1"}`)(w, r)
			}
		})
		if got, text := s.ask("POST", request[0], request[1], http.Header{"Content-Type": {"application/json"}}); got != status || wrote != (status == 200) {
			t.Errorf("%v: %d %s, wrote %v", request, got, text, wrote)
		}
	}
}

// A name that a container asks for may come to be another object's before the engine makes the container, which is then
// looked at once more: it has not run yet, and is taken back.
func TestDockerNameTaken(t *testing.T) {
	t.Parallel()
	plain := fakePolicy{foresee: always(open), judge: func(_ modules.Subject, _ neutral.Verb, o neutral.Object) modules.Judgement {
		if o.Container == nil || slices.ContainsFunc(o.Container.Mounts, func(m neutral.Mount) bool { return m.Type == "bind" }) {
			return denied
		}
		return allowed
	}}
	for device, status := range map[string]int{"": 201, "/etc": 403} {
		made, removed := false, false
		s := newSameType(t, neutral.Docker, plain, func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.Method == http.MethodPost:
				made = true
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusCreated)
				_, _ = io.WriteString(w, `{"Id":"1","Warnings":[]}`)
			case r.Method == http.MethodDelete && strings.HasSuffix(r.URL.Path, "/containers/1"):
				removed = true
				w.WriteHeader(http.StatusNoContent)
			case made && strings.HasSuffix(r.URL.Path, "/containers/1/json"):
				answers("application/json", `{"Id":"1","Name":"/web","Config":{},"HostConfig":{},"NetworkSettings":{},"Mounts":[{"Type":"volume","Name":"fresh","Destination":"/y"}]}`)(w, r)
			case made && device != "" && strings.HasSuffix(r.URL.Path, "/volumes/fresh"):
				answers("application/json", `{"Name":"fresh","Driver":"local","Options":{"o":"bind","device":"`+device+`"}}`)(w, r)
			default:
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusNotFound)
				_, _ = io.WriteString(w, `{"message":"no such thing"}`)
			}
		})
		got, text := s.ask("POST", "/v1.44/containers/create?name=web", `{"Image":"b","HostConfig":{"Binds":["fresh:/y"]}}`, http.Header{"Content-Type": {"application/json"}})
		if got != status || !made || removed != (status == 403) || status == 201 && !strings.Contains(text, `"Id":"1"`) {
			t.Errorf("%q: %d %s, made %v, removed %v", device, got, text, made, removed)
		}
	}
}

// An ephemeral container is a container: who may exec alone gives it neither its image nor its rights.
func TestEphemeralContainer(t *testing.T) {
	t.Parallel()
	const path = "/api/v1/namespaces/x/pods/web/ephemeralcontainers"
	const pod = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","namespace":"x","resourceVersion":"7","labels":{}},"spec":{"containers":[{"name":"a","image":"i"}]}}`
	mighty := strings.Replace(pod, `]}}`, `],"ephemeralContainers":[{"name":"d","image":"i","securityContext":{"privileged":true}}]}}`, 1)
	modestly := strings.Replace(pod, `]}}`, `],"ephemeralContainers":[{"name":"d","image":"i"}]}}`, 1)
	header := http.Header{"Content-Type": {"application/strategic-merge-patch+json"}}
	for tried, status := range map[string]int{mighty: 403, modestly: 200} {
		api := &fakeObjects{t: t, object: pod, tried: tried}
		s := newSameType(t, neutral.Kubernetes, modest, api.ServeHTTP)
		if got, text := s.ask("PATCH", path, `{"spec":{}}`, header); got != status || (len(api.wrote) == 1) != (status == 200) {
			t.Errorf("%d %s, wrote %v", got, text, api.wrote)
		}
	}
	execOnly := fakePolicy{foresee: func(_ modules.Subject, verb neutral.Verb, _ neutral.Object) modules.Judgement {
		if verb == neutral.Exec {
			return allowed
		}
		return denied
	}}
	s := newSameType(t, neutral.Kubernetes, execOnly, answers("application/json", pod))
	verdict, err := s.module.Decide(t.Context(), &modules.Request{Class: modules.ContainerOperation, Peer: s.peer, Method: "PATCH", Path: path, Header: header})
	if !fault.Is(err, fault.Denied) {
		t.Errorf("%+v, %v", verdict, err)
	}
}

// The API server tells its own address where one asks what it serves and how to verify its tokens, in whatever form.
func TestReadingDiscovery(t *testing.T) {
	t.Parallel()
	const body = `{"kind":"APIVersions","serverAddressByClientCIDRs":[{"clientCIDR":"0.0.0.0/0","serverAddress":"172.18.0.2:6443"}],"jwks_uri":"https://172.18.0.2:6443/openid/v1/jwks"}`
	s := newSameType(t, neutral.Kubernetes, fakePolicy{}, answers("application/json", body))
	for path, accept := range map[string]string{
		"/api":                              "application/json, application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList;q=0.5",
		"/api/":                             "application/json;g=apidiscovery.k8s.io;v=v9;as=APIGroupDiscoveryList",
		"/apis":                             "",
		"/.well-known/openid-configuration": "text/html",
		"/openid/v1/jwks":                   "application/jwk-set+json",
	} {
		header := http.Header{}
		if accept != "" {
			header.Set("Accept", accept)
		}
		if status, text := s.ask("GET", path, "", header); status != http.StatusOK || text != standIn(body) {
			t.Errorf("%s: %d %s", path, status, text)
		}
	}
}

// A table's rows without their objects are not judged as if those had no names.
func TestReadingBareRows(t *testing.T) {
	t.Parallel()
	notDB := fakePolicy{foresee: always(open), judge: func(_ modules.Subject, _ neutral.Verb, o neutral.Object) modules.Judgement {
		if o.Name == "db" {
			return denied
		}
		return allowed
	}}
	s := newSameType(t, neutral.Kubernetes, notDB, func(w http.ResponseWriter, r *http.Request) {
		row := `{"kind":"Table","columnDefinitions":[{"name":"Name"}],"rows":[{"cells":["db"],"object":null},{"cells":["db"]}]}`
		if r.URL.Query().Get("watch") != "" {
			row = `{"type":"ADDED","object":{"kind":"Table","columnDefinitions":[{"name":"Name"}],"rows":[{"cells":["db"],"object":null}]}}`
		}
		answers("application/json", row)(w, r)
	})
	for _, query := range []string{"", "&watch=1"} {
		_, text := s.ask("GET", "/api/v1/namespaces/x/configmaps?includeObject=None"+query, "", http.Header{"Accept": {`application/json;as="Table";v=v1;g=meta.k8s.io`}})
		if strings.Contains(text, "db") {
			t.Error(text)
		}
	}
}

// What a docker client wrote is kept beside the Pod, and is not told to those who read the Pod.
func TestReadingOrigin(t *testing.T) {
	t.Parallel()
	s := newSameType(t, neutral.Kubernetes, fakePolicy{}, answers("application/json",
		`{"kind":"Pod","metadata":{"name":"web","annotations":{"isthmus.io/origin":"docker:plain:{\"Image\":\"i\",\"Env\":[\"DB_PASSWORD=s3cret\"]}"}}}`))
	response := s.send("GET", "/api/v1/namespaces/x/pods/web", "", nil)
	text, err := io.ReadAll(response.Body)
	if err != nil || strings.Contains(string(text), "s3cret") || !strings.Contains(string(text), `"isthmus.io/origin":"hidden-by-isthmus"`) {
		t.Errorf("%s, %v", text, err)
	}
}

// An engine lets everybody have every exec; here it is its maker's alone, also for one who found its id elsewhere.
func TestDockerExecIsItsMakers(t *testing.T) {
	t.Parallel()
	id := strings.Repeat("ab", 32)
	arrived := 0
	s := newSameType(t, neutral.Docker, showing, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/containers/web/exec") {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, `{"Id":"`+id+`"}`)
			return
		}
		arrived++
		answers("application/json", `{"ID":"`+id+`","Running":true}`)(w, r)
	})
	ask := func(caller, method, path string) (int, string) {
		verdict, err := s.module.Decide(t.Context(), &modules.Request{Class: modules.ContainerOperation, Peer: s.peer, Caller: caller, Method: method, Path: path, Header: http.Header{}})
		if err == nil && verdict.Route.Upstream != names.Bridge { // its answer crosses unread
			return http.StatusOK, ""
		}
		request, failed := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(`{}`))
		if failed != nil {
			t.Fatal(failed)
		}
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set(names.HeaderCaller, caller)
		response, failed := http.DefaultTransport.RoundTrip(request)
		if failed != nil {
			t.Fatal(failed)
		}
		defer func() { _ = response.Body.Close() }()
		text, failed := io.ReadAll(response.Body)
		if failed != nil {
			t.Fatal(failed)
		}
		if (err == nil) != (response.StatusCode < http.StatusBadRequest) {
			t.Errorf("%s %s: decided %v, answered %d", method, path, err, response.StatusCode)
		}
		return response.StatusCode, string(text)
	}
	if status, text := ask("ci", "POST", "/v1.44/containers/web/exec"); status != http.StatusCreated || text != `{"Id":"`+id+`"}` {
		t.Fatalf("%d %s", status, text)
	}
	for _, request := range [][2]string{{"GET", "/v1.44/exec/" + id + "/json"}, {"POST", "/v1.44/exec/" + id + "/start"}, {"POST", "/v1.44/exec/" + id + "/resize?h=1&w=1"}} {
		if status, text := ask("other", request[0], request[1]); status != http.StatusNotFound || strings.TrimSpace(text) != `{"message":"No such exec instance: `+id+`"}` || arrived != 0 {
			t.Errorf("%v: %d %s, %d arrived", request, status, text, arrived)
		}
		if status, text := ask("ci", request[0], request[1]); status != http.StatusOK {
			t.Errorf("%v of its maker: %d %s", request, status, text)
		}
		arrived = 0
	}
}

// A commit's changes know the container's environment.
func TestCommitOfVariables(t *testing.T) {
	t.Parallel()
	arrived := 0
	native := func(w http.ResponseWriter, r *http.Request) {
		arrived++
		answers("application/json", `{"Id":"sha256:1"}`)(w, r)
	}
	s := newSameType(t, neutral.Docker, fakePolicy{}, native)
	for query, status := range map[string]int{"&changes=CMD+true": 200, "": 200, "&changes=CMD+true&changes=LABEL+x%3D%24DB_PASSWORD": 403, "&changes=ENV+x%3D%24%7BDB_PASSWORD%7D": 403} {
		arrived = 0
		if got, text := s.ask("POST", "/v1.44/commit?container=web&repo=x"+query, "", nil); got != status || (arrived == 1) != (status == 200) {
			t.Errorf("%q: %d %s, %d arrived", query, got, text, arrived)
		}
	}
}

// Who may list one object is told of no other one by an API that does not know selectors, as those of others may not.
func TestSelectorThatIsNotKnown(t *testing.T) {
	t.Parallel()
	only := func(_ modules.Subject, _ neutral.Verb, o neutral.Object) modules.Judgement {
		if o.Name != "a" {
			return denied
		}
		return modules.Judgement{Allowed: true, Rule: "fake/0", ShowAddresses: true}
	}
	s := newSameType(t, neutral.Kubernetes, fakePolicy{foresee: only, judge: only}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("watch") != "" {
			answers("application/json", `{"type":"ADDED","object":{"metadata":{"name":"a","uid":"1"}}}`+"\n"+`{"type":"ADDED","object":{"metadata":{"name":"b","uid":"2"}}}`+"\n")(w, r)
			return
		}
		answers("application/json", `{"kind":"WidgetList","items":[{"metadata":{"name":"a"}},{"metadata":{"name":"b"}}]}`)(w, r)
	})
	for _, query := range []string{"fieldSelector=metadata.name%3Da", "watch=1&fieldSelector=metadata.name%3Da"} {
		status, text := s.ask("GET", "/apis/widgets.example.com/v1/namespaces/x/widgets?"+query, "", nil)
		if status != http.StatusOK || !strings.Contains(text, `"name":"a"`) || strings.Contains(text, `"name":"b"`) {
			t.Errorf("%s: %d %s", query, status, text)
		}
	}
}
