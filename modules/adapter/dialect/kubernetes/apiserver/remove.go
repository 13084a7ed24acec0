package apiserver

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
)

// removalOptions reads them from the query and the body.
func removalOptions(c *call) (metav1.DeleteOptions, error) {
	var options metav1.DeleteOptions
	if err := scheme.ParameterCodec.DecodeParameters(c.URL.Query(), optionsVersion, &options); err != nil {
		return options, apierrors.NewBadRequest(err.Error())
	}
	raw, err := readWhole(c)
	if err != nil {
		return options, err
	}
	if len(strings.TrimSpace(string(raw))) > 0 {
		// Its kind is registered in every group of the API; clients send that of the object's.
		kind := optionsVersion.WithKind("DeleteOptions")
		if _, err := decode(c.Header, raw, &options, kind, false); err != nil {
			var wrong kindError
			if !errors.As(err, &wrong) || wrong.got.Kind != kind.Kind {
				return options, badBody(err)
			}
		}
	}
	for _, mode := range options.DryRun {
		if mode != metav1.DryRunAll {
			return options, apierrors.NewBadRequest(fmt.Sprintf("dryRun: Unsupported value: %q: supported values: %q", mode, metav1.DryRunAll))
		}
	}
	if options.GracePeriodSeconds != nil && *options.GracePeriodSeconds < 0 {
		return options, apierrors.NewBadRequest("gracePeriodSeconds must not be negative")
	}
	return options, nil
}

// remove removes one object.
func (s *Server) remove(w http.ResponseWriter, c *call) error {
	options, err := removalOptions(c)
	if err != nil {
		return err
	}
	e, err := s.find(c)
	if err != nil {
		return err
	}
	if err := s.destroy(c, options, e); err != nil {
		return err
	}
	status := &metav1.Status{Status: metav1.StatusSuccess, Details: &metav1.StatusDetails{Name: c.name, Group: c.resource.Group,
		Kind: c.resource.Name, UID: e.object.GetUID()}}
	return s.answer(w, c, http.StatusOK, named(status, metav1.SchemeGroupVersion.WithKind("Status")))
}

var errPrecondition = errors.New("the object is not the one that the preconditions are about")

func (s *Server) destroy(c *call, options metav1.DeleteOptions, e *entry) error {
	of, err := s.writerOf(c)
	if err != nil {
		return err
	}
	if p := options.Preconditions; p != nil {
		if p.UID != nil && *p.UID != e.object.GetUID() || p.ResourceVersion != nil && *p.ResourceVersion != e.object.GetResourceVersion() {
			return apierrors.NewConflict(c.resource.GroupResource(), e.object.GetName(), errPrecondition)
		}
	}
	if options.PropagationPolicy != nil && *options.PropagationPolicy == metav1.DeletePropagationOrphan && owning(e.object) {
		return apierrors.NewBadRequest("propagationPolicy Orphan is refused: the orchestrator of " + s.cluster +
			" removes what a workload runs together with it")
	}
	if err := of.remove(c.Context(), deed{peer: c.peer, dry: len(options.DryRun) > 0, old: e, grace: options.GracePeriodSeconds}); err != nil {
		return err
	}
	return s.refresh(c.Context())
}

// removeAll removes the objects of a namespace that are selected, and tells which.
func (s *Server) removeAll(w http.ResponseWriter, c *call) error {
	chosen, err := selectionOf(c)
	if err != nil {
		return err
	}
	options, err := removalOptions(c)
	if err != nil {
		return err
	}
	if err := s.refresh(c.Context()); err != nil {
		return err
	}
	all, _ := s.store.list(c.resource.GroupResource(), c.namespace)
	for _, e := range all {
		if !chosen.matches(e.object) {
			continue
		}
		if err := s.destroy(c, options, e); err != nil && !gone(err) {
			return err
		}
	}
	status := &metav1.Status{Status: metav1.StatusSuccess, Details: &metav1.StatusDetails{Group: c.resource.Group, Kind: c.resource.Name}}
	return s.answer(w, c, http.StatusOK, named(status, metav1.SchemeGroupVersion.WithKind("Status")))
}

// owning tells whether an object keeps others.
func owning(o object) bool {
	switch o.(type) {
	case *appsv1.Deployment, *appsv1.DaemonSet, *batchv1.Job:
		return true
	}
	return false
}
