// Package agent is the agent of a node of Kubernetes: it follows the node's Pods, freezes and thaws their containers as
// gateways wish, and answers in the Pods' status. It listens nowhere and remembers nothing: wishes are in annotations,
// answers in the status, and what it froze is marked in the runtime.
package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/isthmus-mesh/isthmus/modules/freezer"
)

// Runtime is the runtime of the node.
type Runtime interface {
	freezer.Runtime
	// Marked lists the containers that carry a mark.
	Marked(ctx context.Context) ([]freezer.Marked, error)
	// Follow tells of each container that was paused or resumed, by whomever, until the stream breaks.
	Follow(ctx context.Context, changed func(id string)) error
}

// Config is what an Agent needs.
type Config struct {
	Client         kubernetes.Interface
	Runtime        Runtime
	Node           string   // the node's name in Kubernetes
	Namespaces     []string // of the Pods that may be frozen
	LeaseNamespace string
	Log            *slog.Logger
}

const (
	workers = 4 // a container that is slow to freeze keeps no other one waiting
	// retryFirst and retryMost bound how soon what failed is tried again.
	retryFirst = 100 * time.Millisecond
	retryMost  = 10 * time.Second
	// resync is how often everything is looked at although nothing is known to have changed.
	resync = 5 * time.Minute
	// releaseTimeout bounds saying goodbye.
	releaseTimeout = 3 * time.Second
)

// Agent freezes containers on one node.
type Agent struct {
	Config
	holder string
	queue  workqueue.TypedRateLimitingInterface[cache.ObjectName]
	pods   map[string]cache.SharedIndexInformer // by namespace

	mu    sync.Mutex
	holds map[string]cache.ObjectName // containers that carry a mark, and their Pods
}

// New makes an agent.
func New(config Config) (*Agent, error) {
	if config.Node == "" || len(config.Namespaces) == 0 || config.LeaseNamespace == "" {
		return nil, fmt.Errorf("an agent needs its node, the namespaces of Pods that may be frozen, and one for its lease")
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	a := &Agent{Config: config, holder: fmt.Sprintf("%s/%d", host, os.Getpid()), pods: map[string]cache.SharedIndexInformer{},
		holds: map[string]cache.ObjectName{},
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[cache.ObjectName](retryFirst, retryMost))}
	for _, namespace := range config.Namespaces {
		factory := informers.NewSharedInformerFactoryWithOptions(config.Client, resync, informers.WithNamespace(namespace),
			informers.WithTweakListOptions(func(options *metav1.ListOptions) {
				options.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", config.Node).String()
			}))
		informer := factory.Core().V1().Pods().Informer()
		// Both fail only on an informer that runs already.
		_ = informer.SetTransform(slim)
		_ = informer.SetWatchErrorHandlerWithContext(func(ctx context.Context, _ *cache.Reflector, err error) {
			if ctx.Err() == nil {
				a.Log.Warn("the node's Pods cannot be followed; what is frozen stays so", "namespace", namespace, "err", err)
			}
		})
		if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: a.see, UpdateFunc: func(_, pod any) { a.see(pod) }, DeleteFunc: a.see,
		}); err != nil {
			return nil, fmt.Errorf("follow Pods: %w", err)
		}
		a.pods[namespace] = informer
	}
	return a, nil
}

// Run acts until ctx ends. What is frozen then stays frozen, until an agent runs here again.
func (a *Agent) Run(ctx context.Context) error {
	var tasks sync.WaitGroup
	defer tasks.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var synced []cache.InformerSynced
	for _, informer := range a.pods {
		tasks.Go(func() { informer.RunWithContext(ctx) })
		synced = append(synced, informer.HasSynced)
	}
	a.Log.Info("waiting for the node's Pods")
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		return nil
	}
	if err := a.recall(ctx); err != nil {
		return err
	}
	tasks.Go(func() { a.follow(ctx) })
	for range workers {
		tasks.Go(func() { a.work(ctx) })
	}
	tasks.Go(func() { <-ctx.Done(); a.queue.ShutDown() })
	a.Log.Info("ready", "namespaces", a.Namespaces)
	a.announce(ctx)
	return nil
}

// recall finds what an agent before this one marked, whatever became of its Pods.
func (a *Agent) recall(ctx context.Context) error {
	for {
		marked, err := a.Runtime.Marked(ctx)
		if err == nil {
			a.mu.Lock()
			for _, m := range marked {
				a.holds[m.ID] = cache.NewObjectName(m.Namespace, m.Name)
			}
			a.mu.Unlock()
			for _, m := range marked {
				a.queue.Add(cache.NewObjectName(m.Namespace, m.Name))
			}
			if len(marked) > 0 {
				a.Log.Info("containers carry marks of an agent before", "containers", len(marked))
			}
			return nil
		}
		a.Log.Warn("the node's runtime does not answer yet", "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// follow looks anew at what somebody paused or resumed.
func (a *Agent) follow(ctx context.Context) {
	for ctx.Err() == nil {
		err := a.Runtime.Follow(ctx, func(id string) {
			a.mu.Lock()
			name, held := a.holds[id]
			a.mu.Unlock()
			if held {
				a.queue.Add(name)
			}
		})
		if ctx.Err() != nil {
			return
		}
		a.Log.Warn("the runtime's events cannot be followed", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
		a.mu.Lock()
		for _, name := range a.holds {
			a.queue.Add(name)
		}
		a.mu.Unlock()
	}
}

// see queues a Pod that has, or had, to do with freezing.
func (a *Agent) see(obj any) {
	if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	name := cache.MetaObjectToName(pod)
	if pod.Annotations[freezer.Annotation] != "" || condition(pod) != nil || a.holding(name) {
		a.queue.Add(name)
	}
}

// holding tells whether a container of a Pod carries a mark.
func (a *Agent) holding(name cache.ObjectName) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, pod := range a.holds {
		if pod == name {
			return true
		}
	}
	return false
}

func (a *Agent) work(ctx context.Context) {
	for {
		name, over := a.queue.Get()
		if over {
			return
		}
		if err := a.reconcile(ctx, name); err != nil && ctx.Err() == nil {
			a.Log.Warn("a Pod is tried again", "pod", name.String(), "err", err)
			a.queue.AddRateLimited(name)
		} else {
			a.queue.Forget(name)
		}
		a.queue.Done(name)
	}
}
