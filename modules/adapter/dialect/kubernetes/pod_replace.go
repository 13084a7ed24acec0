package kubernetes

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/freezer"
)

// A Pod that ended cannot run again, so a start replaces it by one of the same name and spec. While neither exists, a
// Secret (a spec can hold secrets) keeps the spec safe; a gateway that finds one whose writer died finishes the work.
//
//	journal written -> old Pod marked and deleted -> new Pod made -> journal deleted

const (
	journalPrefix   = "isthmus-replace-"
	journalKey      = "pod.json"
	journalSeal     = "seal"
	journalReplace  = "replace"
	journalAge      = 30 * time.Second // older ones have lost their writer
	replacePatience = 45 * time.Second
)

// journalName is the journal's for a Pod.
func journalName(pod string) string { return journalPrefix + digest(pod)[:16] }

// successor is the Pod that takes another's place: the same but for what the API server and the node gave it.
func successor(pod *corev1.Pod) *corev1.Pod {
	next := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace, Labels: pod.Labels,
			Annotations: map[string]string{}},
		Spec: *pod.Spec.DeepCopy(),
	}
	for key, value := range pod.Annotations {
		switch key {
		case annotationError, annotationStopped, annotationPaused, annotationUnpaused, annotationDeadline, annotationReplacing,
			freezer.Annotation:
		default:
			next.Annotations[key] = value
		}
	}
	if next.Annotations[annotationNonce] == "" {
		next.Annotations[annotationNonce] = string(pod.UID) // the id that callers know it by goes on
	}
	next.Annotations[annotationCreated] = createdAt(pod).UTC().Format(time.RFC3339)
	spec := &next.Spec
	spec.NodeName, spec.SchedulingGates, spec.EphemeralContainers = "", nil, nil
	spec.Priority, spec.PreemptionPolicy = nil, nil // admission sets them from the class
	if noted, ok := pod.Annotations[annotationDeadline]; ok {
		spec.ActiveDeadlineSeconds = nil
		if seconds, err := strconv.ParseInt(noted, 10, 64); err == nil {
			spec.ActiveDeadlineSeconds = &seconds
		}
	}
	dropTokens(spec)
	searchNetworks(next.ObjectMeta, next.Namespace, spec)
	return next
}

// dropTokens takes out the projected tokens that admission adds to every Pod.
func dropTokens(spec *corev1.PodSpec) {
	const prefix = "kube-api-access-"
	var volumes []corev1.Volume
	for _, v := range spec.Volumes {
		if v.Projected == nil || !strings.HasPrefix(v.Name, prefix) {
			volumes = append(volumes, v)
		}
	}
	spec.Volumes = volumes
	for _, list := range [][]corev1.Container{spec.Containers, spec.InitContainers} {
		for i := range list {
			var mounts []corev1.VolumeMount
			for _, m := range list[i].VolumeMounts {
				if !strings.HasPrefix(m.Name, prefix) {
					mounts = append(mounts, m)
				}
			}
			list[i].VolumeMounts = mounts
		}
	}
}

// unstarted is the successor of a Pod whose start came to nothing: it waits for its start again. Kubernetes gives a gate
// back to no Pod, and a deadline ends none that has no node.
func unstarted(pod *corev1.Pod, why string) *corev1.Pod {
	next := successor(pod)
	next.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: gateNotStarted}}
	if why != "" {
		next.Annotations[annotationError] = why
	}
	return next
}

// replacePod ends the Pod with a grace period and makes its successor.
func (c *Cluster) replacePod(ctx context.Context, pod, next *corev1.Pod, grace int64) error {
	if err := c.writeJournal(ctx, next); err != nil {
		return err
	}
	// From here on the work is finished even when the caller goes away.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), replacePatience+time.Duration(grace)*time.Second)
	defer cancel()
	if err := c.clearWay(ctx, pod, grace); err != nil {
		// The old Pod may be there for good: its spec is safe in itself, and the journal must not start it later.
		return errors.Join(err, c.dropJournalIfPresent(ctx, pod))
	}
	if err := c.makeSuccessor(ctx, next); err != nil {
		return err // the journal stays, and with it the container
	}
	return c.dropJournal(ctx, pod.Namespace, pod.Name)
}

func (c *Cluster) writeJournal(ctx context.Context, next *corev1.Pod) error {
	body, err := json.Marshal(next)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "the container's spec cannot be written")
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: journalName(next.Name), Namespace: next.Namespace,
			Labels:      map[string]string{labelJournal: journalReplace},
			Annotations: map[string]string{annotationReplacing: next.Name}},
		Data: map[string][]byte{journalKey: body, journalSeal: c.sealOf(next.Namespace, body)},
	}
	leftBy(ctx, &secret.ObjectMeta)
	_, err = c.client.CoreV1().Secrets(next.Namespace).Create(ctx, secret, metav1.CreateOptions{FieldManager: fieldManager})
	if apierrors.IsAlreadyExists(err) {
		return fault.Wrap(fault.Conflict, err, "container %s is being started already", next.Name)
	}
	if err != nil {
		return fault.Wrap(fault.Of(nativeFault(err)).Kind, err, "the container's spec could not be kept safe, so it is left as it is")
	}
	return nil
}

// sealOf tells a journal of this gateway from what others write: what a journal holds is made a Pod with no policy asked.
func (c *Cluster) sealOf(namespace string, body []byte) []byte {
	mac := hmac.New(sha256.New, c.seal)
	mac.Write([]byte("journal of " + namespace + "\n")) // a hash takes all
	mac.Write(body)
	return mac.Sum(nil)
}

// clearWay deletes the old Pod and waits until it is gone.
func (c *Cluster) clearWay(ctx context.Context, pod *corev1.Pod, grace int64) error {
	mark, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID,
		"annotations": map[string]string{annotationReplacing: time.Now().UTC().Format(time.RFC3339)}}})
	if err != nil {
		return fault.Wrap(fault.Internal, err, "a patch cannot be written")
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = c.client.CoreV1().Pods(pod.Namespace).Patch(call, pod.Name, types.MergePatchType, mark, metav1.PatchOptions{FieldManager: fieldManager})
	if err != nil && !apierrors.IsNotFound(err) {
		return nativeFault(err)
	}
	if err := c.deletePod(ctx, pod, grace); err != nil {
		return err
	}
	return c.awaitGone(ctx, pod)
}

// awaitGone waits until this very Pod is gone.
func (c *Cluster) awaitGone(ctx context.Context, pod *corev1.Pod) error {
	err := c.followPod(ctx, pod.Namespace, pod.Name, func(now *corev1.Pod) (bool, error) {
		return now == nil || now.UID != pod.UID, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return fault.New(fault.Timeout, "container %s was told to go, and its node does not say that it has", pod.Name)
	}
	return err
}

// makeSuccessor creates the new Pod. That it exists already, with the same identity, is as good.
func (c *Cluster) makeSuccessor(ctx context.Context, next *corev1.Pod) error {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	pods := c.client.CoreV1().Pods(next.Namespace)
	_, err := pods.Create(call, next, metav1.CreateOptions{FieldManager: fieldManager})
	if !apierrors.IsAlreadyExists(err) {
		return nativeFault(err)
	}
	there, err := pods.Get(call, next.Name, metav1.GetOptions{})
	if err != nil {
		return nativeFault(err)
	}
	if there.Annotations[annotationNonce] != next.Annotations[annotationNonce] {
		return fault.New(fault.Conflict, "the name of container %s was taken by another while it was replaced", next.Name)
	}
	return nil
}

func (c *Cluster) dropJournal(ctx context.Context, namespace, pod string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := c.client.CoreV1().Secrets(namespace).Delete(ctx, journalName(pod), metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return nativeFault(err)
}

// dropJournalIfPresent drops the journal of a Pod that is still there; otherwise the journal is all there is.
func (c *Cluster) dropJournalIfPresent(ctx context.Context, pod *corev1.Pod) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	there, err := c.client.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
	if err != nil || there.UID != pod.UID || there.DeletionTimestamp != nil {
		return nil
	}
	return c.dropJournal(ctx, pod.Namespace, pod.Name)
}

// recoverJournals finishes replacements whose writer died.
func (c *Cluster) recoverJournals(ctx context.Context) error {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	list, err := c.client.CoreV1().Secrets(c.namespace).List(call, metav1.ListOptions{LabelSelector: labelJournal + "=" + journalReplace})
	if err != nil {
		return nativeFault(err)
	}
	var failed error
	for i := range list.Items {
		secret := &list.Items[i]
		actor, acting := dialect.ActorOf(ctx)
		if acting && secret.Annotations[annotationPeer] != actor.Peer || time.Since(secret.CreationTimestamp.Time) < journalAge {
			continue
		}
		if err := c.recoverJournal(ctx, secret); err != nil {
			failed = errors.Join(failed, fmt.Errorf("recover %s: %w", secret.Name, err))
		}
	}
	return failed
}

func (c *Cluster) recoverJournal(ctx context.Context, secret *corev1.Secret) error {
	body := secret.Data[journalKey]
	if !hmac.Equal(secret.Data[journalSeal], c.sealOf(secret.Namespace, body)) {
		return errors.New("this gateway did not write it: remove it")
	}
	var next corev1.Pod
	if err := json.Unmarshal(body, &next); err != nil {
		return fmt.Errorf("read a journal: %w", err)
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	there, err := c.client.CoreV1().Pods(secret.Namespace).Get(call, next.Name, metav1.GetOptions{})
	switch {
	case err == nil && there.Annotations[annotationReplacing] != "" && there.Annotations[annotationNonce] == next.Annotations[annotationNonce]:
		if there.DeletionTimestamp != nil {
			return nil // it is still going; next time
		}
		// Marked and never deleted: it is as it was before the start, and a caller may start it again.
	case apierrors.IsNotFound(err):
		next.Namespace = secret.Namespace
		if err := c.makeSuccessor(ctx, &next); err != nil {
			return err
		}
		c.log.Info("a container whose replacement was cut short is there again", "container", next.Name)
	case err != nil:
		return nativeFault(err)
	}
	return c.dropJournal(ctx, secret.Namespace, next.Name)
}
