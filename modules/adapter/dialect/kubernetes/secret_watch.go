package kubernetes

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
)

var _ dialect.SecretWatcher = (*Cluster)(nil)

// WatchSecret follows one Secret; rights to get, list and watch that one are enough.
func (c *Cluster) WatchSecret(ctx context.Context, namespace, name string, changed func(data map[string][]byte)) error {
	selector := fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
	informer := coreinformers.NewFilteredSecretInformer(c.client, namespace, 0, cache.Indexers{},
		func(options *metav1.ListOptions) { options.FieldSelector = selector })
	trouble := &complaint{log: c.log, what: "secret " + namespace + "/" + name}
	follow(informer, wholeSecret, trouble)

	wake := make(chan struct{}, 1)
	mark := func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	registration, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { mark() }, UpdateFunc: func(any, any) { mark() }, DeleteFunc: func(any) { mark() },
	})
	if err != nil {
		return fmt.Errorf("kubernetes secret %s/%s: %w", namespace, name, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); informer.RunWithContext(ctx) }()
	defer func() { cancel(); <-done }()
	if !cache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
		return nil
	}
	var last map[string][]byte
	for first := true; ; first = false {
		var data map[string][]byte
		if obj, there, err := informer.GetStore().GetByKey(namespace + "/" + name); err == nil && there {
			if secret, ok := obj.(*corev1.Secret); ok {
				data = secret.Data
			}
		}
		if first || (data == nil) != (last == nil) || !maps.EqualFunc(data, last, slices.Equal) {
			last = data
			changed(maps.Clone(data))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		}
	}
}

// wholeSecret keeps of a Secret what it is for, and none of what tools wrote beside it.
func wholeSecret(obj any) (any, error) {
	secret, ok := obj.(*corev1.Secret)
	if !ok {
		return obj, nil
	}
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: secret.Namespace, Name: secret.Name, UID: secret.UID, ResourceVersion: secret.ResourceVersion},
		Data:       secret.Data,
	}, nil
}
