package kubernetes

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// planVersion asks the cluster who it is.
func (a *action) planVersion() (dialect.Plan, error) {
	return dialect.Plan{Program: func(ctx context.Context) (neutral.Result, error) {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		system, err := a.System(ctx)
		if err != nil {
			return neutral.Result{}, err
		}
		return neutral.Result{System: &system}, nil
	}}, nil
}

// planInfo counts what the caller may see.
func (a *action) planInfo() (dialect.Plan, error) {
	return dialect.Plan{Program: func(ctx context.Context) (neutral.Result, error) {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		system, err := a.System(ctx)
		if err != nil {
			return neutral.Result{}, err
		}
		system.Containers, system.Running, system.Paused, system.Stopped = 0, 0, 0, 0
		if err := a.eachPage(ctx, func(page []corev1.Pod) error {
			for _, c := range containersFromPods(a.cluster, page, system.Now) {
				system.Containers++
				switch c.State.Status {
				case neutral.StatusRunning, neutral.StatusRestarting:
					system.Running++
				case neutral.StatusPaused:
					system.Paused++
				default:
					system.Stopped++
				}
			}
			return nil
		}); err != nil {
			return neutral.Result{}, err
		}
		if nodes, err := a.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{}); err == nil {
			system.Images = len(imagesFromNodes(nodes.Items))
		}
		return neutral.Result{System: &system}, nil
	}}, nil
}
