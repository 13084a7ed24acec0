package kubernetes

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// planContainerCreate posts a Pod that waits for its start.
//
// https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#create
func (a *action) planContainerCreate() (dialect.Plan, error) {
	if a.op.Container == nil {
		return dialect.Plan{}, fault.New(fault.Invalid, "config cannot be empty in order to create a container")
	}
	nonce, err := newNonce()
	if err != nil {
		return dialect.Plan{}, err
	}
	pod, losses, err := podFromContainer(a.op.Container, a.namespace, nonce)
	if err != nil {
		return dialect.Plan{}, err
	}
	if a.op.Peer != "" {
		pod.Annotations[annotationPeer] = a.op.Peer
	}
	wanted := containerFromPod(a.cluster, pod, 0, time.Now())
	if err := a.permit(containerObject(&wanted)); err != nil {
		return dialect.Plan{}, err
	}
	if len(claimsOf(&pod.Spec)) > 0 {
		return dialect.Plan{Program: func(ctx context.Context) (neutral.Result, error) {
			return a.createWithVolumes(ctx, pod, wanted.Name, losses)
		}}, nil
	}
	body, err := json.Marshal(pod)
	if err != nil {
		return dialect.Plan{}, fault.Wrap(fault.Internal, err, "the container's spec cannot be written")
	}
	header := http.Header{"Accept": {acceptBoth}, "Accept-Encoding": {"identity"}, "Content-Type": {mediaJSON}}
	return dialect.Plan{Call: &dialect.Call{
		Request: dialect.Request{Method: http.MethodPost, Path: a.podsPath() + "?fieldManager=isthmus&fieldValidation=Strict",
			Header: header, Body: body},
		Decode: func(response dialect.Response) (neutral.Result, error) {
			var made corev1.Pod
			if err := decodeObject(response, &made); err != nil {
				return neutral.Result{}, createFault(err, wanted.Name)
			}
			c := containerFromPod(a.cluster, &made, 0, time.Now())
			return neutral.Result{ID: c.ID, Container: &c, Losses: losses}, nil
		},
	}}, nil
}

// createWithVolumes makes a Pod and the volumes that it mounts and that are not there yet.
func (a *action) createWithVolumes(ctx context.Context, pod *corev1.Pod, name string, losses []neutral.Loss) (neutral.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	missing, err := a.missingVolumes(ctx, pod.ObjectMeta, &pod.Spec)
	if err != nil {
		return neutral.Result{}, err
	}
	wanted := containerFromPod(a.cluster, pod, 0, time.Now())
	if err := a.permit(containerObject(&wanted)); err != nil { // once more: the record is about the container
		return neutral.Result{}, err
	}
	made, err := a.client.CoreV1().Pods(a.namespace).Create(ctx, pod, metav1.CreateOptions{FieldManager: fieldManager,
		FieldValidation: metav1.FieldValidationStrict})
	if err != nil {
		return neutral.Result{}, createFault(nativeFault(err), name)
	}
	if err := a.makeVolumes(ctx, missing); err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		if failed := a.deletePod(undo, made, 0); failed != nil {
			a.log.Error("a container without its volumes is not removed", "container", name, "err", failed)
		}
		return neutral.Result{}, err
	}
	c := containerFromPod(a.cluster, made, 0, time.Now())
	return neutral.Result{ID: c.ID, Container: &c, Losses: losses}, nil
}

// createFault says in docker's words that a name is taken; anything else stays what it was.
func createFault(err error, name string) error {
	if fault.Is(err, fault.Conflict) && strings.Contains(err.Error(), "already exists") {
		return fault.Wrap(fault.Conflict, err, "Conflict. The container name %q is already in use by another container. "+
			"You have to remove (or rename) that container to be able to reuse that name.", "/"+name)
	}
	return err
}
