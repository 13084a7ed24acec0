// Package kubernetes is the home of state in a Kubernetes API: StateRecords for what everyone with rights in the
// namespace may read, Secrets for the rest, and Leases. All are in one namespace and are named
// <gateway>.<kind>.<name>, so that gateways share a namespace without meeting.
package kubernetes

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/state"
)

// What the home needs in the cluster: the definition of StateRecord, and a Role for its namespace.
var (
	//go:embed crd.yaml
	CRD string
	//go:embed role.yaml
	Role string
)

// Config is what a Home needs.
type Config struct {
	Kubeconfig string // a file; "" is the pod's own service account
	Context    string // a context of the file; "" is its current one
	Namespace  string // "" is the pod's own, or the context's
	Gateway    string // the gateway's cluster
	Holder     string // names this replica in leases
	// Lifetime of leases; 0 is state.Lifetime. Kubernetes counts in seconds.
	Lifetime time.Duration
}

// Home is a namespace of a Kubernetes API.
type Home struct {
	config Config
	client dynamic.Interface
	leases coordinationv1.LeaseInterface
	alive  context.Context // ends with Close
	stop   context.CancelFunc
}

var _ state.Home = (*Home)(nil)

var (
	records = schema.GroupVersionResource{Group: "isthmus.io", Version: "v1alpha1", Resource: "staterecords"}
	secrets = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
)

const (
	gatewayLabel = "isthmus.io/gateway"
	kindLabel    = "isthmus.io/state"
	secretType   = "isthmus.io/state"

	// callDeadline bounds a call whose context allows more: a gateway must know soon that its home is away.
	callDeadline = 5 * time.Second
	watchPause   = time.Second
)

// Open connects; the API need not answer yet.
func Open(c Config) (*Home, error) {
	if c.Lifetime == 0 {
		c.Lifetime = state.Lifetime
	}
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		&clientcmd.ClientConfigLoadingRules{ExplicitPath: c.Kubeconfig}, &clientcmd.ConfigOverrides{CurrentContext: c.Context})
	config, err := loader.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("state in Kubernetes: %w", err)
	}
	if c.Namespace == "" {
		if c.Namespace, _, err = loader.Namespace(); err != nil {
			return nil, fmt.Errorf("state in Kubernetes: %w", err)
		}
	}
	config.UserAgent = "isthmus"
	config.QPS, config.Burst = 50, 100
	config.WarningHandlerWithContext = rest.NoWarnings{}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("state in Kubernetes: %w", err)
	}
	coordination, err := coordinationv1.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("state in Kubernetes: %w", err)
	}
	h := &Home{config: c, client: client, leases: coordination.Leases(c.Namespace)}
	h.alive, h.stop = context.WithCancel(context.Background())
	return h, nil
}

func (h *Home) String() string { return "Kubernetes" }

// Close ends the terms of the home's leases.
func (h *Home) Close() error {
	h.stop()
	return nil
}

func (h *Home) resource(kind state.Kind) dynamic.ResourceInterface {
	if kind.Secret {
		return h.client.Resource(secrets).Namespace(h.config.Namespace)
	}
	return h.client.Resource(records).Namespace(h.config.Namespace)
}

func (h *Home) prefix(kind state.Kind) string { return h.config.Gateway + "." + kind.Name + "." }

func (h *Home) name(key state.Key) string { return h.prefix(key.Kind) + key.Name }

// Place is the object.
func (h *Home) Place(key state.Key) string {
	kind := "StateRecord"
	if key.Kind.Secret {
		kind = "Secret"
	}
	return kind + " " + h.config.Namespace + "/" + h.name(key)
}

func (h *Home) selector(kind state.Kind) string {
	return gatewayLabel + "=" + h.config.Gateway + "," + kindLabel + "=" + kind.Name
}

func (h *Home) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, callDeadline)
}

// object writes a record as Kubernetes has it.
func (h *Home) object(r state.Record) *unstructured.Unstructured {
	content := map[string]any{
		"metadata": map[string]any{
			"name": h.name(r.Key), "namespace": h.config.Namespace,
			"labels": map[string]any{gatewayLabel: h.config.Gateway, kindLabel: r.Key.Kind.Name},
		},
	}
	encoded := base64.StdEncoding.EncodeToString(r.Value)
	switch {
	case r.Key.Kind.Secret:
		content["apiVersion"], content["kind"], content["type"] = "v1", "Secret", secretType
		content["data"] = map[string]any{"value": encoded}
	default:
		content["apiVersion"], content["kind"] = "isthmus.io/v1alpha1", "StateRecord"
		content["spec"] = map[string]any{"data": encoded}
		if utf8.Valid(r.Value) {
			content["spec"] = map[string]any{"text": string(r.Value)} // for who looks at it
		}
	}
	u := &unstructured.Unstructured{Object: content}
	u.SetResourceVersion(r.Revision)
	return u
}

// record reads an object that object wrote.
func record(key state.Key, u *unstructured.Unstructured) (state.Record, error) {
	r := state.Record{Key: key, Revision: u.GetResourceVersion()}
	fields := []string{"spec", "data"}
	if key.Kind.Secret {
		fields = []string{"data", "value"}
	} else if text, ok, _ := unstructured.NestedString(u.Object, "spec", "text"); ok {
		r.Value = []byte(text)
		return r, nil
	}
	encoded, _, err := unstructured.NestedString(u.Object, fields...)
	if err == nil {
		r.Value, err = base64.StdEncoding.DecodeString(encoded)
	}
	if err != nil {
		return state.Record{}, fmt.Errorf("state in Kubernetes: %s: %w", u.GetName(), err)
	}
	return r, nil
}

// Get reads an object.
func (h *Home) Get(ctx context.Context, key state.Key) (state.Record, error) {
	if err := key.Check(); err != nil {
		return state.Record{}, err
	}
	ctx, cancel := h.limit(ctx)
	defer cancel()
	u, err := h.resource(key.Kind).Get(ctx, h.name(key), metav1.GetOptions{})
	if missing(err) {
		return state.Record{}, fmt.Errorf("%s: %w", key, state.ErrNotFound)
	}
	if err != nil {
		return state.Record{}, h.failed(err)
	}
	return record(key, u)
}

// List reads the objects of a kind, in one answer.
func (h *Home) List(ctx context.Context, kind state.Kind) ([]state.Record, error) {
	ctx, cancel := h.limit(ctx)
	defer cancel()
	list, err := h.resource(kind).List(ctx, metav1.ListOptions{LabelSelector: h.selector(kind)})
	if err != nil {
		return nil, h.failed(err)
	}
	var all []state.Record
	var broken []error
	for i := range list.Items {
		name, ours := strings.CutPrefix(list.Items[i].GetName(), h.prefix(kind))
		key := kind.Key(name)
		if !ours || key.Check() != nil { // somebody else's with our labels
			continue
		}
		r, err := record(key, &list.Items[i])
		if err != nil {
			broken = append(broken, err)
			continue
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b state.Record) int { return cmp.Compare(a.Key.Name, b.Key.Name) })
	return all, errors.Join(broken...)
}

// Put creates or updates an object.
func (h *Home) Put(ctx context.Context, r state.Record) (string, error) {
	if err := r.Check(); err != nil {
		return "", err
	}
	ctx, cancel := h.limit(ctx)
	defer cancel()
	var u *unstructured.Unstructured
	var err error
	if r.Revision == "" {
		u, err = h.resource(r.Key.Kind).Create(ctx, h.object(r), metav1.CreateOptions{FieldManager: "isthmus"})
	} else {
		u, err = h.resource(r.Key.Kind).Update(ctx, h.object(r), metav1.UpdateOptions{FieldManager: "isthmus"})
	}
	if conflicting(err) || (r.Revision != "" && missing(err)) {
		return "", fmt.Errorf("%s: %w", r.Key, state.ErrConflict)
	}
	if err != nil {
		return "", h.failed(err)
	}
	return u.GetResourceVersion(), nil
}

// Delete removes an object.
func (h *Home) Delete(ctx context.Context, key state.Key, revision string) error {
	if err := key.Check(); err != nil {
		return err
	}
	ctx, cancel := h.limit(ctx)
	defer cancel()
	var options metav1.DeleteOptions
	if revision != "" {
		options.Preconditions = &metav1.Preconditions{ResourceVersion: &revision}
	}
	err := h.resource(key.Kind).Delete(ctx, h.name(key), options)
	switch {
	case err == nil, missing(err) && revision == "":
		return nil
	case conflicting(err), missing(err):
		return fmt.Errorf("%s: %w", key, state.ErrConflict)
	}
	return h.failed(err)
}

// Watch follows the objects of a kind. A watch that ended may have missed something, so its successor begins with a
// call.
func (h *Home) Watch(ctx context.Context, kind state.Kind, changed func()) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(h.alive, cancel)()
	for ctx.Err() == nil {
		h.follow(ctx, kind, changed)
		select {
		case <-ctx.Done():
		case <-time.After(watchPause):
		}
	}
}

// follow watches until the API ends it, which it does every few minutes.
func (h *Home) follow(ctx context.Context, kind state.Kind, changed func()) {
	options := metav1.ListOptions{LabelSelector: h.selector(kind), Limit: 1}
	ask, cancel := h.limit(ctx)
	list, err := h.resource(kind).List(ask, options)
	cancel()
	if err != nil {
		return
	}
	options.Limit, options.ResourceVersion = 0, list.GetResourceVersion()
	watcher, err := h.resource(kind).Watch(ctx, options)
	if err != nil {
		return
	}
	defer watcher.Stop()
	changed()
	for event := range watcher.ResultChan() {
		if event.Type == watch.Error {
			return
		}
		changed()
	}
}

// missing tells that there is no such object, other than that there are no such objects at all.
func missing(err error) bool {
	return apierrors.IsNotFound(err) && !noResource(err) && !noNamespace(err)
}

func noResource(err error) bool {
	return apierrors.IsNotFound(err) && apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}

func noNamespace(err error) bool {
	var status apierrors.APIStatus
	if !apierrors.IsNotFound(err) || !errors.As(err, &status) {
		return false
	}
	details := status.Status().Details
	return details != nil && details.Kind == "namespaces"
}

func conflicting(err error) bool { return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) }

// failed says what an error of the API means.
func (h *Home) failed(err error) error {
	switch {
	case noResource(err):
		return fault.Wrap(fault.Unavailable, err, "Kubernetes knows no StateRecord (isthmus state manifest | kubectl apply -f -)")
	case noNamespace(err):
		return fault.Wrap(fault.Unavailable, err, "Kubernetes has no namespace %s for the gateway's state", h.config.Namespace)
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return fault.Wrap(fault.Denied, err, "Kubernetes does not let the gateway use its state")
	case apierrors.IsRequestEntityTooLargeError(err):
		return fault.Wrap(fault.TooLarge, err, "Kubernetes' limit for an object is too low for the gateway's state")
	}
	return state.Unavailable(h, err)
}
