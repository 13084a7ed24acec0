package kubernetes

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// The two objects of a network have names that others' objects may have as well: what has not a network's label is
// nobody's to take or to delete here.

// ofNetwork tells whether an object is one of a network's.
func ofNetwork(meta metav1.ObjectMeta, name string) bool {
	said := meta.Annotations[annotationName]
	return meta.Labels[labelNetwork] != "" && (said == "" || said == name)
}

// sameService wants a Service that is there already to be the network's: of a creation that broke off, or of one at the
// same time.
func (a *action) sameService(ctx context.Context, wanted *corev1.Service, name string) error {
	there, err := a.client.CoreV1().Services(a.namespace).Get(ctx, wanted.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return fault.New(fault.Conflict, "network %s is being removed", name)
	}
	if err != nil {
		return nativeFault(err)
	}
	if !ofNetwork(there.ObjectMeta, name) || there.Spec.ClusterIP != wanted.Spec.ClusterIP || len(there.Spec.Selector) > 0 {
		return fault.New(fault.Conflict, "network %s cannot be made: the cluster has a Service %s of its own", name, wanted.Name)
	}
	return nil
}

// undoService takes away the Service of a network that could not be made, unless somebody else made it meanwhile.
func (a *action) undoService(ctx context.Context, made *corev1.Service) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	policy, err := a.client.NetworkingV1().NetworkPolicies(a.namespace).Get(ctx, made.Name, metav1.GetOptions{})
	if err == nil && policy.Labels[labelNetwork] != "" {
		return
	}
	if err == nil || apierrors.IsNotFound(err) {
		err = a.client.CoreV1().Services(a.namespace).Delete(ctx, made.Name, exactly(made.ObjectMeta))
	}
	if err != nil && !apierrors.IsNotFound(err) {
		a.log.Error("the Service of a network that could not be made is not removed", "service", made.Name, "err", err)
	}
}

// exactly deletes this object, and no later one of its name.
func exactly(meta metav1.ObjectMeta) metav1.DeleteOptions {
	return metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &meta.UID}}
}

// deleteNetwork deletes what of a network's two objects is the network's.
func (a *action) deleteNetwork(ctx context.Context, name string) error {
	legal, _ := legalNetwork(name)
	services := a.client.CoreV1().Services(a.namespace)
	service, err := services.Get(ctx, networkPrefix+legal, metav1.GetOptions{})
	if err == nil && ofNetwork(service.ObjectMeta, name) {
		err = services.Delete(ctx, service.Name, exactly(service.ObjectMeta))
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return nativeFault(err)
	}
	policies := a.client.NetworkingV1().NetworkPolicies(a.namespace)
	policy, err := policies.Get(ctx, networkPrefix+legal, metav1.GetOptions{})
	if err == nil && ofNetwork(policy.ObjectMeta, name) {
		err = policies.Delete(ctx, policy.Name, exactly(policy.ObjectMeta))
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return nativeFault(err)
}
