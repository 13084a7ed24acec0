package kubernetes

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/resource"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// askReview asks by a path, as a client of the API does, and reads the answer.
func askReview(t *testing.T, resource string, asks, answer runtime.Object, asker dialect.Asker) error {
	t.Helper()
	e := &emulated{}
	body, err := runtime.Encode(scheme.Codecs.LegacyCodec(authorizationv1.SchemeGroupVersion, authenticationv1.SchemeGroupVersion), asks)
	if err != nil {
		t.Fatal(err)
	}
	request := dialect.Request{Method: http.MethodPost, Path: "/apis/" + resource, Body: body}
	op, err := (Dialect{}).Classify(request)
	if err != nil || !e.Reviews(op) {
		t.Fatalf("%s is no review: %v", resource, err)
	}
	response, err := e.Review(op, request, asker)
	if err != nil {
		return err
	}
	if response.Status != http.StatusCreated {
		t.Errorf("%s: %d", resource, response.Status)
	}
	if err := json.Unmarshal(response.Body, answer); err != nil {
		t.Fatal(err)
	}
	return nil
}

func TestReviewSelf(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		asker  dialect.Asker
		name   string
		groups []string
		extra  int
	}{
		{dialect.Asker{Peer: "east", Caller: "ci", Groups: []string{"builders"}, Whole: true}, "ci", []string{"builders"}, 1},
		{dialect.Asker{Peer: "east", Caller: "ci", Groups: []string{"builders"}}, "ci", []string{"builders"}, 2},
		{dialect.Asker{Peer: "east", Whole: true}, "isthmus:peer:east", nil, 1},
	} {
		var got authenticationv1.SelfSubjectReview
		forged := &authenticationv1.SelfSubjectReview{Status: authenticationv1.SelfSubjectReviewStatus{UserInfo: authenticationv1.UserInfo{
			Username: "admin", UID: "0", Groups: []string{"system:masters"}}}}
		if err := askReview(t, "authentication.k8s.io/v1/selfsubjectreviews", forged, &got, test.asker); err != nil {
			t.Fatal(err)
		}
		user := got.Status.UserInfo
		if user.Username != test.name || user.UID != "" || !slices.Equal(user.Groups, test.groups) || len(user.Extra) != test.extra ||
			!slices.Equal(user.Extra[extraPeer], []string{"east"}) || got.Kind != "SelfSubjectReview" || got.CreationTimestamp.IsZero() {
			t.Errorf("%+v is told %+v", test.asker, got)
		}
	}
}

// TestReviewRules lists what may be done whatever the object is, and names what depends on it.
func TestReviewRules(t *testing.T) {
	t.Parallel()
	may := func(op neutral.Operation) dialect.Leave {
		o := op.Object
		switch {
		case o.Kind == neutral.KindSystem:
			return dialect.Leave{Allowed: op.Verb == neutral.Get && o.Resource != "/readyz"}
		case o.Kind == neutral.KindNamespace && op.Verb == neutral.Get:
			return dialect.Leave{Allowed: o.Name == "shop"}
		case o.Namespace != "shop":
			return dialect.Leave{}
		case o.Kind == neutral.KindWorkload:
			return dialect.Leave{Allowed: true}
		case op.Verb == neutral.Logs && o.Name == "": // a name that stands for any would be judged as that name
			return dialect.Leave{Open: true}
		}
		return dialect.Leave{}
	}
	ask := func(namespace string) (authorizationv1.SubjectRulesReviewStatus, error) {
		var got authorizationv1.SelfSubjectRulesReview
		err := askReview(t, "authorization.k8s.io/v1/selfsubjectrulesreviews",
			&authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: namespace},
				Status: authorizationv1.SubjectRulesReviewStatus{ResourceRules: []authorizationv1.ResourceRule{{Verbs: []string{"*"}}}}}, &got,
			dialect.Asker{Peer: "east", May: may})
		return got.Status, err
	}
	status, err := ask("shop")
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, rule := range status.ResourceRules {
		for _, r := range rule.Resources {
			told = append(told, strings.Join(rule.APIGroups, "|")+"/"+r+" "+strings.Join(rule.ResourceNames, "|")+" "+strings.Join(rule.Verbs, ","))
		}
	}
	all := "create,delete,deletecollection,get,list,patch,update,watch"
	want := []string{"/namespaces shop get", "apps/daemonsets  " + all, "apps/deployments  " + all, "apps/replicasets  get,list,watch",
		"apps/daemonsets/status  get", "apps/deployments/status  get", "apps/replicasets/status  get", "apps/deployments/scale  get,patch,update",
		"batch/jobs  " + all, "batch/jobs/status  get",
		"authentication.k8s.io/selfsubjectreviews  create", "authorization.k8s.io/selfsubjectaccessreviews  create",
		"authorization.k8s.io/selfsubjectrulesreviews  create"}
	slices.Sort(told)
	slices.Sort(want)
	if !slices.Equal(told, want) {
		t.Errorf("told\n%s\nwant\n%s", strings.Join(told, "\n"), strings.Join(want, "\n"))
	}
	if !status.Incomplete || !strings.HasSuffix(status.EvaluationError, "conditions: pods/log (get)") {
		t.Errorf("incomplete %t: %s", status.Incomplete, status.EvaluationError)
	}
	if len(status.NonResourceRules) != 1 || !slices.Contains(status.NonResourceRules[0].NonResourceURLs, "/apis/apps/v1") ||
		slices.Contains(status.NonResourceRules[0].NonResourceURLs, "/readyz") {
		t.Errorf("paths: %+v", status.NonResourceRules)
	}
	status, err = ask("elsewhere")
	if err != nil || status.Incomplete || len(status.ResourceRules) != 2 {
		t.Errorf("elsewhere: %+v, %v", status, err)
	}
	for _, namespace := range []string{"", "a/b"} {
		if _, err := ask(namespace); !fault.Is(err, fault.Invalid) {
			t.Errorf("namespace %q: %v", namespace, err)
		}
	}
}

// TestReviewAccess asks about single rights: of a name, of none, and of reviews themselves.
func TestReviewAccess(t *testing.T) {
	t.Parallel()
	may := func(op neutral.Operation) dialect.Leave {
		switch op.Object.Name {
		case "":
			return dialect.Leave{Open: true, Why: "some"}
		case "web":
			return dialect.Leave{Allowed: true}
		}
		return dialect.Leave{Why: "not " + op.Object.Name}
	}
	for _, test := range []struct {
		what    authorizationv1.ResourceAttributes
		allowed bool
		why     string
	}{
		{authorizationv1.ResourceAttributes{Verb: "get", Resource: "pods", Namespace: "shop", Name: "web"}, true, ""},
		{authorizationv1.ResourceAttributes{Verb: "get", Resource: "pods", Namespace: "shop", Name: "any"}, false, "not any"},
		{authorizationv1.ResourceAttributes{Verb: "get", Resource: "pods", Namespace: "shop"}, true, "some"},
		{authorizationv1.ResourceAttributes{Verb: "get", Resource: "namespaces"}, true, "some"},
		{authorizationv1.ResourceAttributes{Verb: "create", Resource: "pods", Subresource: "exec", Namespace: "shop"}, true, "some"},
		{authorizationv1.ResourceAttributes{Verb: "create", Group: "authentication.k8s.io", Resource: "selfsubjectreviews"}, true, ""},
		{authorizationv1.ResourceAttributes{Verb: "get", Group: "authentication.k8s.io", Resource: "selfsubjectreviews"}, false, "that is not served"},
		{authorizationv1.ResourceAttributes{Verb: "get", Resource: "serviceaccounts", Namespace: "shop"}, false, "that is not served"},
	} {
		var got authorizationv1.SelfSubjectAccessReview
		err := askReview(t, "authorization.k8s.io/v1/selfsubjectaccessreviews",
			&authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &test.what},
				Status: authorizationv1.SubjectAccessReviewStatus{Allowed: true}}, &got, dialect.Asker{Peer: "east", May: may})
		if err != nil || got.Status.Allowed != test.allowed || got.Status.Reason != test.why {
			t.Errorf("%+v: %+v, %v", test.what, got.Status, err)
		}
	}
}

// TestReviewOfAnotherKind sends a review to the path of another, and what is none.
func TestReviewOfAnotherKind(t *testing.T) {
	t.Parallel()
	for _, r := range resource.Reviews {
		op := neutral.Operation{Object: neutral.Object{Resource: r.Group + "/" + r.Name}}
		for _, body := range []string{`{`, `{"kind":"Pod","apiVersion":"v1"}`, `{"kind":"LocalSubjectAccessReview","apiVersion":"authorization.k8s.io/v1"}`} {
			_, err := (&emulated{}).Review(op, dialect.Request{Body: []byte(body)}, dialect.Asker{May: func(neutral.Operation) dialect.Leave {
				t.Error("policy was asked")
				return dialect.Leave{}
			}})
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("%s with %s: %v", r.Name, body, err)
			}
		}
		if (&emulated{}).Reviews(neutral.Operation{Object: op.Object, Extra: map[string]string{extraVerb: string(verbGet)}}) {
			t.Errorf("%s is read", r.Name)
		}
	}
}
