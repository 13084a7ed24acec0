package kubernetes

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	coreinformers "k8s.io/client-go/informers/core/v1"
	discoveryinformers "k8s.io/client-go/informers/discovery/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/isthmus-mesh/isthmus/modules/freezer"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// burst is how long changes are gathered before they are published: a rollout changes many objects at once.
const burst = 20 * time.Millisecond

const (
	indexService = "service"
	indexPod     = "pod"
)

// catalogue follows what this cluster exports. Handlers mark the names that changed; one goroutine works them off.
type catalogue struct {
	services cache.SharedIndexInformer
	slices   cache.SharedIndexInformer
	pods     cache.SharedIndexInformer
	exports  *exports
	statuses *statuses
	log      *slog.Logger

	mu    sync.Mutex
	dirty map[types.NamespacedName]struct{}
	wake  chan struct{}

	// Of the working goroutine alone.
	entries  map[types.NamespacedName]neutral.Service
	problems map[types.NamespacedName]problem
}

// Services follows what is exported: a Service that a ServiceExport of its name exports or that carries the label
// isthmus.io/export=true, and a bare Pod with that label, offered by the pod's name.
func (c *Cluster) Services(ctx context.Context, publish func([]neutral.Service)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()

	k := &catalogue{
		services: coreinformers.NewServiceInformer(c.client, metav1.NamespaceAll, 0, cache.Indexers{}),
		slices: discoveryinformers.NewEndpointSliceInformer(c.client, metav1.NamespaceAll, 0,
			cache.Indexers{indexService: serviceOfSlice, indexPod: podsOfSlice}),
		pods:     c.pods.informer,
		log:      c.log,
		dirty:    map[types.NamespacedName]struct{}{},
		wake:     make(chan struct{}, 1),
		entries:  map[types.NamespacedName]neutral.Service{},
		problems: map[types.NamespacedName]problem{},
	}
	k.exports, k.statuses = newExports(c, k.mark), newStatuses(c)
	follow(k.services, slimService, &complaint{log: c.log, what: "services"})
	follow(k.slices, slimSlice, &complaint{log: c.log, what: "endpoint slices"})

	synced := []cache.InformerSynced{k.exports.known}
	for _, source := range []struct {
		informer cache.SharedIndexInformer
		key      func(any) (types.NamespacedName, bool)
	}{{k.services, keyOfService}, {k.slices, keyOfSlice}, {k.pods, keyOfExportedPod}} {
		registration, err := source.informer.AddEventHandler(k.handler(source.key))
		if err != nil {
			return fmt.Errorf("kubernetes catalogue: %w", err)
		}
		defer func() { _ = source.informer.RemoveEventHandler(registration) }() // fails for an informer that ended
		synced = append(synced, registration.HasSynced)
	}
	registration, err := k.pods.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: k.seeFrozen,
		UpdateFunc: func(old, pod any) { k.seeFrozen(old); k.seeFrozen(pod) }})
	if err != nil {
		return fmt.Errorf("kubernetes catalogue: %w", err)
	}
	defer func() { _ = k.pods.RemoveEventHandler(registration) }() // fails for an informer that ended

	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer cancel() // before the wait
	tasks.Go(func() { k.services.RunWithContext(ctx) })
	tasks.Go(func() { k.slices.RunWithContext(ctx) })
	tasks.Go(func() { k.exports.run(ctx) })
	tasks.Go(func() { k.statuses.run(ctx) })

	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		return nil
	}
	k.work(ctx, publish)
	return nil
}

// work publishes the first complete set, then every set that differs from the one before.
func (k *catalogue) work(ctx context.Context, publish func([]neutral.Service)) {
	k.refresh()
	publish(k.sorted())
	timer := time.NewTimer(burst)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.wake:
		}
		timer.Reset(burst)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if k.refresh() {
			publish(k.sorted())
		}
	}
}

// refresh makes the entries of all marked names anew and tells whether any differs.
func (k *catalogue) refresh() bool {
	k.mu.Lock()
	dirty := k.dirty
	k.dirty = map[types.NamespacedName]struct{}{}
	k.mu.Unlock()
	changed := false
	for name := range dirty {
		entry, ok, trouble := k.entry(name)
		k.explain(name, trouble)
		old, had := k.entries[name]
		switch {
		case ok && (!had || !old.Equal(entry)):
			k.entries[name] = entry
			changed = true
		case !ok && had:
			delete(k.entries, name)
			changed = true
		}
	}
	return changed
}

// entry makes the entry of one name; ok is false when the name is not exported or, with a problem, cannot be.
func (k *catalogue) entry(name types.NamespacedName) (entry neutral.Service, ok bool, trouble problem) {
	resource, exported := k.exports.has(name)
	if exported {
		defer func() { k.statuses.say(name, exportStatus{resource: resource, trouble: trouble}) }()
	}
	if svc := stored[corev1.Service](k.services, name); svc != nil && svc.DeletionTimestamp == nil {
		if exported || svc.Labels[labelExport] == exportTrue {
			entry, trouble = serviceEntry(svc, k.slicesOf(name), k.podOf)
			return entry, trouble == "", trouble
		}
	} else if exported {
		trouble = problemNoService
	}
	pod := stored[corev1.Pod](k.pods, name)
	if pod == nil || pod.Labels[labelExport] != exportTrue || metav1.GetControllerOfNoCopy(pod) != nil {
		return neutral.Service{}, false, trouble
	}
	entry, trouble = podEntry(pod)
	return entry, trouble == "", trouble
}

// explain logs what keeps an export from being offered, once until it changes.
func (k *catalogue) explain(name types.NamespacedName, trouble problem) {
	if k.problems[name] == trouble {
		return
	}
	if trouble == "" {
		delete(k.problems, name)
		return
	}
	k.problems[name] = trouble
	k.log.Warn("export is not offered", "namespace", name.Namespace, "name", name.Name, "reason", string(trouble))
}

// sorted is the whole set. Readers keep it, so each is a slice of its own.
func (k *catalogue) sorted() []neutral.Service {
	return slices.SortedFunc(maps.Values(k.entries), func(a, b neutral.Service) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
}

// mark says that something about a name changed.
func (k *catalogue) mark(name types.NamespacedName) {
	k.mu.Lock()
	k.dirty[name] = struct{}{}
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// handler marks the names that key reads from changed objects.
func (k *catalogue) handler(key func(any) (types.NamespacedName, bool)) cache.ResourceEventHandler {
	mark := func(obj any) {
		if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
			obj = gone.Obj
		}
		if name, ok := key(obj); ok {
			k.mark(name)
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    mark,
		UpdateFunc: func(old, obj any) { mark(old); mark(obj) },
		DeleteFunc: mark,
	}
}

func keyOfService(obj any) (types.NamespacedName, bool) {
	svc, ok := obj.(*corev1.Service)
	if !ok {
		return types.NamespacedName{}, false
	}
	return types.NamespacedName{Namespace: svc.Namespace, Name: svc.Name}, true
}

func keyOfSlice(obj any) (types.NamespacedName, bool) {
	slice, ok := obj.(*discoveryv1.EndpointSlice)
	if !ok || slice.Labels[discoveryv1.LabelServiceName] == "" {
		return types.NamespacedName{}, false
	}
	return types.NamespacedName{Namespace: slice.Namespace, Name: slice.Labels[discoveryv1.LabelServiceName]}, true
}

func keyOfExportedPod(obj any) (types.NamespacedName, bool) {
	pod, ok := obj.(*corev1.Pod)
	if !ok || pod.Labels[labelExport] != exportTrue {
		return types.NamespacedName{}, false
	}
	return types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}, true
}

func serviceOfSlice(obj any) ([]string, error) {
	name, ok := keyOfSlice(obj)
	if !ok {
		return nil, nil
	}
	return []string{name.String()}, nil
}

// podsOfSlice gives the Pods that a slice's endpoints are of.
func podsOfSlice(obj any) ([]string, error) {
	slice, ok := obj.(*discoveryv1.EndpointSlice)
	if !ok {
		return nil, nil
	}
	var pods []string
	for i := range slice.Endpoints {
		if target := slice.Endpoints[i].TargetRef; target != nil {
			pods = append(pods, target.Namespace+"/"+target.Name)
		}
	}
	return pods, nil
}

// seeFrozen marks the services that a Pod is an endpoint of, where the Pod has to do with freezing.
func (k *catalogue) seeFrozen(obj any) {
	pod, ok := obj.(*corev1.Pod)
	if !ok || pod.Annotations[freezer.Annotation] == "" && reportOf(pod) == nil {
		return
	}
	found, err := k.slices.GetIndexer().ByIndex(indexPod, pod.Namespace+"/"+pod.Name)
	if err != nil { // only for an index that does not exist
		return
	}
	for _, slice := range found {
		if name, ok := keyOfSlice(slice); ok {
			k.mark(name)
		}
	}
}

// podOf gives the Pod that an endpoint is of, nil where it is not known.
func (k *catalogue) podOf(target *corev1.ObjectReference) *corev1.Pod {
	if target == nil {
		return nil
	}
	return stored[corev1.Pod](k.pods, types.NamespacedName{Namespace: target.Namespace, Name: target.Name})
}

func (k *catalogue) slicesOf(name types.NamespacedName) []*discoveryv1.EndpointSlice {
	found, err := k.slices.GetIndexer().ByIndex(indexService, name.String())
	if err != nil { // only for an index that does not exist
		return nil
	}
	all := make([]*discoveryv1.EndpointSlice, 0, len(found))
	for _, obj := range found {
		if slice, ok := obj.(*discoveryv1.EndpointSlice); ok {
			all = append(all, slice)
		}
	}
	return all
}

// stored gives an object of an informer's store, nil when it is not there.
func stored[T any](informer cache.SharedIndexInformer, name types.NamespacedName) *T {
	obj, ok, err := informer.GetStore().GetByKey(name.String())
	if err != nil || !ok {
		return nil
	}
	t, _ := obj.(*T)
	return t
}
