package kubernetes

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// doing notes that an action is carried out, until the returned function is called.
func (f *fakeCluster) doing(action neutral.Action) (done func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running = append(f.running, action)
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		i := slices.Index(f.running, action)
		f.running = slices.Delete(f.running, i, i+1)
	}
}

// held holds every call that is made for an action to what is written down that the action takes.
func (f *fakeCluster) held(t *testing.T, client *clienttesting.Fake) {
	record := func(call clienttesting.Action) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.running) == 0 || call.GetVerb() == verbSync {
			return
		}
		resource := call.GetResource().Resource
		for _, action := range f.running {
			for _, u := range used[action] {
				for _, p := range u.each("default") {
					if p.resource.Verb == call.GetVerb() && p.resource.Resource == resource && p.resource.Subresource == call.GetSubresource() {
						return
					}
				}
			}
		}
		t.Errorf("%s takes %s %s %s, which is not written down", f.running, call.GetVerb(), resource, call.GetSubresource())
	}
	client.PrependReactor("*", "*", func(call clienttesting.Action) (bool, runtime.Object, error) {
		record(call)
		return false, nil, nil
	})
}

// TestEveryPlanIsWrittenDown holds that what takes more than one call is in the table of what actions take.
func TestEveryPlanIsWrittenDown(t *testing.T) {
	t.Parallel()
	f := newIdleCluster(t)
	// The nodes pull, and who may do anything may ask for the version.
	nothing := []neutral.Action{neutral.ImagePull, neutral.SystemPing, neutral.SystemVersion}
	either := []neutral.Action{neutral.ContainerList, neutral.ContainerInspect} // by how many Pods there are
	for action := range plans {
		if slices.Contains(either, action) {
			continue
		}
		plan, err := f.Plan(neutral.Operation{Action: action, Ref: "web", Container: &neutral.Container{Image: "x"}, Workload: &neutral.Workload{}}, allowAll)
		if fault.Is(err, fault.NotFound) {
			continue // answered by itself
		}
		if err != nil {
			t.Errorf("%s: %v", action, err)
			continue
		}
		if several := plan.Program != nil || plan.Stream != nil; several != (len(used[action]) > 0) && !slices.Contains(nothing, action) {
			t.Errorf("%s takes several calls: %v; written down are %d", action, several, len(used[action]))
		}
	}
}

func TestPermissions(t *testing.T) {
	t.Parallel()
	client := fake.NewClientset()
	client.PrependReactor("create", "selfsubjectaccessreviews", func(call clienttesting.Action) (bool, runtime.Object, error) {
		review := call.(clienttesting.CreateAction).GetObject().(*authorizationv1.SelfSubjectAccessReview).DeepCopy()
		r := review.Spec.ResourceAttributes
		switch {
		case r == nil:
			review.Status.Allowed = review.Spec.NonResourceAttributes.Path == "/version"
		case r.Namespace == "broken":
			return true, nil, errors.New("dial tcp 10.0.0.1:6443: refused")
		default:
			review.Status.Allowed = r.Namespace == "shop" && (r.Verb == "get" || r.Verb == "list") && r.Subresource == ""
		}
		return true, review, nil
	})
	c := &Cluster{client: client, namespace: "default", impersonate: true}
	call := func(method, path string) *dialect.Request {
		return &dialect.Request{Method: method, Path: path, Header: http.Header{}}
	}
	apply := call("PATCH", "/apis/apps/v1/namespaces/shop/deployments/web?fieldManager=kubectl")
	apply.Header.Set("Content-Type", "application/apply-patch+yaml")
	for name, test := range map[string]struct {
		op   neutral.Operation
		call *dialect.Request
		want []string
	}{
		"one call":     {call: call("GET", "/api/v1/namespaces/shop/pods"), want: []string{"+list pods in the namespace shop"}},
		"a name":       {call: call("DELETE", "/apis/apps/v1/namespaces/shop/deployments/web"), want: []string{"-delete deployments.apps web in the namespace shop"}},
		"a part":       {call: call("POST", "/api/v1/namespaces/shop/pods/web/exec?command=sh"), want: []string{"-create pods/exec web in the namespace shop"}},
		"no namespace": {call: call("GET", "/api/v1/nodes?watch=true"), want: []string{"-watch nodes in the whole cluster"}},
		"a path":       {call: call("GET", "/version"), want: []string{"+get /version"}},
		"applied": {call: apply, want: []string{"-patch deployments.apps web in the namespace shop",
			"-create deployments.apps in the namespace shop, where there is none of that name yet"}},
		"several": {op: neutral.Operation{Action: neutral.ExecStart, Object: neutral.Object{Namespace: "shop"}}, want: []string{
			"+get pods in the namespace shop", "+list pods in the namespace shop", "-get pods/exec in the namespace shop", "-create pods/exec in the namespace shop"}},
		"in the own namespace": {op: neutral.Operation{Action: neutral.ContainerPrune}, want: []string{
			"-list pods in the namespace default", "-delete pods in the namespace default"}},
		"nothing": {op: neutral.Operation{Action: neutral.ImagePull}},
	} {
		found, err := c.Permissions(t.Context(), dialect.Actor{Peer: "west"}, test.op, test.call)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var got []string
		for _, p := range found {
			text := map[bool]string{true: "+", false: "-"}[p.Allowed] + p.Right
			if p.When != "" {
				text += ", " + p.When
			}
			got = append(got, text)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s:\n got %q\nwant %q", name, got, test.want)
		}
	}
	_, err := c.Permissions(t.Context(), dialect.Actor{Peer: "west"}, neutral.Operation{}, call("GET", "/api/v1/namespaces/broken/pods"))
	if err == nil || strings.Contains(fault.Of(err).Message, "10.0.0.1") {
		t.Errorf("%v", err)
	}
	if got := c.Subject(dialect.Actor{Peer: "west"}); got != "isthmus:peer:west" {
		t.Errorf("the subject is %s", got)
	}
}
