package kubernetes

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
)

func TestRefuse(t *testing.T) {
	t.Parallel()
	const pod = "/api/v1/namespaces/a/pods/x"
	secret := errors.New("dial tcp 10.1.2.3:6443: connection refused")
	for _, c := range []struct {
		name, path string
		err        error
		status     int
		message    string
		is         func(error) bool
	}{
		{"denied", pod, fault.New(fault.Denied, "no permission: get of container"), 403, `pods "x" is forbidden: no permission: get of container`, apierrors.IsForbidden},
		{"denied list", "/apis/apps/v1/deployments", fault.New(fault.Denied, "no permission"), 403, `deployments.apps is forbidden: no permission`, apierrors.IsForbidden},
		{"not found", pod, fault.New(fault.NotFound, "no such cluster"), 404, "no such cluster", apierrors.IsNotFound},
		{"invalid", "/api/v1//pods", fault.New(fault.Invalid, "bad path"), 400, "bad path", apierrors.IsBadRequest},
		{"conflict", pod, fault.New(fault.Conflict, "busy"), 409, "busy", apierrors.IsConflict},
		{"unsupported", pod, fault.New(fault.Unsupported, "cannot"), 501, "cannot", func(err error) bool { return apierrors.ReasonForError(err) == "NotImplemented" }},
		{"unavailable", pod, fault.Wrap(fault.Unavailable, secret, "the peer is not there"), 503, "the peer is not there", apierrors.IsServiceUnavailable},
		{"timeout", pod, fault.New(fault.Timeout, "slow"), 504, "slow", apierrors.IsTimeout},
		{"too large", pod, fault.New(fault.TooLarge, "big"), 413, "big", apierrors.IsRequestEntityTooLargeError},
		{"unprocessable", pod, &fault.Error{Kind: fault.Unprocessable, Message: "no", Field: "spec.replicas"}, 422, "no", apierrors.IsInvalid},
		{"exhausted", pod, fault.New(fault.Exhausted, "later"), 429, "later", apierrors.IsTooManyRequests},
		{"unauthenticated", pod, fault.New(fault.Unauthenticated, "who?"), 401, "who?", apierrors.IsUnauthorized},
		{"internal", pod, secret, 500, "internal error of the gateway", apierrors.IsInternalError},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			resp := Dialect{}.Refuse(dialect.Request{Method: http.MethodGet, Path: c.path}, c.err)
			if resp.Status != c.status || resp.Header.Get("Content-Type") != "application/json" {
				t.Errorf("status %d, content type %q", resp.Status, resp.Header.Get("Content-Type"))
			}
			var status metav1.Status
			if err := json.Unmarshal(resp.Body, &status); err != nil {
				t.Fatal(err)
			}
			if status.Kind != "Status" || status.APIVersion != "v1" || status.Status != metav1.StatusFailure || int(status.Code) != c.status {
				t.Errorf("status is %+v", status)
			}
			if status.Message != c.message {
				t.Errorf("message %q, want %q", status.Message, c.message)
			}
			if !c.is(&apierrors.StatusError{ErrStatus: status}) {
				t.Errorf("clients do not recognize reason %q", status.Reason)
			}
			if strings.Contains(string(resp.Body), "10.1.2.3") {
				t.Error("the cause leaks")
			}
		})
	}
}

func TestRefuseNamesTheField(t *testing.T) {
	t.Parallel()
	resp := Dialect{}.Refuse(dialect.Request{Method: http.MethodPut, Path: "/apis/apps/v1/namespaces/a/deployments/web/scale"},
		&fault.Error{Kind: fault.Unprocessable, Message: "a global service has no replicas", Field: "spec.replicas"})
	var status metav1.Status
	if err := json.Unmarshal(resp.Body, &status); err != nil {
		t.Fatal(err)
	}
	d := status.Details
	if d == nil || d.Group != "apps" || d.Kind != "deployments" || d.Name != "web" || len(d.Causes) != 1 ||
		d.Causes[0].Field != "spec.replicas" || d.Causes[0].Message != "a global service has no replicas" {
		t.Errorf("details are %+v", d)
	}
}

func TestRefuseSparesTheBodyOfHead(t *testing.T) {
	t.Parallel()
	resp := Dialect{}.Refuse(dialect.Request{Method: http.MethodHead, Path: "/version"}, fault.New(fault.NotFound, "no"))
	if resp.Status != http.StatusNotFound || len(resp.Body) != 0 {
		t.Errorf("status %d, body %q", resp.Status, resp.Body)
	}
}

func TestRefuseOfAnAlreadyDoneIsSuccess(t *testing.T) {
	t.Parallel()
	resp := Dialect{}.Refuse(dialect.Request{Method: http.MethodPost, Path: "/api/v1/namespaces/a/pods"}, fault.New(fault.NotModified, "already so"))
	var status metav1.Status
	if err := json.Unmarshal(resp.Body, &status); err != nil {
		t.Fatal(err)
	}
	if resp.Status != http.StatusOK || status.Status != metav1.StatusSuccess {
		t.Errorf("status %d, %+v", resp.Status, status)
	}
}

// Where kubectl discovers the API it shows plain text only.
func TestRefuseDiscovery(t *testing.T) {
	t.Parallel()
	head := dialect.Request{Method: http.MethodGet, Path: "/api?timeout=32s"}
	for status, err := range map[int]error{
		http.StatusNotImplemented: fault.New(fault.Unsupported, "west runs Docker"),
		http.StatusForbidden:      fault.New(fault.Denied, "west runs Docker"),
	} {
		response := Dialect{}.Refuse(head, err)
		if response.Status != status || response.Header.Get("Content-Type") != "text/plain" || string(response.Body) != "west runs Docker" {
			t.Errorf("%d %v %s", response.Status, response.Header, response.Body)
		}
	}
}
