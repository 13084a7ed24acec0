package apiserver

import (
	"net/http"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/discovery"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/openapi"
)

// document answers what is the same for every caller and at any time: discovery and OpenAPI; and health.
func (s *Server) document(w http.ResponseWriter, r *http.Request) bool {
	switch r.URL.Path {
	case "/healthz", "/livez", "/readyz":
		s.health(w, r)
		return true
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	if r.URL.Path == customResources {
		s.noCustomResources(w)
		return true
	}
	answer, ok := discovery.Answer(r.URL.RequestURI(), r.Header)
	if !ok {
		answer, ok = openapi.Answer(r.URL.RequestURI(), r.Header)
	}
	if !ok {
		return false
	}
	for key, values := range answer.Header {
		w.Header()[key] = values
	}
	w.WriteHeader(answer.Status)
	if r.Method == http.MethodHead {
		return true
	}
	if _, err := w.Write(answer.Body); err != nil {
		s.log.Debug("a caller has gone before its answer", "err", err)
	}
	return true
}

// customResources is what kubectl reads before it says that it does not know a kind.
const customResources = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

// noCustomResources is their list: there are none.
func (s *Server) noCustomResources(w http.ResponseWriter) {
	w.Header().Set("Content-Type", mediaJSON)
	if _, err := w.Write([]byte(`{"kind":"CustomResourceDefinitionList","apiVersion":"apiextensions.k8s.io/v1","metadata":{"resourceVersion":"1"},"items":[]}`)); err != nil {
		s.log.Debug("a caller has gone before its answer", "err", err)
	}
}

// health tells whether the orchestrator can be read.
func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	status, text := http.StatusOK, "ok"
	if err := s.refresh(r.Context()); err != nil {
		s.log.Warn("the orchestrator cannot be read", "err", err)
		status, text = http.StatusServiceUnavailable, "the orchestrator cannot be read"
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	if _, err := w.Write([]byte(text)); err != nil {
		s.log.Debug("a caller has gone before its answer", "err", err)
	}
}
