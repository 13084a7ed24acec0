package kubernetes_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/state"
	"github.com/isthmus-mesh/isthmus/modules/state/kubernetes"
	"github.com/isthmus-mesh/isthmus/modules/state/statetest"
)

const namespace = "isthmus"

// lifetime is what Kubernetes can count.
const lifetime = 2 * time.Second

func open(t *testing.T, kubeconfig, gateway, replica string) *kubernetes.Home {
	t.Helper()
	h, err := kubernetes.Open(kubernetes.Config{Kubeconfig: kubeconfig, Namespace: namespace, Gateway: gateway, Holder: replica, Lifetime: lifetime})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestHome starts one API server for all that needs one: it takes seconds.
func TestHome(t *testing.T) {
	t.Parallel()
	server, kubeconfig := statetest.Kubernetes(t, map[string]string{"gateway": "gateways", "stranger": "strangers"})
	admin, own := kubeconfig(""), kubeconfig("gateway")

	// A namespace, the definition and rights that are missing are told.
	early := open(t, admin, "early", "a")
	defer early.Close()
	expect := func(what string, err error, kind fault.Kind, message string) {
		t.Helper()
		if !fault.Is(err, kind) || !strings.Contains(fault.Of(err).Message, message) {
			t.Errorf("%s: %v, want %s %q", what, err, kind, message)
		}
	}
	_, err := early.Get(t.Context(), statetest.Plain.Key("x"))
	expect("no definition", err, fault.Unavailable, "isthmus state manifest")
	_, err = early.List(t.Context(), statetest.Plain)
	expect("no definition", err, fault.Unavailable, "isthmus state manifest")
	_, err = early.Put(t.Context(), state.Record{Key: statetest.Secret.Key("x")})
	expect("no namespace", err, fault.Unavailable, "no namespace isthmus")
	_, err = early.Lease("x").Acquire(t.Context())
	expect("no namespace", err, fault.Unavailable, "no namespace isthmus")

	install(t, admin)
	var gateways atomic.Int32
	t.Run("contract", func(t *testing.T) {
		statetest.Run(t, lifetime, func(t *testing.T) statetest.Open {
			gateway := fmt.Sprint("gateway-", gateways.Add(1))
			return func(replica string) state.Home { return open(t, own, gateway, replica) }
		})
	})
	t.Run("objects", func(t *testing.T) { objects(t, admin, kubeconfig("stranger")) })
	t.Run("removal", func(t *testing.T) { removal(t, admin) })
	t.Run("away", func(t *testing.T) { away(t, server, own) })
}

// install applies what `isthmus state manifest` prints, and binds the role to the gateway's group alone.
func install(t *testing.T, kubeconfig string) {
	t.Helper()
	client := connect(t, kubeconfig)
	for _, o := range []struct {
		resource  schema.GroupVersionResource
		namespace string
		text      string
	}{
		{schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}, "", "{apiVersion: v1, kind: Namespace, metadata: {name: isthmus}}"},
		{schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}, "", kubernetes.CRD},
		{schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "roles"}, namespace, kubernetes.Role},
		{schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "rolebindings"}, namespace, `
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: isthmus-state}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: isthmus-state}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: gateways}]`},
	} {
		var u unstructured.Unstructured
		data, err := yaml.YAMLToJSON([]byte(o.text))
		if err == nil {
			err = json.Unmarshal(data, &u.Object)
		}
		if err != nil {
			t.Fatal(err)
		}
		var resource dynamic.ResourceInterface = client.Resource(o.resource)
		if o.namespace != "" {
			resource = client.Resource(o.resource).Namespace(o.namespace)
		}
		if _, err := resource.Create(t.Context(), &u, metav1.CreateOptions{FieldValidation: "Strict"}); err != nil {
			t.Fatalf("%s: %v", o.resource.Resource, err)
		}
	}
	h := open(t, kubeconfig, "install", "a")
	defer h.Close()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		_, err := h.List(t.Context(), statetest.Plain)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func connect(t *testing.T, kubeconfig string) dynamic.Interface {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// objects looks at what is kept: secrets are Secrets, the rest is readable by who looks, and a user without the role
// reads nothing.
func objects(t *testing.T, admin, stranger string) {
	h := open(t, admin, "east", "a")
	defer h.Close()
	for _, key := range []state.Key{statetest.Plain.Key("x"), statetest.Secret.Key("x")} {
		if _, err := h.Put(t.Context(), state.Record{Key: key, Value: []byte("the value")}); err != nil {
			t.Fatal(err)
		}
	}
	client := connect(t, admin)
	record, err := client.Resource(schema.GroupVersionResource{Group: "isthmus.io", Version: "v1alpha1", Resource: "staterecords"}).
		Namespace(namespace).Get(t.Context(), "east.test-plain.x", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if text, _, _ := unstructured.NestedString(record.Object, "spec", "text"); text != "the value" {
		t.Errorf("%v", record.Object)
	}
	secret, err := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}).
		Namespace(namespace).Get(t.Context(), "east.test-secret.x", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if data, _, _ := unstructured.NestedString(secret.Object, "data", "value"); data != "dGhlIHZhbHVl" {
		t.Errorf("%v", secret.Object)
	}
	other := open(t, stranger, "east", "b")
	defer other.Close()
	for what, call := range map[string]func() error{
		"get":   func() error { _, err := other.Get(t.Context(), statetest.Secret.Key("x")); return err },
		"list":  func() error { _, err := other.List(t.Context(), statetest.Plain); return err },
		"lease": func() error { _, err := other.Lease("x").Acquire(t.Context()); return err },
	} {
		if err := call(); !fault.Is(err, fault.Denied) {
			t.Errorf("%s by a stranger: %v", what, err)
		}
	}
}

// removal takes away what one gateway has, its leases as well, and nothing of another.
func removal(t *testing.T, admin string) {
	one, other := open(t, admin, "one", "a"), open(t, admin, "one-more", "a")
	defer one.Close()
	defer other.Close()
	for _, h := range []*kubernetes.Home{one, other} {
		for _, key := range []state.Key{statetest.Plain.Key("x"), statetest.Plain.Key("y"), statetest.Secret.Key("x")} {
			if _, err := h.Put(t.Context(), state.Record{Key: key, Value: []byte("v")}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := h.Lease("x").Acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []int{4, 0} {
		if n, err := one.Remove(t.Context()); err != nil || n != want {
			t.Errorf("%d objects are removed, want %d: %v", n, want, err)
		}
	}
	for _, key := range []state.Key{statetest.Plain.Key("x"), statetest.Secret.Key("x")} {
		if _, err := one.Get(t.Context(), key); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("%s is there: %v", key, err)
		}
		if _, err := other.Get(t.Context(), key); err != nil {
			t.Errorf("%s of another gateway: %v", key, err)
		}
	}
}

// away kills the API server: that is told within the deadline, and the home works on when it is back.
func away(t *testing.T, server *statetest.Server, kubeconfig string) {
	h := open(t, kubeconfig, "away", "a")
	defer h.Close()
	key := statetest.Plain.Key("x")
	revision, err := h.Put(t.Context(), state.Record{Key: key, Value: []byte("1")})
	if err != nil {
		t.Fatal(err)
	}
	term, err := h.Lease("x").Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	watched, done := make(chan struct{}, 100), make(chan struct{})
	go func() {
		defer close(done)
		h.Watch(ctx, statetest.Plain, func() { watched <- struct{}{} })
	}()
	defer func() {
		stop()
		<-done
	}()
	<-watched
	server.Kill()
	for what, call := range map[string]func() error{
		"get":   func() error { _, err := h.Get(t.Context(), key); return err },
		"list":  func() error { _, err := h.List(t.Context(), statetest.Plain); return err },
		"lease": func() error { _, err := h.Lease("y").Acquire(t.Context()); return err },
	} {
		began := time.Now()
		err := call()
		if !fault.Is(err, fault.Unavailable) && !fault.Is(err, fault.Timeout) {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if took := time.Since(began); took > 7*time.Second {
			t.Errorf("%s took %s", what, took)
		}
		if message := fault.Of(err).Message; !strings.Contains(message, "state, in Kubernetes") || strings.Contains(message, "127.0.0.1") {
			t.Errorf("it says %q", message)
		}
	}
	select {
	case <-term.Lost():
	case <-time.After(lifetime):
		t.Error("the lease outlived its home's absence")
	}
	server.Start(t)
	for len(watched) > 0 {
		<-watched
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		after, err := h.Put(t.Context(), state.Record{Key: key, Value: []byte("2"), Revision: revision})
		if err == nil {
			revision = after
			select {
			case <-watched:
				return
			case <-time.After(time.Second):
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("it does not work on: %v", err)
		}
	}
}
