package adapter_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/adapter"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/docker"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes"
	"github.com/isthmus-mesh/isthmus/modules/adapter/mask"
	"github.com/isthmus-mesh/isthmus/modules/load"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// sameType is a gateway before an orchestrator whose answers the test writes, asked by a peer of the same type.
type sameType struct {
	t      *testing.T
	module *adapter.Module
	url    string
	peer   modules.Peer
	ended  chan ending
	limits load.Limits // of every peer
	load   *load.Load
}

var testMask = mask.New(bytes.Repeat([]byte{1}, mask.KeySize))

// standIn is how an address is shown.
func standIn(text string) string { return testMask.String(text) }

func newSameType(t *testing.T, of neutral.Orchestrator, policy modules.Policy, native http.HandlerFunc) *sameType {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/v1/pods" && r.Header.Get("User-Agent") == "isthmus" { // the gateway's own cache
			if r.URL.Query().Get("watch") != "" {
				<-r.Context().Done()
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}`)
			return
		}
		native(w, r)
	}))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	s := &sameType{t: t, ended: make(chan ending, 64), peer: modules.Peer{Name: "south", Orchestrator: of, Ready: true}}
	var target dialect.Cluster
	var err error
	if of == neutral.Kubernetes {
		server.StartTLS()
		kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
		authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
		config := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{name: c, cluster: {server: %q, certificate-authority-data: %s}}]\n"+
			"contexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {token: %s}}]\n",
			server.URL, base64.StdEncoding.EncodeToString(authority), fakeToken)
		if err := os.WriteFile(kubeconfig, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		target, err = kubernetes.Dialect{}.Connect(t.Context(), dialect.Config{Cluster: "east", Kubeconfig: kubeconfig, Impersonate: true})
	} else {
		server.Start()
		target, err = docker.Dialect{}.Connect(t.Context(), dialect.Config{Cluster: "west", Endpoint: "tcp://" + server.Listener.Addr().String()})
	}
	if err != nil {
		t.Fatal(err)
	}
	s.load = load.New(load.Config{Limits: func(string) load.Limits { return s.limits }})
	s.module = adapter.New(adapter.Config{Cluster: "east", Orchestrator: of, Load: s.load, Dialects: adapter.Dialects, Target: target,
		APIVersion: func() string { return "1.44" }, Policy: func() modules.Policy { return policy }, Log: slog.New(slog.DiscardHandler), Mask: testMask})
	bridge := adapter.NewBridge(adapter.BridgeConfig{Module: s.module, Observer: &fakeObserver{ended: s.ended}, BodyLimit: 1 << 20,
		Peer: func(string) modules.Peer { return s.peer }})
	front := httptest.NewServer(bridge)
	front.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	s.url = front.URL
	t.Cleanup(func() {
		front.CloseClientConnections()
		front.Close()
		bridge.Close()
		server.CloseClientConnections()
		if err := target.Close(); err != nil {
			t.Error(err)
		}
		server.Close()
	})
	return s
}

// send asks as the peer, once the decision says that the bridge carries it out.
func (s *sameType) send(method, path, body string, header http.Header) *http.Response {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for key, values := range header {
		req.Header[key] = values
	}
	verdict, err := s.module.Decide(s.t.Context(), &modules.Request{Class: modules.ContainerOperation, Peer: s.peer, Method: method, Path: path, Header: req.Header})
	if err == nil && (verdict.Route == nil || verdict.Route.Upstream != names.Bridge) {
		s.t.Fatalf("%s %s is not carried out by the bridge: %+v", method, path, verdict)
	}
	response, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { response.Body.Close() })
	return response
}

// ask is send with the whole answer.
func (s *sameType) ask(method, path, body string, header http.Header) (int, string) {
	s.t.Helper()
	response := s.send(method, path, body, header)
	text, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	if end := <-s.ended; end.err == nil && end.record.Status != response.StatusCode && end.record.Status != 0 {
		s.t.Errorf("%s %s is recorded as %+v", method, path, end)
	}
	return response.StatusCode, string(text)
}

func answers(kind, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		_, _ = io.WriteString(w, body)
	}
}

// showing is a policy that shows.
var showing = fakePolicy{foresee: always(modules.Judgement{Allowed: true, Rule: "fake/0", ShowAddresses: true})}

// front lets the objects be seen that are labelled so, and shows the addresses of those in namespace open.
var front = fakePolicy{foresee: always(open), judge: func(_ modules.Subject, _ neutral.Verb, o neutral.Object) modules.Judgement {
	if o.Labels["tier"] != "front" {
		return denied
	}
	return modules.Judgement{Allowed: true, Rule: "front/0", ShowAddresses: o.Namespace == "open"}
}}

const listed = `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[` +
	`{"metadata":{"name":"a","namespace":"open","labels":{"tier":"front"}},"status":{"podIP":"10.0.0.1"}},` +
	`{"metadata":{"name":"b","namespace":"shut","labels":{"tier":"front"}},"status":{"podIP":"10.0.0.2"}},` +
	`{"metadata":{"name":"c","namespace":"shut","labels":{"tier":"back"}},"status":{"podIP":"10.0.0.3"}}]}`

func TestReadingList(t *testing.T) {
	t.Parallel()
	hidden := newSameType(t, neutral.Kubernetes, fakePolicy{}, answers("application/json", listed))
	response := hidden.send("GET", "/api/v1/pods", "", nil)
	if text, err := io.ReadAll(response.Body); err != nil || string(text) != standIn(listed) {
		t.Errorf("%s, %v", text, err)
	}
	if end := <-hidden.ended; end.err != nil || end.record.Status != http.StatusOK || end.record.Rule != "fake/0" || end.record.Upstream != names.Bridge {
		t.Errorf("%+v", end)
	}
	s := newSameType(t, neutral.Kubernetes, front, answers("application/json", listed))
	_, text := s.ask("GET", "/api/v1/pods", "", nil)
	if !strings.Contains(text, `"10.0.0.1"`) || !strings.Contains(text, standIn("10.0.0.2")) || strings.Contains(text, `"c"`) || !json.Valid([]byte(text)) {
		t.Error(text)
	}
	verdict, err := newSameType(t, neutral.Kubernetes, showing, answers("", "")).module.Decide(t.Context(), &modules.Request{
		Class: modules.ContainerOperation, Peer: kubectl, Method: "GET", Path: "/api/v1/pods", Header: http.Header{}})
	if err != nil || verdict.Route == nil || verdict.Route.Upstream == names.Bridge {
		t.Errorf("what may be shown is read: %+v, %v", verdict, err)
	}
}

// What the gateway asks is what the caller asked, in a form that it can read.
func TestReadingRequest(t *testing.T) {
	t.Parallel()
	var got *http.Request
	s := newSameType(t, neutral.Kubernetes, front, func(w http.ResponseWriter, r *http.Request) {
		got = r.Clone(r.Context())
		w.Header().Set("Etag", "1")
		w.Header().Set("Warning", `299 - "10.0.0.9 is old"`)
		answers("application/json", `{"kind":"Table","columnDefinitions":[{"name":"Name"}],"rows":[{"cells":["a","10.0.0.1"],"object":{"metadata":{"name":"a","labels":{"tier":"front"}}}},`+
			`{"cells":["b","10.0.0.2"],"object":{"metadata":{"name":"b"}}}]}`)(w, r)
	})
	response := s.send("GET", "/api/v1/namespaces/x/pods?limit=500", "", http.Header{"Accept": {"application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io",
		"application/json;as=Table;v=v1;g=meta.k8s.io,application/json, application/yaml"}, "Authorization": {"Bearer callers"}, "If-None-Match": {"1"},
		"X-Isthmus-Link-Caller": {"ci"}, "Accept-Encoding": {"gzip"}})
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	<-s.ended
	if want := `{"kind":"Table","columnDefinitions":[{"name":"Name"}],"rows":[{"cells":["a","` + standIn("10.0.0.1") +
		`"],"object":{"metadata":{"name":"a","labels":{"tier":"front"}}}}]}`; string(text) != want {
		t.Errorf("%s\nwant %s", text, want)
	}
	if response.Header.Get("Etag") != "" || response.Header.Get("Warning") != `299 - "`+standIn("10.0.0.9")+` is old"` {
		t.Errorf("%v", response.Header)
	}
	if got.URL.RawQuery != "includeObject=Object&limit=500" || got.Header.Get("Accept") != "application/json;as=Table;v=v1;g=meta.k8s.io,application/json" ||
		got.Header.Get("Authorization") != "Bearer "+fakeToken || got.Header.Get("If-None-Match") != "" || got.Header.Get("Accept-Encoding") != "identity" ||
		got.Header.Get("X-Isthmus-Link-Caller") != "" || got.Header.Get("Impersonate-User") != "isthmus:peer:south" {
		t.Errorf("%s %v", got.URL, got.Header)
	}
	all := newSameType(t, neutral.Kubernetes, fakePolicy{}, func(w http.ResponseWriter, r *http.Request) {
		got = r.Clone(r.Context())
		answers("application/json", "{}")(w, r)
	})
	all.ask("GET", "/api/v1/namespaces/x/pods?limit=500", "", http.Header{"Accept": {"application/json;as=Table;v=v1;g=meta.k8s.io"}})
	if got.URL.RawQuery != "limit=500" {
		t.Errorf("for a list that is not filtered more is asked: %s", got.URL)
	}
	if status, text := s.ask("GET", "/api/v1/pods", "", http.Header{"Accept": {"application/vnd.kubernetes.protobuf"}}); status != http.StatusNotImplemented ||
		!strings.Contains(text, "application/json") {
		t.Errorf("%d %s", status, text)
	}
}

// A watch tells each event when it happens, of what may be seen, and that what may be seen no more is gone.
func TestReadingWatch(t *testing.T) {
	t.Parallel()
	events := make(chan string)
	listed := 0
	s := newSameType(t, neutral.Kubernetes, front, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Query().Get("watch") == "" {
			if listed++; r.URL.RawQuery != "labelSelector=a&resourceVersion=7&resourceVersionMatch=Exact" {
				t.Errorf("%s is asked", r.URL)
			}
			_, _ = io.WriteString(w, `{"items":[{"metadata":{"name":"c","uid":"u-c","labels":{"tier":"front"}}},{"metadata":{"name":"b","uid":"u-b"}}]}`)
			return
		}
		for {
			_ = http.NewResponseController(w).Flush()
			select {
			case event := <-events:
				_, _ = io.WriteString(w, event+"\n")
			case <-r.Context().Done():
				return
			}
		}
	})
	response := s.send("GET", "/api/v1/namespaces/x/pods?watch=1&resourceVersion=7&labelSelector=a&allowWatchBookmarks=true", "", nil)
	lines := make(chan string)
	go func() {
		for scanner := bufio.NewScanner(response.Body); scanner.Scan(); {
			lines <- scanner.Text()
		}
		close(lines)
	}()
	event := func(kind, name, tier string) string {
		return fmt.Sprintf(`{"type":%q,"object":{"kind":"Pod","metadata":{"name":%q,"uid":"u-%s","labels":{"tier":%q}},"status":{"podIP":"10.0.0.1"}}}`, kind, name, name, tier)
	}
	for _, c := range [][2]string{
		{event("ADDED", "a", "front"), "=="},
		{event("ADDED", "b", "back"), ""},
		{`{"type":"BOOKMARK","object":{"kind":"Pod","metadata":{"resourceVersion":"9"}}}`, "=="},
		{event("MODIFIED", "a", "back"), `{"object":{"kind":"Pod","metadata":{"name":"a","uid":"u-a"}},"type":"DELETED"}`},
		{event("MODIFIED", "a", "back"), ""},
		{event("DELETED", "b", "back"), ""},
		{event("MODIFIED", "c", "back"), `{"object":{"kind":"Pod","metadata":{"name":"c","uid":"u-c"}},"type":"DELETED"}`},
		{event("DELETED", "c", "back"), ""},
		{event("MODIFIED", "b", "front"), "=="},
		{event("DELETED", "b", "front"), "=="},
		{`{"type":"ERROR","object":{"kind":"Status","message":"etcd at 10.0.0.9","code":410}}`, "=="},
	} {
		events <- c[0]
		want := c[1]
		switch want {
		case "":
			continue
		case "==":
			want = standIn(c[0])
		}
		select {
		case got := <-lines:
			if got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("%s is not told", want)
		}
	}
	if err := response.Body.Close(); err != nil || listed != 1 {
		t.Errorf("%d lists, %v", listed, err)
	}
	select {
	case end := <-s.ended:
		if end.err != nil || end.record.Rule != "front/0" {
			t.Errorf("%+v", end)
		}
	case <-time.After(5 * time.Second):
		t.Error("the watch does not end with its caller")
	}
}

// As a table, a watch says its columns once, and with the first event that the caller sees.
func TestReadingWatchedTable(t *testing.T) {
	t.Parallel()
	row := func(name, tier, columns string) string {
		return fmt.Sprintf(`{"type":"ADDED","object":{"kind":"Table","columnDefinitions":%s,"rows":[{"cells":[%q,"10.0.0.1"],"object":{"metadata":{"name":%q,"uid":%q,"labels":{"tier":%q}}}}]}}`,
			columns, name, name, name, tier)
	}
	s := newSameType(t, neutral.Kubernetes, front, answers("application/json", row("a", "back", `[{"name":"Name"}]`)+"\n"+row("b", "front", "null")+"\n"+
		row("c", "front", "[]")+"\n"+strings.Replace(row("c", "back", "[]"), "ADDED", "MODIFIED", 1)+"\n"))
	_, text := s.ask("GET", "/api/v1/namespaces/x/pods?watch=1", "", http.Header{"Accept": {"application/json;as=Table;v=v1;g=meta.k8s.io"}})
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) != 3 || strings.Count(text, `"columnDefinitions":[{"name":"Name"}]`) != 1 || !strings.Contains(lines[0], `"columnDefinitions":[{"name":"Name"}]`) ||
		strings.Contains(text, `"a"`) || strings.Contains(text, "10.0.0.1") || !strings.Contains(lines[2], `"cells":["c",""]`) || !strings.Contains(lines[2], `"DELETED"`) {
		t.Error(text)
	}
}

// What does not become a whole answer is told to the caller: in words before it has begun, by a broken answer after.
func TestReadingFails(t *testing.T) {
	t.Parallel()
	large := `{"kind":"Pod","metadata":{"name":"a","annotations":{"a":"` + strings.Repeat("x", 9<<20) + `"}}}`
	for name, c := range map[string]struct {
		native http.HandlerFunc
		status int
		text   string
	}{
		"an error names an address": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = io.WriteString(w, `{"kind":"Status","message":"dial tcp 10.0.0.1:10250: refused","code":500}`)
		}, 500, standIn("dial tcp 10.0.0.1:10250")},
		"a text": {func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "no backend 10.0.0.1", http.StatusBadGateway)
		}, 502,
			standIn("no backend 10.0.0.1")},
		"a long text":     {answers("text/plain", strings.Repeat("x ", 4000)+"10.0.0.1\n10.0.0.1"), 200, standIn("10.0.0.1\n10.0.0.1")},
		"too long a line": {answers("text/plain", strings.Repeat("x", 2<<20)), 413, "more than"},
		"nothing":         {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }, 200, ""},
		"no content":      {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, 204, ""},
		"another form":    {answers("application/vnd.kubernetes.protobuf", "k8s\x0010.0.0.1"), 503, "a form that the gateway does not read"},
		"no JSON":         {answers("application/json", `{"ip":"10.0.0.1`), 503, "could not be read"},
		"too large":       {answers("application/json", large), 413, "more than 8388608 bytes"},
		"packed unasked": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			answers("application/json", "{}")(w, r)
		}, 503, "a form"},
		"an orchestrator is gone": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 503, "cannot be reached"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSameType(t, neutral.Kubernetes, fakePolicy{}, c.native)
			status, text := s.ask("GET", "/api/v1/namespaces/x/pods/a", "", nil)
			if status != c.status || !strings.Contains(text, c.text) || strings.Contains(text, "10.0.0.1") {
				t.Errorf("%d %.300s", status, text)
			}
		})
	}
	many := `{"kind":"PodList","items":[` + strings.Repeat(`{"metadata":{"name":"a"}},`, 9000)
	s := newSameType(t, neutral.Kubernetes, fakePolicy{}, answers("application/json", many))
	response := s.send("GET", "/api/v1/pods", "", nil)
	if _, err := io.Copy(io.Discard, response.Body); err == nil {
		t.Error("a list that breaks off ends well")
	}
}

// What is a container's own crosses without the gateway, and so does what says which resources there are.
func TestUnread(t *testing.T) {
	t.Parallel()
	const pod = "/api/v1/namespaces/x/pods/a"
	for of, requests := range map[neutral.Orchestrator][]string{
		neutral.Kubernetes: {"GET " + pod + "/log?follow=true", "POST " + pod + "/exec?command=sh", "POST " + pod + "/attach", "POST " + pod + "/portforward",
			"GET " + pod + "/proxy/x", "GET /openapi/v2", "GET /apis/apps/v1", "GET /version", "GET /healthz"},
		neutral.Docker: {"GET /containers/a/logs", "GET /containers/a/stats", "GET /containers/a/archive?path=/", "PUT /containers/a/archive?path=/",
			"GET /containers/a/export", "POST /build", "GET /images/get?names=a", "POST /images/load", "POST /containers/a/wait", "GET /_ping"},
	} {
		s := newSameType(t, of, fakePolicy{}, answers("", ""))
		for _, request := range requests {
			method, path, _ := strings.Cut(request, " ")
			verdict, err := s.module.Decide(t.Context(), &modules.Request{Class: modules.ContainerOperation, Peer: s.peer, Method: method, Path: path, Header: http.Header{}})
			if err != nil || verdict.Route == nil || verdict.Route.Upstream == names.Bridge {
				t.Fatalf("%s: %+v, %v", request, verdict, err)
			}
			hide := map[bool]string{true: names.HideUnreachable, false: names.HideFailures}[strings.Contains(path, "/proxy")]
			if path == "/healthz" || path == "/_ping" {
				hide = ""
			}
			if got := verdict.Route.Set.Get(names.HeaderHide); got != hide {
				t.Errorf("%s: failures are hidden as %q", request, got)
			}
		}
	}
}

var versionless = regexp.MustCompile(`^/v1\.[0-9]+`)

func TestReadingDocker(t *testing.T) {
	t.Parallel()
	front := fakePolicy{foresee: always(open), judge: front.judge}
	answer := map[string]string{
		"/containers/json": `[{"Id":"1","Names":["/a"],"Labels":{"tier":"front"},"NetworkSettings":{"Networks":{"bridge":{"IPAddress":"172.17.0.2","MacAddress":"02:42:ac:11:00:02"}}}},` +
			`{"Id":"2","Names":["/b"],"Labels":{}}]`,
		"/volumes":  `{"Volumes":[{"Name":"a","Labels":{"tier":"front"}},{"Name":"b"}],"Warnings":null}`,
		"/services": `[{"ID":"s","Spec":{"Name":"web","Labels":{"tier":"front"}}},{"ID":"t","Spec":{"Name":"db","Labels":{}}}]`,
		"/tasks":    `[{"ID":"1","ServiceID":"s","NetworksAttachments":[{"Addresses":["10.0.1.3/24"]}]},{"ID":"2","ServiceID":"t"}]`,
		"/events": `{"Type":"container","Action":"start","Actor":{"ID":"1","Attributes":{"name":"a","tier":"front"}}}` + "\n" +
			`{"Type":"container","Action":"start","Actor":{"ID":"2","Attributes":{"name":"b"}}}` + "\n",
		"/system/df": `{"LayersSize":1,"Images":[{"Id":"i","RepoTags":["b:1"],"Labels":null},{"Id":"j","RepoTags":null,"Labels":{"tier":"front"}}],` +
			`"Containers":[{"Id":"2","Names":["/b"]}],"Volumes":[{"Name":"a","Mountpoint":"/x","Labels":{"tier":"front"}},{"Name":"b","Mountpoint":"/y"}]}`,
		"/info": `{"Swarm":{"NodeAddr":"10.103.0.1","RemoteManagers":[{"Addr":"10.103.0.1:2377"}]},"HttpProxy":"http://u:p@10.0.0.1:3128/"}`,
	}
	s := newSameType(t, neutral.Docker, front, func(w http.ResponseWriter, r *http.Request) {
		body, ok := answer[versionless.ReplaceAllString(r.URL.Path, "")]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			body = `{"message":"no such thing"}`
		}
		answers("application/json", body)(w, r)
	})
	for path, wants := range map[string][]string{
		"/containers/json": {`"/a"`, standIn("172.17.0.2"), standIn("02:42:ac:11:00:02")},
		"/volumes":         {`[{"Name":"a",`, `"Warnings":null`},
		"/services":        {`"web"`},
		"/tasks":           {`"s"`, standIn("10.0.1.3") + "/24"},
		"/events":          {`"a"`},
	} {
		status, text := s.ask("GET", path, "", nil)
		for _, want := range wants {
			if status != http.StatusOK || !strings.Contains(text, want) {
				t.Errorf("%s: %d %s", path, status, text)
			}
		}
		for _, unseen := range []string{"172.17", "ac:11:00", "10.0.1.3", `"b"`, `/b"`, `"t"`, `"db"`} {
			if strings.Contains(text, unseen) {
				t.Errorf("%s tells of %s: %s", path, unseen, text)
			}
		}
	}
	usage := newSameType(t, neutral.Docker, fakePolicy{judge: front.judge}, answers("application/json", answer["/system/df"]))
	if _, text := usage.ask("GET", "/system/df", "", nil); !strings.Contains(text, `"Images":[{"Id":"j","RepoTags":null,"Labels":{"tier":"front"}}],"Containers":[],"Volumes":[{"Name":"a"`) ||
		strings.Contains(text, `"b"`) {
		t.Error(text)
	}
	network := newSameType(t, neutral.Docker, fakePolicy{foresee: always(modules.Judgement{Allowed: true, ShowAddresses: true}), judge: front.judge}, func(w http.ResponseWriter, r *http.Request) {
		path := versionless.ReplaceAllString(r.URL.Path, "")
		body := map[string]string{"/networks/n": `{"Name":"n","Containers":{"1":{"Name":"a","IPv4Address":"172.17.0.2/16"},"2":{"Name":"b"}}}`,
			"/containers/1/json": `{"Id":"1","Name":"/a","Config":{"Labels":{"tier":"front"}},"HostConfig":{},"NetworkSettings":{}}`,
			"/containers/2/json": `{"Id":"2","Name":"/b","Config":{"Labels":{}},"HostConfig":{},"NetworkSettings":{}}`}[path]
		answers("application/json", body)(w, r)
	})
	if _, text := network.ask("GET", "/networks/n", "", nil); text != `{"Name":"n","Containers":{"1":{"Name":"a","IPv4Address":"172.17.0.2/16"}}}` {
		t.Error(text)
	}
	all := newSameType(t, neutral.Docker, fakePolicy{}, answers("application/json", answer["/info"]))
	if _, text := all.ask("GET", "/info", "", nil); text != `{"Swarm":{"NodeAddr":"`+standIn("10.103.0.1")+`","RemoteManagers":[{"Addr":"`+standIn("10.103.0.1")+
		`:2377"}]},"HttpProxy":"http://u:hidden-by-isthmus@`+standIn("10.0.0.1")+`:3128/"}` {
		t.Error(text)
	}
	if status, _ := all.ask("POST", "/containers/create", "{}", http.Header{"X-Isthmus-Link-Session": {"tcp"}}); status != http.StatusBadRequest {
		t.Errorf("a session that is none: %d", status)
	}
}
