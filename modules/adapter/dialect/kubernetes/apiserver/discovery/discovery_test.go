package discovery_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	apidiscoveryv2beta1 "k8s.io/api/apidiscovery/v2beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/version"
	clientdiscovery "k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/discovery"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/resource"
)

const aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

func accept(media string) http.Header { return http.Header{"Accept": {media}} }

// serve answers as the package says, and counts the requests.
func serve(t *testing.T) (*httptest.Server, *atomic.Int32) {
	t.Helper()
	asked := &atomic.Int32{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		answer, ok := discovery.Answer(r.URL.Path, r.Header)
		if !ok {
			http.NotFound(w, r)
			return
		}
		for name, values := range answer.Header {
			w.Header()[name] = values
		}
		w.WriteHeader(answer.Status)
		_, _ = w.Write(answer.Body)
	}))
	t.Cleanup(server.Close)
	return server, asked
}

// TestLikeKubernetes compares what is told of each resource with what the API server of Kubernetes tells: all is the
// same, but that not every verb and subresource is served.
func TestLikeKubernetes(t *testing.T) {
	t.Parallel()
	known := recorded(t)
	ours := apidiscoveryv2.APIGroupDiscoveryList{}
	for _, path := range []string{"/api", "/apis"} {
		var list apidiscoveryv2.APIGroupDiscoveryList
		decode(t, path, aggregated, &list)
		ours.Items = append(ours.Items, list.Items...)
	}
	compared := 0
	each(ours, func(name string, one apidiscoveryv2.APIResourceDiscovery) {
		other, ok := known[name]
		if !ok {
			t.Errorf("%s is not in testdata/kubernetes.jsonll", name)
			return
		}
		compared++
		fewer := cmp.Options{cmpopts.IgnoreFields(one, "Verbs", "Subresources"), cmpopts.EquateEmpty()}
		if diff := cmp.Diff(other, one, fewer); diff != "" {
			t.Errorf("%s:\n%s", one.Resource, diff)
		}
		subset(t, one.Resource, one.Verbs, other.Verbs)
		for _, s := range one.Subresources {
			k := slices.IndexFunc(other.Subresources, func(o apidiscoveryv2.APISubresourceDiscovery) bool { return o.Subresource == s.Subresource })
			if k < 0 {
				t.Errorf("Kubernetes has no %s/%s", one.Resource, s.Subresource)
				continue
			}
			if diff := cmp.Diff(other.Subresources[k], s, cmpopts.IgnoreFields(s, "Verbs")); diff != "" {
				t.Errorf("%s/%s:\n%s", one.Resource, s.Subresource, diff)
			}
			subset(t, one.Resource+"/"+s.Subresource, s.Verbs, other.Subresources[k].Verbs)
		}
	})
	if want := len(resource.All) + len(resource.Reviews); compared != want {
		t.Errorf("%d resources are told, want %d", compared, want)
	}
}

func each(list apidiscoveryv2.APIGroupDiscoveryList, f func(name string, r apidiscoveryv2.APIResourceDiscovery)) {
	for _, group := range list.Items {
		for _, v := range group.Versions {
			for _, r := range v.Resources {
				f(group.Name+"/"+v.Version+"/"+r.Resource, r)
			}
		}
	}
}

func subset(t *testing.T, what string, some, all []string) {
	t.Helper()
	if len(some) == 0 || !slices.IsSorted(some) {
		t.Errorf("%s: verbs are %q", what, some)
	}
	for _, verb := range some {
		if !slices.Contains(all, verb) {
			t.Errorf("Kubernetes does not serve %s of %s", verb, what)
		}
	}
}

// recorded are the resources that e2e/testbed has recorded, by group, version and name.
func recorded(t *testing.T) map[string]apidiscoveryv2.APIResourceDiscovery {
	t.Helper()
	raw, err := os.ReadFile("testdata/kubernetes.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]apidiscoveryv2.APIResourceDiscovery{}
	for line := range strings.Lines(string(raw)) {
		var one struct {
			Group, Version string
			Resource       apidiscoveryv2.APIResourceDiscovery
		}
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatal(err)
		}
		all[one.Group+"/"+one.Version+"/"+one.Resource.Resource] = one.Resource
	}
	return all
}

func decode(t *testing.T, path, media string, into any) {
	t.Helper()
	answer, ok := discovery.Answer(path, accept(media))
	if !ok || answer.Status != http.StatusOK {
		t.Fatalf("%s as %s: %d %s", path, media, answer.Status, answer.Body)
	}
	if err := json.Unmarshal(answer.Body, into); err != nil {
		t.Fatal(err)
	}
}

// TestClient asks as client-go does, in each way that it knows.
func TestClient(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		legacy   bool
		media    string
		requests int
	}{
		{name: "aggregated", requests: 2},
		{name: "legacy", legacy: true, requests: 2 + 6},
		{name: "protobuf", legacy: true, media: "application/vnd.kubernetes.protobuf", requests: 2 + 6},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server, asked := serve(t)
			client, err := clientdiscovery.NewDiscoveryClientForConfig(&rest.Config{Host: server.URL,
				ContentConfig: rest.ContentConfig{ContentType: test.media, AcceptContentTypes: test.media}})
			if err != nil {
				t.Fatal(err)
			}
			client.UseLegacyDiscovery = test.legacy
			groups, lists, err := client.ServerGroupsAndResourcesWithContext(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var found []string
			for _, list := range lists {
				for _, r := range list.APIResources {
					if !strings.Contains(r.Name, "/") {
						found = append(found, list.GroupVersion+"/"+r.Name+" "+r.Kind)
					}
				}
			}
			var want []string
			for _, r := range slices.Concat(resource.All, resource.Reviews) {
				want = append(want, r.GroupVersion().String()+"/"+r.Name+" "+r.Kind)
			}
			slices.Sort(found)
			slices.Sort(want)
			if diff := cmp.Diff(want, found); diff != "" {
				t.Error(diff)
			}
			if len(groups) != 6 || int(asked.Load()) != test.requests {
				t.Errorf("%d groups by %d requests", len(groups), asked.Load())
			}
			v, err := client.ServerVersionWithContext(t.Context())
			if err != nil || v.Minor != discovery.Minor {
				t.Errorf("version is %+v, %v", v, err)
			}
		})
	}
}

// TestLegacy finds the same in the documents of each group and version as in the aggregated ones.
func TestLegacy(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/api", "/apis"} {
		var list apidiscoveryv2.APIGroupDiscoveryList
		decode(t, path, aggregated, &list)
		_, lists, failed := clientdiscovery.SplitGroupsAndResources(list)
		if len(failed) > 0 || len(lists) == 0 {
			t.Errorf("%s: %d lists, %v", path, len(lists), failed)
		}
		for gv, want := range lists {
			var got metav1.APIResourceList
			decode(t, path+"/"+gv.String(), "application/json", &got)
			for i, r := range want.APIResources { // made up by the client for subresources
				if strings.Contains(r.Name, "/") {
					want.APIResources[i].SingularName = ""
				}
			}
			if diff := cmp.Diff(want.APIResources, got.APIResources, cmpopts.EquateEmpty()); diff != "" || got.GroupVersion != gv.String() {
				t.Errorf("%s:\n%s", gv, diff)
			}
		}
	}
}

// TestEncodings reads each document in each encoding, and finds the same.
func TestEncodings(t *testing.T) {
	t.Parallel()
	for path, object := range map[string]func() runtime.Object{
		"/api":             func() runtime.Object { return &metav1.APIVersions{} },
		"/apis":            func() runtime.Object { return &metav1.APIGroupList{} },
		"/apis/batch":      func() runtime.Object { return &metav1.APIGroup{} },
		"/api/v1":          func() runtime.Object { return &metav1.APIResourceList{} },
		"/apis/apps/v1":    func() runtime.Object { return &metav1.APIResourceList{} },
		"/api as v2":       func() runtime.Object { return &apidiscoveryv2.APIGroupDiscoveryList{} },
		"/apis as v2":      func() runtime.Object { return &apidiscoveryv2.APIGroupDiscoveryList{} },
		"/apis as v2beta1": func() runtime.Object { return &apidiscoveryv2beta1.APIGroupDiscoveryList{} },
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			path, as, _ := strings.Cut(path, " as ")
			if as != "" {
				as = ";g=apidiscovery.k8s.io;v=" + as + ";as=APIGroupDiscoveryList"
			}
			get := func(media string) []byte {
				answer, ok := discovery.Answer(path, accept(media+as))
				if !ok || answer.Status != http.StatusOK || answer.Header.Get("Content-Type") != media+as {
					t.Fatalf("%s: %d %v", media, answer.Status, answer.Header)
				}
				return answer.Body
			}
			fromJSON, fromYAML, fromProtobuf := object(), object(), object()
			if err := json.Unmarshal(get("application/json"), fromJSON); err != nil {
				t.Error(err)
			}
			if err := yaml.UnmarshalStrict(get("application/yaml"), fromYAML); err != nil {
				t.Error(err)
			}
			raw := protobuf.NewSerializer(runtime.NewScheme(), runtime.NewScheme())
			if _, _, err := raw.Decode(get("application/vnd.kubernetes.protobuf"), nil, fromProtobuf); err != nil {
				t.Error(err)
			}
			fromProtobuf.GetObjectKind().SetGroupVersionKind(fromJSON.GetObjectKind().GroupVersionKind())
			if diff := cmp.Diff(fromJSON, fromYAML); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(fromJSON, fromProtobuf, cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestNegotiation(t *testing.T) {
	t.Parallel()
	const old = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
	for _, test := range []struct {
		path, accept, want string
	}{
		{"/apis", "", "application/json"},
		{"/apis", "*/*", "application/json"},
		{"/apis/", "application/*", "application/json"},
		{"/apis", aggregated + ",application/json", aggregated},
		{"/apis?timeout=32s", "application/json; as=APIGroupDiscoveryList; v=v2; g=apidiscovery.k8s.io", aggregated},
		{"/apis", aggregated + ";profile=nopeer," + aggregated, aggregated},
		{"/apis", old + "," + aggregated, old},
		{"/apis", strings.ReplaceAll(aggregated, "v2", "v9") + ",application/json", "application/json"},
		{"/apis", strings.ReplaceAll(aggregated, "v2", "v9"), ""},
		{"/apis", "application/json;q=0, text/html", ""},
		{"/apis/apps/v1", aggregated, ""},
		{"/apis/apps/v1", aggregated + ",*/*;q=0.1", "application/json"},
		{"/apis/apps/v1", "application/json;q=0.5, application/yaml", "application/yaml"},
		{"/apis/apps/v1", "text/plain", ""},
		{"/version", "application/vnd.kubernetes.protobuf", "application/json"},
		{"/version", "application/vnd.kubernetes.protobuf,application/json", "application/json"},
	} {
		answer, ok := discovery.Answer(test.path, accept(test.accept))
		if !ok {
			t.Errorf("no %s", test.path)
			continue
		}
		if test.want != "" {
			if got := answer.Header.Get("Content-Type"); got != test.want || answer.Status != http.StatusOK {
				t.Errorf("%s as %q: %d %q, want %q", test.path, test.accept, answer.Status, got, test.want)
			}
			continue
		}
		var status metav1.Status
		if err := json.Unmarshal(answer.Body, &status); err != nil || answer.Status != http.StatusNotAcceptable || status.Reason != metav1.StatusReasonNotAcceptable {
			t.Errorf("%s as %q: %d %s", test.path, test.accept, answer.Status, answer.Body)
		}
	}
	for _, path := range []string{"", "/", "/api/v2", "/apis/none", "/apis/apps/v2", "/apis/v1", "/healthz", "/api/v1/pods", "//apis"} {
		if answer, ok := discovery.Answer(path, nil); ok {
			t.Errorf("%q is answered %d", path, answer.Status)
		}
	}
}

func TestNotModified(t *testing.T) {
	t.Parallel()
	etags := map[string]string{}
	for _, path := range discovery.Paths() {
		for _, media := range []string{"application/json", "application/yaml", aggregated} {
			answer, _ := discovery.Answer(path, accept(media))
			if answer.Status != http.StatusOK {
				continue
			}
			etag := answer.Header.Get("ETag")
			if other, twice := etags[etag]; etag == "" || twice && other != string(answer.Body) {
				t.Errorf("%s as %s: ETag is %q", path, media, etag)
			}
			etags[etag] = string(answer.Body)
			for _, value := range []string{etag, "W/" + etag, `"none", ` + etag, "*"} {
				again, _ := discovery.Answer(path, http.Header{"Accept": {media}, "If-None-Match": {value}})
				if again.Status != http.StatusNotModified || again.Body != nil || again.Header.Get("ETag") != etag {
					t.Errorf("%s as %s with %s: %d", path, media, value, again.Status)
				}
			}
			if again, _ := discovery.Answer(path, http.Header{"Accept": {media}, "If-None-Match": {`"none"`}}); again.Status != http.StatusOK {
				t.Errorf("%s as %s with another ETag: %d", path, media, again.Status)
			}
		}
	}
}

// TestNoAddress finds no address in /api, where Kubernetes tells its own.
func TestNoAddress(t *testing.T) {
	t.Parallel()
	var versions metav1.APIVersions
	decode(t, "/api", "application/json", &versions)
	if len(versions.ServerAddressByClientCIDRs) != 0 || !slices.Equal(versions.Versions, []string{"v1"}) {
		t.Errorf("/api is %+v", versions)
	}
	var info version.Info
	decode(t, "/version", "application/json", &info)
	if info != discovery.Version() || !strings.HasPrefix(info.GitVersion, "v"+info.Major+"."+info.Minor+".") {
		t.Errorf("/version is %+v", info)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add("/apis", aggregated, `"x"`)
	f.Add("/api/v1?limit=1", "*/*;q=0", "*")
	f.Fuzz(func(t *testing.T, path, accept, match string) {
		answer, ok := discovery.Answer(path, http.Header{"Accept": {accept}, "If-None-Match": {match}})
		if ok && answer.Status != http.StatusOK && answer.Status != http.StatusNotModified && answer.Status != http.StatusNotAcceptable {
			t.Errorf("%q: %d", path, answer.Status)
		}
	})
}
