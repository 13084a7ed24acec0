package kubernetes

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	mcsv1beta1 "sigs.k8s.io/mcs-api/pkg/apis/v1beta1"
)

// statuses tells the owners of ServiceExports, on the objects, whether they are offered. It is a courtesy: where the
// gateway may not write it, it does without.
type statuses struct {
	dynamic dynamic.Interface
	log     *slog.Logger

	mu      sync.Mutex
	pending map[types.NamespacedName]exportStatus
	wake    chan struct{}
}

// exportStatus is what is to be said about one ServiceExport.
type exportStatus struct {
	resource schema.GroupVersionResource
	trouble  problem
}

func newStatuses(c *Cluster) *statuses {
	return &statuses{
		dynamic: c.dynamic, log: c.log,
		pending: map[types.NamespacedName]exportStatus{}, wake: make(chan struct{}, 1),
	}
}

// say takes note of a status; only the last one of a name is written.
func (s *statuses) say(name types.NamespacedName, status exportStatus) {
	s.mu.Lock()
	s.pending[name] = status
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run writes what was said until ctx ends.
func (s *statuses) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
		s.mu.Lock()
		pending := s.pending
		s.pending = map[types.NamespacedName]exportStatus{}
		s.mu.Unlock()
		for name, status := range pending {
			err := s.write(ctx, name, status)
			switch {
			case err == nil, apierrors.IsNotFound(err), ctx.Err() != nil:
			case apierrors.IsForbidden(err):
				s.log.Info("the gateway may not write the status of service exports, and does without", "error", err)
				<-ctx.Done()
				return
			default:
				s.log.Warn("the status of a service export cannot be written", "namespace", name.Namespace, "name", name.Name, "error", err)
			}
		}
	}
}

// write sets the condition Valid unless it says so already.
func (s *statuses) write(ctx context.Context, name types.NamespacedName, status exportStatus) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	client := s.dynamic.Resource(status.resource).Namespace(name.Namespace)
	object, err := client.Get(ctx, name.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	var export mcsv1beta1.ServiceExport
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &export); err != nil {
		return err
	}
	want := validCondition(status.trouble, export.Generation)
	for _, is := range export.Status.Conditions {
		is.LastTransitionTime = want.LastTransitionTime
		if equality.Semantic.DeepEqual(is, want) {
			return nil
		}
	}
	condition, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&want)
	if err != nil {
		return err
	}
	applied := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": object.GetAPIVersion(), "kind": object.GetKind(),
		"metadata": map[string]any{"namespace": name.Namespace, "name": name.Name},
		"status":   map[string]any{"conditions": []any{condition}},
	}}
	_, err = client.ApplyStatus(asGateway(ctx), name.Name, applied, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
	return err
}

func validCondition(trouble problem, generation int64) metav1.Condition {
	status, reason, message := metav1.ConditionTrue, mcsv1beta1.ServiceExportReasonValid, "the service is offered"
	switch trouble {
	case "":
	case problemNoService:
		status, reason, message = metav1.ConditionFalse, mcsv1beta1.ServiceExportReasonNoService, string(trouble)
	default:
		status, reason, message = metav1.ConditionFalse, mcsv1beta1.ServiceExportReasonInvalidServiceType, string(trouble)
	}
	condition := mcsv1beta1.NewServiceExportCondition(mcsv1beta1.ServiceExportConditionValid, status, reason, message)
	condition.ObservedGeneration = generation
	return condition
}
