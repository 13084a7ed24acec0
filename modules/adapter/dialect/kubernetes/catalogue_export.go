package kubernetes

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"
)

// How often the API is asked whether it has ServiceExports by now; the resource may be installed at any time.
const (
	exportsRetryMin = time.Second
	exportsRetryMax = 5 * time.Second
)

// exportVersions are the versions of ServiceExport that are understood, the best first.
var exportVersions = []schema.GroupVersionResource{
	{Group: "multicluster.x-k8s.io", Version: "v1beta1", Resource: "serviceexports"},
	{Group: "multicluster.x-k8s.io", Version: "v1alpha1", Resource: "serviceexports"},
}

// exports follows the ServiceExports of a cluster that may not have that resource, not yet or no more.
type exports struct {
	discovery discovery.DiscoveryInterfaceWithContext
	metadata  metadata.Interface
	mark      func(types.NamespacedName)
	log       *slog.Logger
	trouble   *complaint
	retryMin  time.Duration

	settled atomic.Bool // it is known what is exported, even if that is nothing

	mu       sync.RWMutex
	store    cache.Store // nil while the cluster has no ServiceExports
	resource schema.GroupVersionResource
}

func newExports(c *Cluster, mark func(types.NamespacedName)) *exports {
	return &exports{
		discovery: discovery.ToDiscoveryInterfaceWithContext(c.client.Discovery()),
		metadata:  c.metadata,
		mark:      mark,
		log:       c.log,
		trouble:   &complaint{log: c.log, what: "service exports"},
		retryMin:  exportsRetryMin,
	}
}

// known tells whether has gives complete answers.
func (e *exports) known() bool { return e.settled.Load() }

// has tells whether a ServiceExport of that name is there, and as which resource.
func (e *exports) has(name types.NamespacedName) (schema.GroupVersionResource, bool) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.store == nil {
		return schema.GroupVersionResource{}, false
	}
	obj, ok, err := e.store.GetByKey(name.String())
	if err != nil || !ok {
		return schema.GroupVersionResource{}, false
	}
	export, ok := obj.(*metav1.PartialObjectMetadata)
	return e.resource, ok && export.DeletionTimestamp == nil
}

// run looks for the resource, follows it while it is there, and looks again.
func (e *exports) run(ctx context.Context) {
	wait := e.retryMin
	for ctx.Err() == nil {
		resource, found, err := e.find(ctx)
		switch {
		case err != nil:
			if ctx.Err() == nil {
				e.trouble.say(err)
			}
		case found:
			wait = e.retryMin
			e.follow(ctx, resource)
		default:
			e.settled.Store(true)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, exportsRetryMax)
	}
}

// find asks the API which version of ServiceExport it serves.
func (e *exports) find(ctx context.Context) (schema.GroupVersionResource, bool, error) {
	for _, v := range exportVersions {
		list, err := e.discovery.ServerResourcesForGroupVersionWithContext(ctx, v.GroupVersion().String())
		switch {
		case apierrors.IsNotFound(err):
			continue
		case err != nil:
			return schema.GroupVersionResource{}, false, err
		}
		for i := range list.APIResources {
			if list.APIResources[i].Name == v.Resource {
				return v, true, nil
			}
		}
	}
	return schema.GroupVersionResource{}, false, nil
}

// follow keeps the store until ctx ends or the API has the resource no more.
func (e *exports) follow(ctx context.Context, resource schema.GroupVersionResource) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	informer := metadatainformer.NewFilteredMetadataInformer(e.metadata, resource, metav1.NamespaceAll, 0, cache.Indexers{}, nil).Informer()
	// These fail only on an informer that runs already.
	_ = informer.SetTransform(slimExport)
	_ = informer.SetWatchErrorHandlerWithContext(func(ctx context.Context, _ *cache.Reflector, err error) {
		switch {
		case ctx.Err() != nil:
		case apierrors.IsNotFound(err): // the resource was uninstalled
			cancel()
		default:
			e.trouble.say(err)
			if apierrors.IsForbidden(err) { // what is exported by label is offered nevertheless
				e.settled.Store(true)
			}
		}
	})
	registration, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    e.changed,
		UpdateFunc: func(_, obj any) { e.changed(obj) },
		DeleteFunc: e.changed,
	})
	if err != nil {
		e.trouble.say(err)
		return
	}
	e.mu.Lock()
	e.store, e.resource = informer.GetStore(), resource
	e.mu.Unlock()

	var running sync.WaitGroup
	running.Go(func() {
		if cache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
			e.settled.Store(true)
		}
	})
	informer.RunWithContext(ctx)
	running.Wait()

	e.mu.Lock()
	gone := e.store.ListKeys()
	e.store = nil
	e.mu.Unlock()
	for _, key := range gone {
		if namespace, name, err := cache.SplitMetaNamespaceKey(key); err == nil {
			e.mark(types.NamespacedName{Namespace: namespace, Name: name})
		}
	}
}

func (e *exports) changed(obj any) {
	if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	if export, ok := obj.(*metav1.PartialObjectMetadata); ok {
		e.mark(types.NamespacedName{Namespace: export.Namespace, Name: export.Name})
	}
}
