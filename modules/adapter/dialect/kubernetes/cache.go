package kubernetes

import (
	"context"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/isthmus-mesh/isthmus/modules/freezer"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

const (
	// missFor is how long a name that the API does not know is not asked again; the cache learns of a new pod sooner.
	missFor = time.Second
	// missLimit bounds the names remembered so.
	missLimit = 4096

	indexCallerName = "caller-name"
)

// podCache follows all pods, so that an access costs no call. It keeps of each what catalogue and accesses need.
type podCache struct {
	*freshness
	informer cache.SharedIndexInformer

	mu     sync.Mutex
	misses map[string]time.Time
}

func newPodCache(client kubernetes.Interface, log *slog.Logger) *podCache {
	trouble := &complaint{log: log, what: "pods"}
	c := &podCache{freshness: newFreshness(trouble), misses: map[string]time.Time{}}
	lw := c.observe(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, options)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			return client.CoreV1().Pods(metav1.NamespaceAll).Watch(ctx, options)
		},
	})
	c.informer = cache.NewSharedIndexInformer(cache.ToListWatcherWithWatchListSemantics(lw, client), &corev1.Pod{}, 0,
		cache.Indexers{indexCallerName: callerName})
	follow(c.informer, slimPod, trouble)
	return c
}

// get gives a pod by name, nil when the cache does not hold it. The pod is shared: do not change it.
func (c *podCache) get(namespace, name string) *corev1.Pod {
	obj, ok, err := c.informer.GetStore().GetByKey(namespace + "/" + name)
	if err != nil || !ok {
		return nil
	}
	pod, _ := obj.(*corev1.Pod)
	return pod
}

// named gives the pod that carries a name which Kubernetes does not allow.
func (c *podCache) named(namespace, name string) *corev1.Pod {
	found, err := c.informer.GetIndexer().ByIndex(indexCallerName, namespace+"/"+name)
	if err != nil || len(found) != 1 {
		return nil
	}
	pod, _ := found[0].(*corev1.Pod)
	return pod
}

func callerName(obj any) ([]string, error) {
	pod, ok := obj.(*corev1.Pod)
	if !ok || pod.Annotations[annotationName] == "" {
		return nil, nil
	}
	return []string{pod.Namespace + "/" + pod.Annotations[annotationName]}, nil
}

// mayExist tells whether it is worth asking the API for a pod that the cache does not hold.
func (c *podCache) mayExist(namespace, name string) bool {
	if !c.informer.HasSynced() || !c.fresh() {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.misses[namespace+"/"+name]
	return !ok || time.Since(at) > missFor
}

// missed remembers that the API does not know a pod.
func (c *podCache) missed(namespace, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.misses) >= missLimit {
		clear(c.misses)
	}
	c.misses[namespace+"/"+name] = time.Now()
}

// count adds up the containers for a system's description, if the cache is complete.
func (c *podCache) count(system *neutral.System) {
	if !c.informer.HasSynced() {
		return
	}
	for _, obj := range c.informer.GetStore().List() {
		pod, ok := obj.(*corev1.Pod)
		if !ok {
			continue
		}
		system.Containers += len(pod.Spec.Containers)
		for i := range pod.Spec.Containers {
			if containerRuns(pod, pod.Spec.Containers[i].Name) {
				system.Running++
			} else {
				system.Stopped++
			}
		}
	}
}

// follow prepares an informer: what it keeps and how it reports that it cannot follow. The reflector retries by
// itself, with backoff. It must be called before the informer runs.
func follow(informer cache.SharedIndexInformer, slim cache.TransformFunc, trouble *complaint) {
	// Both fail only on an informer that runs already.
	_ = informer.SetTransform(slim)
	_ = informer.SetWatchErrorHandlerWithContext(func(ctx context.Context, _ *cache.Reflector, err error) {
		if ctx.Err() == nil {
			trouble.say(err)
		}
	})
}

// complaint reports a lasting trouble once a minute, not at each retry.
type complaint struct {
	log  *slog.Logger
	what string

	mu   sync.Mutex
	last time.Time
}

func (c *complaint) say(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.last) < time.Minute {
		return
	}
	c.last = time.Now()
	c.log.Warn("cannot follow the orchestrator's "+c.what+"; what is known stays in use", "error", err)
}

// slimPod keeps of a pod what locating it and offering it needs. Pods are the bulk of a cluster's objects.
func slimPod(obj any) (any, error) {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return obj, nil
	}
	slim := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
			Labels: pod.Labels, OwnerReferences: pod.OwnerReferences, DeletionTimestamp: pod.DeletionTimestamp,
		},
		Spec: corev1.PodSpec{
			NodeName: pod.Spec.NodeName, HostNetwork: pod.Spec.HostNetwork, Subdomain: pod.Spec.Subdomain,
			Containers:     slimContainers(pod.Spec.Containers),
			InitContainers: slimContainers(pod.Spec.InitContainers),
		},
		Status: corev1.PodStatus{
			Phase: pod.Status.Phase, PodIP: pod.Status.PodIP,
			ContainerStatuses:     slimStatuses(pod.Status.ContainerStatuses),
			InitContainerStatuses: slimStatuses(pod.Status.InitContainerStatuses),
		},
	}
	for _, key := range []string{annotationName, annotationPorts, annotationLabels, freezer.Annotation} {
		if v, ok := pod.Annotations[key]; ok {
			if slim.Annotations == nil {
				slim.Annotations = map[string]string{}
			}
			slim.Annotations[key] = v
		}
	}
	freezes := slim.Annotations[freezer.Annotation] != ""
	for i := range pod.Status.Conditions {
		switch c := &pod.Status.Conditions[i]; c.Type {
		case corev1.PodReady:
			slim.Status.Conditions = append(slim.Status.Conditions, corev1.PodCondition{Type: c.Type, Status: c.Status})
		case freezer.Condition:
			freezes = true
			slim.Status.Conditions = append(slim.Status.Conditions, corev1.PodCondition{Type: c.Type, Message: c.Message})
		}
	}
	if freezes { // which of its containers stand still, their ids tell
		for i := range slim.Status.ContainerStatuses {
			slim.Status.ContainerStatuses[i].ContainerID = pod.Status.ContainerStatuses[i].ContainerID
		}
	}
	return slim, nil
}

func slimContainers(containers []corev1.Container) []corev1.Container {
	if len(containers) == 0 {
		return nil
	}
	slim := make([]corev1.Container, len(containers))
	for i := range containers {
		slim[i] = corev1.Container{Name: containers[i].Name, Ports: containers[i].Ports}
	}
	return slim
}

func slimStatuses(statuses []corev1.ContainerStatus) []corev1.ContainerStatus {
	if len(statuses) == 0 {
		return nil
	}
	slim := make([]corev1.ContainerStatus, len(statuses))
	for i := range statuses {
		slim[i] = corev1.ContainerStatus{Name: statuses[i].Name}
		if r := statuses[i].State.Running; r != nil {
			slim[i].State.Running = &corev1.ContainerStateRunning{}
		}
	}
	return slim
}

// slimSlice keeps of an EndpointSlice what makes endpoints.
func slimSlice(obj any) (any, error) {
	slice, ok := obj.(*discoveryv1.EndpointSlice)
	if !ok {
		return obj, nil
	}
	slim := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: slice.Namespace, Name: slice.Name, UID: slice.UID, ResourceVersion: slice.ResourceVersion,
			Labels: map[string]string{discoveryv1.LabelServiceName: slice.Labels[discoveryv1.LabelServiceName]},
		},
		AddressType: slice.AddressType,
		Ports:       slice.Ports,
		Endpoints:   make([]discoveryv1.Endpoint, len(slice.Endpoints)),
	}
	for i := range slice.Endpoints {
		slim.Endpoints[i] = discoveryv1.Endpoint{
			Addresses:  slice.Endpoints[i].Addresses,
			Conditions: slice.Endpoints[i].Conditions,
			TargetRef:  slimTarget(slice.Endpoints[i].TargetRef),
		}
	}
	return slim, nil
}

// slimTarget keeps which Pod an endpoint is of.
func slimTarget(target *corev1.ObjectReference) *corev1.ObjectReference {
	if target == nil || target.Kind != "Pod" {
		return nil
	}
	return &corev1.ObjectReference{Kind: target.Kind, Namespace: target.Namespace, Name: target.Name}
}

// slimService keeps of a Service what makes an entry of the catalogue.
func slimService(obj any) (any, error) {
	svc, ok := obj.(*corev1.Service)
	if !ok {
		return obj, nil
	}
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: svc.Namespace, Name: svc.Name, UID: svc.UID, ResourceVersion: svc.ResourceVersion,
			Labels: svc.Labels, DeletionTimestamp: svc.DeletionTimestamp,
		},
		Spec: corev1.ServiceSpec{Type: svc.Spec.Type, Ports: svc.Spec.Ports, IPFamilies: svc.Spec.IPFamilies},
	}, nil
}

// slimExport keeps of a ServiceExport that it is there.
func slimExport(obj any) (any, error) {
	export, ok := obj.(*metav1.PartialObjectMetadata)
	if !ok {
		return obj, nil
	}
	return &metav1.PartialObjectMetadata{
		TypeMeta: export.TypeMeta,
		ObjectMeta: metav1.ObjectMeta{
			Namespace: export.Namespace, Name: export.Name, UID: export.UID, ResourceVersion: export.ResourceVersion,
			Generation: export.Generation, DeletionTimestamp: export.DeletionTimestamp,
		},
	}, nil
}
