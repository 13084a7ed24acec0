package kubernetes

import (
	"context"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

var _ dialect.TargetLister = (*Cluster)(nil)

// Targets are the containers of the Pods that the cache holds. An init container is one while it runs, as sidecars do.
func (c *Cluster) Targets(_ context.Context, namespace string) ([]neutral.Target, error) {
	if !c.pods.informer.HasSynced() || !c.pods.fresh() {
		return nil, fault.New(fault.Unavailable, "the orchestrator's Pods are not known at the moment")
	}
	var targets []neutral.Target
	for _, obj := range c.pods.informer.GetStore().List() {
		pod, ok := obj.(*corev1.Pod)
		if !ok || namespace != "" && pod.Namespace != namespace {
			continue
		}
		add := func(name string) error {
			target, err := targetOf(pod, name)
			targets = append(targets, target)
			return err
		}
		for i := range pod.Spec.InitContainers {
			if name := pod.Spec.InitContainers[i].Name; containerRuns(pod, name) {
				if err := add(name); err != nil {
					return nil, err
				}
			}
		}
		for i := range pod.Spec.Containers {
			if err := add(pod.Spec.Containers[i].Name); err != nil {
				return nil, err
			}
		}
	}
	return targets, nil
}
