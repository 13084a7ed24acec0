package kubernetes

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// removed is what a gateway has, and last its leases: what is cut short is done again before another replica acts.
var removed = []schema.GroupVersionResource{records, secrets, {Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}}

// Remove removes every object of the gateway, its leases as well, and tells how many there were. Besides the rights of
// role.yaml it takes those to list and delete leases.
func (h *Home) Remove(ctx context.Context) (objects int, err error) {
	for _, resource := range removed {
		of := h.client.Resource(resource).Namespace(h.config.Namespace)
		ask, cancel := h.limit(ctx)
		list, err := of.List(ask, metav1.ListOptions{LabelSelector: gatewayLabel + "=" + h.config.Gateway})
		cancel()
		if err != nil {
			return objects, h.failed(err)
		}
		for i := range list.Items {
			ask, cancel := h.limit(ctx)
			err := of.Delete(ask, list.Items[i].GetName(), metav1.DeleteOptions{})
			cancel()
			if err != nil && !missing(err) {
				return objects, h.failed(err)
			}
			objects++
		}
	}
	return objects, nil
}
