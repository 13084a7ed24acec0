package kubernetes

import (
	"context"

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
		list, err := a.client.CoreV1().Pods(a.namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return neutral.Result{}, nativeFault(err)
		}
		containers := containersFromPods(a.cluster, list.Items, system.Now)
		system.Containers, system.Running, system.Paused, system.Stopped = len(containers), 0, 0, 0
		for i := range containers {
			switch containers[i].State.Status {
			case neutral.StatusRunning, neutral.StatusRestarting:
				system.Running++
			case neutral.StatusPaused:
				system.Paused++
			default:
				system.Stopped++
			}
		}
		if nodes, err := a.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{}); err == nil {
			system.Images = len(imagesFromNodes(nodes.Items))
		}
		return neutral.Result{System: &system}, nil
	}}, nil
}
