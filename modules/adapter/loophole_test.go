package adapter_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
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
		if o.Container == nil || o.Container.Network == neutral.NetworkHost {
			return denied
		}
		return allowed
	}}
	for body, status := range map[string]int{
		`{"Image":"b","HostConfig":{"devices":[{"PathOnHost":"/dev/sda"}]}}`:    501,
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
