package apiserver

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// namespaceKind is the orchestrator's stacks: those that something is in, those that were made here, and the default one.
type namespaceKind struct{ *Server }

func (k namespaceKind) project(w *world) []entry {
	found := map[string]entry{}
	for _, f := range w.records(recordNamespace) {
		if e, ok := recorded(w, f, namespaceResource.Resource, &corev1.Namespace{}); ok {
			found[e.object.GetName()] = e
		}
	}
	for _, name := range append(w.namespacesInUse(), metav1.NamespaceDefault) {
		if _, ok := found[name]; !ok {
			n := &corev1.Namespace{}
			placed(n, w, namespaceResource.Resource, name, "", name, time.Time{})
			found[name] = entry{object: n}
		}
	}
	all := make([]entry, 0, len(found))
	for _, name := range slices.Sorted(maps.Keys(found)) {
		e := found[name]
		n := e.object.(*corev1.Namespace)
		k.complete(n, nil)
		n.Status.Phase = corev1.NamespaceActive
		all = append(all, e)
	}
	return all
}

// namespacesInUse are those of everything that is there.
func (w *world) namespacesInUse() []string {
	used := map[string]bool{}
	for _, o := range w.workloads {
		used[o.Namespace] = true
	}
	for _, o := range w.containers {
		used[o.Namespace] = true
	}
	for _, list := range [][]neutral.StoredFile{w.configs, w.secrets} {
		for _, o := range list {
			used[o.Namespace] = true
		}
	}
	for _, o := range w.volumes {
		used[o.Namespace] = true
	}
	delete(used, "")
	return slices.Sorted(maps.Keys(used))
}

func (namespaceKind) complete(next, _ object) {
	n := next.(*corev1.Namespace)
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	n.Labels[corev1.LabelMetadataName] = n.Name
	n.Spec.Finalizers = []corev1.FinalizerName{corev1.FinalizerKubernetes}
}

// namespaceLimit leaves room for the longest kind and a digest in the names of what is kept of a namespace.
const namespaceLimit = 36

func (namespaceKind) validate(next, old object) field.ErrorList {
	if old == nil && len(next.GetName()) > namespaceLimit {
		return field.ErrorList{field.Invalid(field.NewPath("metadata", "name"), next.GetName(), fmt.Sprintf(
			"must be no more than %d characters: a name of docker has %d, and begins with its namespace", namespaceLimit, nameLimit))}
	}
	return nil
}

func (k namespaceKind) create(ctx context.Context, d deed) ([]neutral.Loss, error) {
	return k.update(ctx, d)
}

func (k namespaceKind) update(ctx context.Context, d deed) ([]neutral.Loss, error) {
	origin, err := originOf(d.next, nil)
	if err != nil {
		return nil, err
	}
	return nil, k.keep(ctx, d, recordNamespace, d.next.GetName(), "", origin)
}

// remove removes all that is in a namespace, what runs first, and then the namespace.
func (k namespaceKind) remove(ctx context.Context, d deed) error {
	name := d.old.object.GetName()
	if name == metav1.NamespaceDefault {
		return apierrors.NewForbidden(namespaceResource, name, errDefaultNamespace)
	}
	if d.dry {
		return nil
	}
	for _, resource := range []schema.GroupResource{deploymentResource, daemonSetResource, jobResource, podResource, serviceResource,
		configMapResource, secretResource, claimResource} {
		all, _ := k.store.list(resource, name)
		of := k.kinds[resource].(writer)
		for _, e := range all {
			if resource == podResource && len(e.object.GetOwnerReferences()) > 0 {
				continue // it goes with its workload
			}
			if resource == serviceResource && e.native.own {
				continue // it is a workload's ports
			}
			if err := of.remove(ctx, deed{peer: d.peer, old: e}); err != nil && !gone(err) {
				return err
			}
		}
	}
	if err := k.removeFiles(ctx, d, name); err != nil {
		return err
	}
	if err := k.removeNetworks(ctx, d, name); err != nil {
		return err
	}
	return k.forget(ctx, d, name)
}

// networkRelease bounds how long tasks that were stopped may hold a network, and networkPause is how often it is tried.
const (
	networkRelease = 40 * time.Second
	networkPause   = 250 * time.Millisecond
)

// removeNetworks removes the networks that a namespace's containers were on, as docker does with those of a stack. A Swarm
// gives a network back some time after it has stopped the last task on it.
func (k namespaceKind) removeNetworks(ctx context.Context, d deed, namespace string) error {
	about := neutral.Object{Kind: neutral.KindNetwork, Namespace: namespace}
	result, err := k.under.Do(ctx, neutral.Operation{Action: neutral.NetworkList, Verb: neutral.List, Peer: d.peer, Object: about})
	if fault.Is(err, fault.Unsupported) {
		return nil
	}
	if err != nil {
		return err
	}
	deadline := k.now().Add(networkRelease)
	for _, n := range result.Networks {
		about.Name = n.Name
		for {
			_, err := k.under.Do(ctx, neutral.Operation{Action: neutral.NetworkRemove, Verb: neutral.Destroy, Peer: d.peer, Ref: n.ID, Object: about})
			if err == nil || gone(err) {
				break
			}
			if !fault.Is(err, fault.Conflict) || k.now().After(deadline) {
				return err
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(networkPause):
			}
		}
	}
	return nil
}

// removeFiles removes the values that containers of a namespace had mounted.
func (k namespaceKind) removeFiles(ctx context.Context, d deed, namespace string) error {
	for list, remove := range map[neutral.Action]neutral.Action{neutral.ConfigList: neutral.ConfigRemove, neutral.SecretList: neutral.SecretRemove} {
		result, err := k.under.Do(ctx, neutral.Operation{Action: list, Verb: neutral.List, Peer: d.peer, Object: neutral.Object{Kind: list.Kind()}})
		if fault.Is(err, fault.Unsupported) {
			continue
		}
		if err != nil {
			return err
		}
		for _, f := range result.Stored {
			if f.Namespace != namespace || f.Labels[labelRecord] != recordFile {
				continue
			}
			_, err := k.under.Do(ctx, neutral.Operation{Action: remove, Verb: neutral.Destroy, Peer: d.peer, Ref: f.ID,
				Object: neutral.Object{Kind: remove.Kind(), Namespace: namespace, Name: f.Name}})
			if err != nil && !gone(err) {
				return err
			}
		}
	}
	return nil
}
