package kubernetes

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// pageSize is how many Pods are asked for at a time, as kubectl does.
	pageSize = 500
	// manyPods is from how many Pods on a list is read in pages. Fewer cost less in one answer, which Envoy holds whole.
	manyPods = 1000
)

// many tells whether a list of Pods may be a long one.
func (c *podCache) many() bool { return c != nil && len(c.informer.GetStore().ListKeys()) >= manyPods }

// eachPage reads the namespace's Pods, of which no more are held at a time than a page.
//
// https://kubernetes.io/docs/reference/using-api/api-concepts/#retrieving-large-results-sets-in-chunks
func (a *action) eachPage(ctx context.Context, each func([]corev1.Pod) error) error {
	for options := (metav1.ListOptions{Limit: pageSize}); ; {
		call, cancel := context.WithTimeout(ctx, callTimeout)
		list, err := a.client.CoreV1().Pods(a.namespace).List(call, options)
		cancel()
		if err != nil {
			return nativeFault(err)
		}
		if err := each(list.Items); err != nil || list.Continue == "" {
			return err
		}
		options.Continue = list.Continue
	}
}
