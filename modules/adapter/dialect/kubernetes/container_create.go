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
	c := a.op.Container
	if c == nil {
		return dialect.Plan{}, fault.New(fault.Invalid, "config cannot be empty in order to create a container")
	}
	nonce, err := newNonce()
	if err != nil {
		return dialect.Plan{}, err
	}
	made, err := a.newContainer(c, nonce)
	if err != nil {
		return dialect.Plan{}, err
	}
	if len(claimsOf(&made.pod.Spec)) > 0 || onUserNetwork(made.pod.Labels) { // policy may have to look at volumes
		return dialect.Plan{Program: func(ctx context.Context) (neutral.Result, error) { return a.createContainer(ctx, made) }}, nil
	}
	if err := a.permit(containerObject(&made.wanted)); err != nil {
		return dialect.Plan{}, err
	}
	body, err := json.Marshal(made.pod)
	if err != nil {
		return dialect.Plan{}, fault.Wrap(fault.Internal, err, "the container's spec cannot be written")
	}
	header := http.Header{"Accept": {acceptBoth}, "Accept-Encoding": {"identity"}, "Content-Type": {mediaJSON}}
	return dialect.Plan{Call: &dialect.Call{
		Request: dialect.Request{Method: http.MethodPost, Path: a.podsPath() + "?fieldManager=isthmus&fieldValidation=Strict",
			Header: header, Body: body},
		Decode: func(response dialect.Response) (neutral.Result, error) {
			var pod corev1.Pod
			if err := decodeObject(response, &pod); err != nil {
				return neutral.Result{}, createFault(err, made.wanted.Name)
			}
			return made.result(a.cluster, &pod), nil
		},
	}}, nil
}

// newContainer is a container on its way to be made.
type newContainer struct {
	pod    *corev1.Pod
	wanted neutral.Container
	losses []neutral.Loss
}

func (n *newContainer) result(cluster string, pod *corev1.Pod) neutral.Result {
	c := containerFromPod(cluster, pod, 0, time.Now())
	return neutral.Result{ID: c.ID, Container: &c, Losses: n.losses}
}

// newContainer writes the Pod of a container.
func (a *action) newContainer(c *neutral.Container, nonce string) (*newContainer, error) {
	pod, losses, err := podFromContainer(c, a.namespace, nonce)
	if err != nil {
		return nil, err
	}
	if a.op.Peer != "" {
		pod.Annotations[annotationPeer] = a.op.Peer
	}
	return &newContainer{pod: pod, wanted: containerFromPod(a.cluster, pod, 0, time.Now()), losses: losses}, nil
}

// createContainer makes a Pod on networks that are there, and the volumes that it mounts and that are not.
func (a *action) createContainer(ctx context.Context, made *newContainer) (neutral.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := a.permitContainer(ctx, &made.wanted); err != nil {
		return neutral.Result{}, err
	}
	on, err := a.joined(ctx, a.op.Container.Networks)
	if fault.Is(err, fault.NotFound) { // what docker takes for an image that is not there, and pulls
		err = fault.Wrap(fault.Invalid, err, "%s", fault.Of(err).Message)
	}
	if err != nil {
		return neutral.Result{}, err
	}
	missing, err := a.missingVolumes(ctx, made.pod.ObjectMeta, &made.pod.Spec)
	if err != nil {
		return neutral.Result{}, err
	}
	c := *a.op.Container
	c.Networks = on
	if made, err = a.newContainer(&c, made.pod.Annotations[annotationNonce]); err != nil { // networks have their names now
		return neutral.Result{}, err
	}
	if err := a.permitContainer(ctx, &made.wanted); err != nil { // once more: the record is about the container
		return neutral.Result{}, err
	}
	if err := a.publishPorts(ctx, made.pod.Labels); err != nil {
		return neutral.Result{}, err
	}
	pod, err := a.client.CoreV1().Pods(a.namespace).Create(ctx, made.pod, metav1.CreateOptions{FieldManager: fieldManager,
		FieldValidation: metav1.FieldValidationStrict})
	if err != nil {
		return neutral.Result{}, createFault(nativeFault(err), made.wanted.Name)
	}
	if err := a.makeVolumes(ctx, missing); err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		if failed := a.deletePod(undo, pod, 0); failed != nil {
			a.log.Error("a container without its volumes is not removed", "container", made.wanted.Name, "err", failed)
		}
		return neutral.Result{}, err
	}
	return made.result(a.cluster, pod), nil
}

// createFault says in docker's words that a name is taken; anything else stays what it was.
func createFault(err error, name string) error {
	if fault.Is(err, fault.Conflict) && strings.Contains(err.Error(), "already exists") {
		return fault.Wrap(fault.Conflict, err, "Conflict. The container name %q is already in use by another container. "+
			"You have to remove (or rename) that container to be able to reuse that name.", "/"+name)
	}
	return err
}
