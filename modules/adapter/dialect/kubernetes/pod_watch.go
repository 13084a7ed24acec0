package kubernetes

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/isthmus-mesh/isthmus/modules/fault"
)

const (
	callTimeout      = 30 * time.Second // one native call
	watchSeconds     = 300              // a watch is opened again after it
	watchAttempts    = 6                // failures in a row before a follower gives up
	watchBackoff     = 200 * time.Millisecond
	watchBackoffMost = 3 * time.Second
)

// followPod calls visit with a Pod as it is now and whenever it changes, and with nil while there is none of that
// name, until visit is done. It reconnects by itself.
func (c *Cluster) followPod(ctx context.Context, namespace, name string, visit func(*corev1.Pod) (done bool, err error)) error {
	selector := "metadata.name=" + name
	return c.followPods(ctx, namespace, metav1.ListOptions{FieldSelector: selector}, podVisitor{
		list: func(pods []corev1.Pod) (bool, error) {
			for i := range pods {
				if pods[i].Name == name {
					return visit(&pods[i])
				}
			}
			return visit(nil)
		},
		change: func(kind watch.EventType, pod *corev1.Pod) (bool, error) {
			switch {
			case pod.Name != name:
				return false, nil
			case kind == watch.Deleted:
				pod = nil
			}
			return visit(pod)
		},
	})
}

// podVisitor is told of Pods: all of them at first and after each gap, then each change.
type podVisitor struct {
	list   func([]corev1.Pod) (done bool, err error)
	change func(watch.EventType, *corev1.Pod) (done bool, err error)
}

// followPods follows the Pods that options select.
func (c *Cluster) followPods(ctx context.Context, namespace string, options metav1.ListOptions, visitor podVisitor) error {
	backoff, failures := watchBackoff, 0
	for {
		progress, done, err := c.followOnce(ctx, namespace, options, visitor)
		if done || ctx.Err() != nil {
			if err == nil {
				err = ctx.Err()
			}
			return err
		}
		if progress {
			backoff, failures = watchBackoff, 0
		}
		if err != nil {
			if failures++; failures >= watchAttempts {
				return err
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(backoff):
			}
			backoff = min(2*backoff, watchBackoffMost)
		}
	}
}

// followOnce lists and watches until the watch ends. done with an error is the visitor's own.
func (c *Cluster) followOnce(ctx context.Context, namespace string, options metav1.ListOptions, visitor podVisitor) (progress, done bool, err error) {
	pods := c.client.CoreV1().Pods(namespace)
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	list, err := pods.List(call, options)
	if err != nil {
		return false, false, nativeFault(err)
	}
	if done, err = visitor.list(list.Items); done || err != nil {
		return true, true, err
	}
	seconds := int64(watchSeconds)
	options.ResourceVersion, options.TimeoutSeconds = list.ResourceVersion, &seconds
	w, err := pods.Watch(ctx, options)
	if err != nil {
		return false, false, nativeFault(err)
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return true, true, ctx.Err()
		case event, open := <-w.ResultChan():
			if !open {
				return true, false, nil
			}
			pod, ok := event.Object.(*corev1.Pod)
			if !ok {
				if event.Type == watch.Error {
					return true, false, fault.New(fault.Unavailable, "the orchestrator ended a watch")
				}
				continue
			}
			if done, err := visitor.change(event.Type, pod); done || err != nil {
				return true, true, err
			}
		}
	}
}
