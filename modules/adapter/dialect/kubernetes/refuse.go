package kubernetes

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apistatus"
	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// retryAfter is what a caller that goes over a limit is told to wait, in seconds.
const retryAfter = 1

// Refuse renders err as the API's Status, for plain requests and for upgrades alike: clients read it from the answer
// to a failed upgrade too.
// See https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
func (Dialect) Refuse(head dialect.Request, err error) dialect.Response {
	f := fault.Of(err)
	code := f.Kind.Status()
	status := apistatus.Of(f)
	if f.Kind == fault.NotModified { // the API has no such answer: what is already so is a success
		status.Status, code = metav1.StatusSuccess, http.StatusOK
		status.Code = http.StatusOK
	}
	header := http.Header{
		"Content-Type":           {"application/json"},
		"Cache-Control":          {"no-cache, private"},
		"X-Content-Type-Options": {"nosniff"},
	}
	if t, perr := parseTarget(head.Method, head.Path); perr == nil && t.resource != "" {
		status.Details.Name, status.Details.Group, status.Details.Kind = t.name, t.group, t.resource
		if f.Kind == fault.Denied {
			status.Message = t.subject() + " is forbidden: " + f.Message
		}
	}
	if f.Kind == fault.Exhausted {
		status.Details.RetryAfterSeconds = retryAfter
		header.Set("Retry-After", strconv.Itoa(retryAfter))
	}
	if isDiscovery(head.Path) && code >= http.StatusBadRequest {
		// kubectl reads no Status where it discovers the API: it shows what is plain text, and "unknown" for all else. Of
		// these two codes it shows words of its own.
		if code == http.StatusServiceUnavailable || code == http.StatusGatewayTimeout {
			code = http.StatusBadGateway
		}
		header.Set("Content-Type", "text/plain")
		answer := dialect.Response{Status: code, Header: header}
		if head.Method != http.MethodHead {
			answer.Body = []byte(f.Message)
		}
		return answer
	}
	body, merr := json.Marshal(status)
	if merr != nil { // strings alone cannot fail to marshal
		return dialect.Response{Status: http.StatusInternalServerError, Header: header}
	}
	if head.Method == http.MethodHead {
		body = nil
	}
	return dialect.Response{Status: code, Header: header, Body: body}
}

// subject is the object of a message as kubectl's users know it: `deployments.apps "web"`.
func (t target) subject() string {
	s := t.resource
	if t.group != "" {
		s += "." + t.group
	}
	if t.name != "" {
		s += " " + strconv.Quote(t.name)
	}
	return s
}

// isDiscovery tells whether a path is one that clients ask before they know the API's resources.
func isDiscovery(path string) bool {
	path, _, _ = strings.Cut(path, "?")
	return path == "/api" || path == "/apis"
}
