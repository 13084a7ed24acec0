package adapter_test

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes"
)

// fakeToken is the gateway's own credential; every call must carry it and no other.
const fakeToken = "the-gateways-own"

// fakeAPI is an API server that gives canned answers and writes down what it was asked. What no answer is there for, it
// has not: objects are not found, lists are empty, watches are silent. It follows nothing but the calls of the case: the
// gateway's own cache of all Pods is served beside, and stays empty.
type fakeAPI struct {
	t      *testing.T
	server *httptest.Server
	files  map[string][]byte // objects that answers name

	mu      sync.Mutex
	answers map[string][]string // by "METHOD /path"; the last one stays
	calls   []string
}

// newFakeAPI starts a server with the answers of an archive: files named "METHOD /path" (WATCH for watches).
func newFakeAPI(t *testing.T, files map[string][]byte, answers map[string][]string) *fakeAPI {
	t.Helper()
	f := &fakeAPI{t: t, files: files, answers: answers}
	f.server = httptest.NewUnstartedServer(f)
	f.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0) // connections that end with the test
	f.server.StartTLS()                                                  // a token goes over nothing less
	t.Cleanup(f.server.Close)
	return f
}

// connect gives the Kubernetes half against the server.
func (f *fakeAPI) connect(namespace string) dialect.Cluster {
	f.t.Helper()
	kubeconfig := filepath.Join(f.t.TempDir(), "kubeconfig")
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.server.Certificate().Raw})
	config := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{name: c, cluster: {server: %q, certificate-authority-data: %s}}]\n"+
		"contexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {token: %s}}]\n",
		f.server.URL, base64.StdEncoding.EncodeToString(authority), fakeToken)
	if err := os.WriteFile(kubeconfig, []byte(config), 0o600); err != nil {
		f.t.Fatal(err)
	}
	cluster, err := kubernetes.Dialect{}.Connect(f.t.Context(), dialect.Config{Cluster: "east", Kubeconfig: kubeconfig,
		Namespace: namespace, Impersonate: true})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		if err := cluster.Close(); err != nil {
			f.t.Error(err)
		}
	})
	return cluster
}

// ServeHTTP answers one call.
func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	watch := r.URL.Query().Get("watch") == "true" || r.URL.Query().Get("watch") == "1"
	if r.URL.Path == "/api/v1/pods" { // the gateway's own cache
		if watch {
			f.hold(w, r)
			return
		}
		f.write(w, http.StatusOK, map[string]any{"kind": "PodList", "apiVersion": "v1", "metadata": map[string]any{"resourceVersion": "1"}})
		return
	}
	if got := r.Header.Values("Authorization"); len(got) != 1 || got[0] != "Bearer "+fakeToken {
		f.t.Errorf("%s %s carries %q", r.Method, r.URL.Path, got)
	}
	user, groups := r.Header.Values("Impersonate-User"), r.Header.Values("Impersonate-Group")
	if slices.Equal(user, []string{"isthmus:peer:west"}) != slices.Equal(groups, []string{"isthmus:peers", "isthmus:peer:west"}) ||
		len(user) == 0 && !isDiscovery(r) && !isAgentLease(r) {
		f.t.Errorf("%s %s is asked as user %q in groups %q", r.Method, r.URL.Path, user, groups)
	}
	for key := range r.Header {
		if strings.HasPrefix(strings.ToLower(key), "x-isthmus-") {
			f.t.Errorf("%s %s carries %s", r.Method, r.URL.Path, key)
		}
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // a caller that is gone
	}
	object := f.object(r.Header.Get("Content-Type"), body)
	f.note(r, object)
	key := r.Method + " " + r.URL.Path
	if watch {
		key = "WATCH " + r.URL.Path
	}
	answer, ok := f.next(key)
	switch {
	case watch:
		f.watch(w, r, answer)
	case ok:
		f.answer(w, r, answer, object)
	case r.Method == http.MethodGet && listKinds[path.Base(r.URL.Path)] != "":
		f.list(w, nil, listKinds[path.Base(r.URL.Path)])
	default:
		f.status(w, http.StatusNotFound, r.URL.Path, "NotFound", "not found")
	}
}

// isDiscovery is what the gateway asks for itself: which resources there are.
func isDiscovery(r *http.Request) bool {
	return r.Method == http.MethodGet && (r.URL.Path == "/api" || r.URL.Path == "/apis" || strings.Count(r.URL.Path, "/") <= 3 && !strings.Contains(r.URL.Path, "namespaces"))
}

// listKinds are the lists that are empty unless an answer says better.
var listKinds = map[string]string{
	"pods": "v1 PodList", "nodes": "v1 NodeList", "deployments": "apps/v1 DeploymentList", "daemonsets": "apps/v1 DaemonSetList",
	"statefulsets": "apps/v1 StatefulSetList", "jobs": "batch/v1 JobList", "replicasets": "apps/v1 ReplicaSetList",
	"services": "v1 ServiceList", "persistentvolumeclaims": "v1 PersistentVolumeClaimList", "secrets": "v1 SecretList",
	"configmaps": "v1 ConfigMapList", "networkpolicies": "networking.k8s.io/v1 NetworkPolicyList", "endpointslices": "discovery.k8s.io/v1 EndpointSliceList",
}

// next takes the answer to a call.
func (f *fakeAPI) next(key string) (string, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	left := f.answers[key]
	if len(left) == 0 {
		return "", false
	}
	if len(left) > 1 {
		f.answers[key] = left[1:]
	}
	return left[0], true
}

// answer gives one canned answer. Its first line is a status and, optionally, where the body comes from:
//
//	404                    a Status of that code
//	200 list a.yaml b.yaml a list of these objects
//	200 file a.yaml        this object
//	201 echo               what was sent, with what follows merged into it
//	200                    what follows
func (f *fakeAPI) answer(w http.ResponseWriter, r *http.Request, answer string, sent any) {
	head, rest, _ := strings.Cut(answer, "\n")
	words := strings.Fields(head)
	var code int
	if _, err := fmt.Sscanf(head, "%d", &code); err != nil {
		f.t.Errorf("the answer to %s %s has no status: %q", r.Method, r.URL.Path, head)
		return
	}
	switch {
	case len(words) > 1 && words[1] == "list":
		var items []any
		for _, name := range words[2:] {
			items = append(items, f.file(name))
		}
		f.list(w, items, listKinds[path.Base(r.URL.Path)])
	case len(words) > 2 && words[1] == "file":
		f.write(w, code, f.file(words[2]))
	case len(words) > 1 && words[1] == "echo":
		f.write(w, code, merged(sent, f.yaml([]byte(rest))))
	case strings.TrimSpace(rest) == "" && code >= 400:
		reason := map[int]string{403: "Forbidden", 404: "NotFound", 409: "AlreadyExists", 422: "Invalid", 500: "InternalError",
			503: "ServiceUnavailable"}[code]
		message := map[int]string{403: "is forbidden: User \"system:serviceaccount:isthmus:gateway\" cannot do it", 404: "not found",
			409: "already exists"}[code]
		f.status(w, code, r.URL.Path, reason, message)
	case strings.HasPrefix(strings.TrimSpace(rest), "raw:"):
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = io.WriteString(w, strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(rest), "raw:")))
	default:
		f.write(w, code, f.yaml([]byte(rest)))
	}
}

func (f *fakeAPI) list(w http.ResponseWriter, items []any, kind string) {
	version, kind, _ := strings.Cut(kind, " ")
	if items == nil {
		items = []any{}
	}
	f.write(w, http.StatusOK, map[string]any{"kind": kind, "apiVersion": version, "metadata": map[string]any{"resourceVersion": "10"},
		"items": items})
}

func (f *fakeAPI) status(w http.ResponseWriter, code int, at, reason, message string) {
	f.write(w, code, map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code,
		"message": fmt.Sprintf("%s %q %s", path.Base(path.Dir(at)), path.Base(at), message)})
}

// watch sends the events of an answer, one a line ("MODIFIED web.yaml"), and stays open.
func (f *fakeAPI) watch(w http.ResponseWriter, r *http.Request, answer string) {
	w.Header().Set("Content-Type", "application/json")
	for line := range strings.Lines(answer) {
		kind, name, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		raw, err := json.Marshal(map[string]any{"type": kind, "object": f.file(name)})
		if err != nil {
			f.t.Error(err)
			return
		}
		_, _ = w.Write(append(raw, '\n'))
	}
	f.hold(w, r)
}

func (f *fakeAPI) hold(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

func (f *fakeAPI) write(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}

func (f *fakeAPI) file(name string) any {
	data, ok := f.files[name]
	if !ok {
		f.t.Errorf("the archive has no %s", name)
	}
	return f.yaml(data)
}

func (f *fakeAPI) yaml(data []byte) any {
	var tree any
	if err := yaml.Unmarshal(data, &tree); err != nil {
		f.t.Errorf("%v:\n%s", err, data)
	}
	return tree
}

// object reads a body, protobuf included, as a tree.
func (f *fakeAPI) object(media string, body []byte) any {
	if len(body) == 0 {
		return nil
	}
	if strings.Contains(media, "protobuf") {
		native, kind, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, nil)
		if err != nil {
			f.t.Errorf("a body of %s cannot be read: %v", media, err)
			return nil
		}
		native.GetObjectKind().SetGroupVersionKind(*kind)
		if body, err = json.Marshal(native); err != nil {
			f.t.Error(err)
			return nil
		}
	}
	return f.yaml(body)
}

// note writes a call down as it is shown in a golden.
func (f *fakeAPI) note(r *http.Request, object any) {
	query, err := url.QueryUnescape(r.URL.RawQuery)
	if err != nil {
		f.t.Error(err)
	}
	text := r.Method + " " + r.URL.Path
	if query != "" {
		text += "?" + query
	}
	text += "\n"
	if object != nil {
		raw, err := yaml.Marshal(masked(object, ""))
		if err != nil {
			f.t.Error(err)
		}
		text += "Content-Type: " + r.Header.Get("Content-Type") + "\n\n" + string(raw)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, text)
}

// asked is what the server was asked so far.
func (f *fakeAPI) asked() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.calls, "\n")
}

// What a gateway makes anew for each container: the nonce, and the name of one without a name.
var (
	freshNonce = regexp.MustCompile(`^[0-9a-f]{32}$`)
	freshName  = regexp.MustCompile(`\b[a-z]+-[a-z]+-[0-9a-f]{4}\b`)
)

// masked puts words in the place of what is another each time, and opens what is packed.
func masked(tree any, key string) any {
	switch v := tree.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, value := range v {
			if p := masked(value, k); p != nil {
				out[k] = p
			}
		}
		if len(out) == 0 {
			return nil
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = masked(v[i], "")
		}
		return out
	case string:
		switch key {
		case "isthmus.io/nonce":
			if freshNonce.MatchString(v) {
				return "NONCE"
			}
		case "isthmus.io/stopped", "isthmus.io/replacing":
			if strings.Contains(v, "T") {
				return "TIME"
			}
		case "pod.json": // in a Secret's data
			raw, err := base64.StdEncoding.DecodeString(v)
			var inner any
			if err == nil && json.Unmarshal(raw, &inner) == nil {
				return masked(inner, "")
			}
		}
	}
	return tree
}

// merged is a with b's values over it.
func merged(a, b any) any {
	under, ok := a.(map[string]any)
	over, ok2 := b.(map[string]any)
	if !ok || !ok2 {
		if b == nil {
			return a
		}
		return b
	}
	out := map[string]any{}
	for k, v := range under {
		out[k] = v
	}
	for k, v := range over {
		out[k] = merged(out[k], v)
	}
	return out
}

// isAgentLease is the other thing that the gateway asks for itself: whether a node has an agent.
func isAgentLease(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, "/apis/coordination.k8s.io/v1/namespaces/isthmus-agent/leases/")
}
