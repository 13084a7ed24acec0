package apiserver

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/resource"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apistatus"
	"github.com/isthmus-mesh/isthmus/modules/fault"
)

var errMedia = apierrors.NewGenericServerResponse(http.StatusUnsupportedMediaType, "", schema.GroupResource{}, "",
	"the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, "+
		"application/vnd.kubernetes.protobuf", 0, true)

var errAccept = apierrors.NewGenericServerResponse(http.StatusNotAcceptable, "", schema.GroupResource{}, "",
	"only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf", 0, true)

// kindError is a body of another kind than its path.
type kindError struct{ want, got schema.GroupVersionKind }

func (e kindError) Error() string {
	return fmt.Sprintf("the object in the body is a %s of %s, and the path is for a %s of %s", e.got.Kind, e.got.GroupVersion(),
		e.want.Kind, e.want.GroupVersion())
}

var (
	errImmutableClaim   = fault.New(fault.Unprocessable, "a volume is not changed once it is made; create another claim")
	errDefaultNamespace = errors.New("this namespace may not be deleted")
)

// statusOf is an error as the API tells it.
func statusOf(err error, c *call, cluster string) *metav1.Status {
	var known apierrors.APIStatus
	if errors.As(err, &known) {
		status := known.Status()
		return &status
	}
	told := fault.Of(err)
	if c != nil && errors.Is(err, dialect.ErrStandalone) {
		if words := withoutSwarm(c.resource, cluster); words != "" {
			told = fault.Wrap(told.Kind, err, "%s", words)
		}
	}
	status := apistatus.Of(told)
	if c != nil {
		status.Details.Name, status.Details.Group, status.Details.Kind = c.name, c.resource.Group, c.resource.Name
	}
	return &status
}

// withoutSwarm says why an engine that is no Swarm has no objects of a kind, and what to do; "" for a kind that it has.
func withoutSwarm(of resource.Resource, cluster string) string {
	var why, instead string
	switch of.GroupResource() {
	case deploymentResource, daemonSetResource, jobResource:
		why, instead = "runs its Pods", "make a Pod, which an engine restarts as its restartPolicy says"
	case serviceResource:
		why, instead = "keeps it as a config", "Pods of a namespace find each other by their own names"
	case configMapResource:
		why, instead = "keeps it as a config", "give its values as variables of the container, or copy them into a claim"
	case secretResource:
		why, instead = "keeps it as a secret", "nothing that an engine keeps is hidden from those who may use the engine"
	case namespaceResource:
		why, instead = "keeps one that nothing is in as a config", "use the namespace default, or that of a compose project"
	default:
		return ""
	}
	return fmt.Sprintf("a %s needs a Swarm, which %s, and the Docker engine of cluster %s is not part of one: %s, or have the engine made a Swarm "+
		"(docker swarm init)", of.Kind, why, cluster, instead)
}

// refuse answers with an error.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, c *call, err error) {
	status := statusOf(err, c, s.cluster)
	if status.Code >= http.StatusInternalServerError && status.Code != http.StatusNotImplemented {
		s.log.Warn("a translated request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	if status.Details != nil && status.Details.RetryAfterSeconds > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(status.Details.RetryAfterSeconds)))
	}
	f, ok := formOf(r.Header.Get("Accept"), false)
	if !ok {
		f, _ = formOf(mediaJSON, false)
	}
	s.write(w, f, int(status.Code), named(status, metav1.SchemeGroupVersion.WithKind("Status")))
}
