package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/isthmus-mesh/isthmus/e2e/demo"
	"github.com/isthmus-mesh/isthmus/e2e/relay"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// dockerCaller does in a Kubernetes namespace what docker's callers ask for.
type dockerCaller struct {
	cluster   dialect.Cluster
	namespace string
}

func (g *dockerCaller) do(ctx context.Context, op neutral.Operation) error {
	op.Verb, op.Object.Kind, op.Object.Namespace = op.Action.Verb(), op.Action.Kind(), g.namespace
	plan, err := g.cluster.Plan(op, func(neutral.Object) (dialect.Terms, error) { return dialect.Terms{}, nil })
	if err != nil {
		return err
	}
	if plan.Program == nil {
		return fmt.Errorf("%s is no program", op.Action)
	}
	_, err = plan.Program(ctx)
	return err
}

func step(op neutral.Operation) func(context.Context, *dockerCaller) error {
	return func(ctx context.Context, g *dockerCaller) error { return g.do(ctx, op) }
}

// gone is a removal of what may not be there.
func gone(op neutral.Operation) func(context.Context, *dockerCaller) error {
	return func(ctx context.Context, g *dockerCaller) error {
		if err := g.do(ctx, op); !fault.Is(err, fault.NotFound) {
			return err
		}
		return nil
	}
}

// kubernetesSite is east's Kubernetes.
type kubernetesSite struct {
	config *rest.Config
	client dynamic.Interface
}

func (k *kubernetesSite) space(t *testing.T, namespace string) {
	t.Helper()
	spaces := k.client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"})
	space := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": namespace}}}
	if _, err := spaces.Create(t.Context(), space, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := spaces.Delete(context.WithoutCancel(t.Context()), namespace, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
}

func (k *kubernetesSite) open(t *testing.T, namespace string) (*dockerCaller, *relay.Lifeline) {
	t.Helper()
	transport, err := rest.TransportFor(k.config)
	if err != nil {
		t.Fatal(err)
	}
	target, err := url.Parse(k.config.Host)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	line := relay.NewLifeline(listener, target, transport)
	kubeconfig := clientcmdapi.NewConfig()
	kubeconfig.Clusters["line"] = &clientcmdapi.Cluster{Server: "http://" + listener.Addr().String()}
	kubeconfig.Contexts["line"] = &clientcmdapi.Context{Cluster: "line"}
	kubeconfig.CurrentContext = "line"
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*kubeconfig, file); err != nil {
		t.Fatal(err)
	}
	cluster, err := kubernetes.Dialect{}.Connect(t.Context(), dialect.Config{Cluster: "east", Kubeconfig: file, Namespace: namespace, Seal: []byte("a key of the test")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Close(); err != nil {
			t.Error(err)
		}
		if err := line.Close(); err != nil {
			t.Error(err)
		}
	})
	return &dockerCaller{cluster: cluster, namespace: namespace}, line
}

// journaled are Secrets of a container that is being made anew.
var journaled = metav1.ListOptions{LabelSelector: "isthmus.io/journal"}

func (k *kubernetesSite) settle(ctx context.Context, _ *testing.T, g *dockerCaller) error {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		ended <- g.cluster.(interface {
			Reap(ctx context.Context, peers func() []string) error
		}).Reap(ctx, func() []string { return nil })
	}()
	defer func() {
		cancel()
		<-ended
	}()
	time.Sleep(time.Second) // it has gone its first round
	for {
		left, err := k.left(ctx, g.namespace)
		if err != nil || !left {
			return err
		}
		select {
		case err := <-ended:
			ended <- err
			return err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// left tells whether there is something that a gateway was killed in the middle of.
func (k *kubernetesSite) left(ctx context.Context, namespace string) (bool, error) {
	journals, err := k.client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}).Namespace(namespace).List(ctx, journaled)
	return err != nil || len(journals.Items) > 0, err
}

func (k *kubernetesSite) done(err error) bool {
	message := fault.Of(err).Message
	return fault.Is(err, fault.NotModified) || strings.Contains(message, "is not connected to network") ||
		fault.Is(err, fault.Conflict) && strings.Contains(message, "already") && !strings.Contains(message, "being started")
}

// kept are the kinds that an operation makes things of; what their controllers make follows from them.
var kept = []schema.GroupVersionResource{
	{Version: "v1", Resource: "pods"}, {Version: "v1", Resource: "services"}, {Version: "v1", Resource: "configmaps"}, {Version: "v1", Resource: "secrets"},
	{Version: "v1", Resource: "persistentvolumeclaims"}, {Group: "apps", Version: "v1", Resource: "deployments"},
	{Group: "networking.k8s.io", Version: "v1", Resource: "networkpolicies"}, {Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"},
}

// passing is what is of one object alone: times, and names that are made up.
var passing = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z?|[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{16,}|\b[0-9a-z]{25}\b|[A-Z2-7]{20,}|\b\d+\.\d+\.\d+\.\d+\b|kube-api-access-\w+`)

func (k *kubernetesSite) state(t *testing.T, namespace string) string {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		lines, moving, err := k.lines(t.Context(), namespace)
		if err != nil {
			t.Fatal(err)
		}
		if !moving {
			return lines
		}
		if time.Now().After(deadline) {
			t.Fatalf("it does not come to rest:\n%s", lines)
		}
	}
}

// lines are the objects of a namespace; moving tells whether one is on its way.
func (k *kubernetesSite) lines(ctx context.Context, namespace string) (text string, moving bool, err error) {
	var lines []string
	owners, owned := map[types.UID]bool{}, []types.UID{}
	tasks := map[types.UID]bool{} // whose names are written by and by
	for _, resource := range kept {
		list, err := k.client.Resource(resource).Namespace(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return "", false, err
		}
		for i := range list.Items {
			o := &list.Items[i]
			owners[o.GetUID()] = true
			if o.GetKind() == "Pod" && metav1.GetControllerOf(o) != nil {
				tasks[o.GetUID()] = true
			}
			if references := o.GetOwnerReferences(); o.GetKind() == "EndpointSlice" && len(references) == 1 && tasks[references[0].UID] {
				continue
			}
			for _, owner := range o.GetOwnerReferences() {
				if owner.Kind == "Pod" || owner.Kind == "Deployment" {
					owned = append(owned, owner.UID)
				}
			}
			if o.GetName() == "kube-root-ca.crt" || o.GetKind() == "Pod" && metav1.GetControllerOf(o) != nil || strings.HasPrefix(o.GetName(), "published-") {
				continue // the policy of a port is for all that publish it, and stays
			}
			if o.GetLabels()["endpointslice.kubernetes.io/managed-by"] == "endpointslice-controller.k8s.io" {
				continue
			}
			name := o.GetName()
			phase, _, _ := unstructured.NestedString(o.Object, "status", "phase")
			moving = moving || o.GetDeletionTimestamp() != nil || o.GetKind() == "Pod" && phase == string(corev1.PodPending) && !gated(o)
			for _, field := range [][]string{{"status"}, {"spec", "nodeName"}, {"spec", "clusterIP"}, {"spec", "clusterIPs"}, {"spec", "volumeName"}} {
				unstructured.RemoveNestedField(o.Object, field...)
			}
			annotations := o.GetAnnotations()
			delete(annotations, "isthmus.io/created") // of one that was made anew
			o.Object["metadata"] = map[string]any{"labels": o.GetLabels(), "annotations": annotations}
			raw, err := json.Marshal(o.Object)
			if err != nil {
				return "", false, err
			}
			lines = append(lines, passing.ReplaceAllString(fmt.Sprintf("%s %s %s %s", o.GetKind(), name, phase, raw), "~"))
		}
	}
	for _, owner := range owned { // what is orphaned is on its way
		moving = moving || !owners[owner]
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n", moving, nil
}

// gated tells whether a Pod waits for its caller.
func gated(o *unstructured.Unstructured) bool {
	gates, _, _ := unstructured.NestedSlice(o.Object, "spec", "schedulingGates")
	return len(gates) > 0
}

// TestKilledBeforeKubernetes kills a gateway of a Kubernetes.
func TestKilledBeforeKubernetes(t *testing.T) {
	scripting(t)
	config, err := clientcmd.BuildConfigFromFlags("", running.Bed.Kubernetes("east").HostKubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	in, table := &kubernetesSite{config: config, client: client}, &outcomes{}
	t.Cleanup(func() { t.Logf("\n%s", table) })

	second := 1
	network := neutral.Operation{Action: neutral.NetworkCreate, Network: &neutral.Network{Name: "front"}}
	volume := neutral.Operation{Action: neutral.VolumeCreate, Volume: &neutral.Volume{Name: "data"}}
	secret := neutral.Operation{Action: neutral.SecretCreate, File: &neutral.StoredFile{Name: "key", Data: []byte("s3cret")}}
	container := neutral.Operation{Action: neutral.ContainerCreate, Container: &neutral.Container{Name: "web", Image: demo.Image,
		Entrypoint: []string{"sleep", "600"}, StopTimeout: &second, Networks: []neutral.NetworkAttachment{{Name: "front", Aliases: []string{"www"}}},
		Mounts: []neutral.Mount{{Type: "volume", Source: "data", Target: "/data"}}, Ports: []neutral.Port{{Container: 80, Protocol: "tcp"}}}}
	workload := func(env string) *neutral.Workload {
		return &neutral.Workload{Name: "shop", Mode: neutral.ModeReplicated, Replicas: 1, Template: neutral.Container{Image: demo.Image,
			Entrypoint: []string{"sleep", "600"}, Env: []string{env}, StopTimeout: &second,
			Networks: []neutral.NetworkAttachment{{Name: "front", Aliases: []string{"www"}}},
			Files:    []neutral.MountedFile{{Kind: neutral.KindSecret, Name: "key", Target: "/run/secrets/key", Mode: 0o400}},
			Ports:    []neutral.Port{{Container: 80, Published: 8080, Publish: true, Protocol: "tcp"}}}}
	}
	service := neutral.Operation{Action: neutral.WorkloadCreate, Workload: workload("A=1")}
	at := func(action neutral.Action, ref string) neutral.Operation {
		return neutral.Operation{Action: action, Ref: ref}
	}
	stop := &neutral.StopOptions{Timeout: &second}
	stopped, restarted := at(neutral.ContainerStop, "web"), at(neutral.ContainerRestart, "web")
	stopped.Stop, restarted.Stop = stop, stop
	removed := at(neutral.ContainerRemove, "web")
	removed.Remove = &neutral.RemoveOptions{Force: true}
	joined, left := at(neutral.NetworkJoin, "back"), at(neutral.NetworkLeave, "back")
	joined.Member, left.Member = &neutral.NetworkMember{Name: "web", Aliases: []string{"w"}}, &neutral.NetworkMember{Name: "web"}
	back := neutral.Operation{Action: neutral.NetworkCreate, Network: &neutral.Network{Name: "back"}}

	steps := func(ops ...neutral.Operation) (all []func(context.Context, *dockerCaller) error) {
		for _, op := range ops {
			all = append(all, step(op))
		}
		return all
	}
	clean := []func(context.Context, *dockerCaller) error{gone(removed), gone(at(neutral.WorkloadRemove, "shop")), gone(at(neutral.NetworkRemove, "front")),
		gone(at(neutral.NetworkRemove, "back")), gone(at(neutral.VolumeRemove, "data")), gone(at(neutral.SecretRemove, "key"))}
	made := steps(network, volume, container)
	started := append(slices.Clip(made), step(at(neutral.ContainerStart, "web")))
	served := steps(network, secret, service)
	update := func(ctx context.Context, g *dockerCaller) error {
		return g.do(ctx, neutral.Operation{Action: neutral.WorkloadUpdate, Ref: "shop", Workload: workload("A=2")})
	}
	for _, d := range []deed[*dockerCaller]{
		{"network create", nil, step(network), clean},
		{"volume create", nil, step(volume), clean},
		{"secret create", nil, step(secret), clean},
		{"container create", steps(network, volume), step(container), clean},
		{"container start", made, step(at(neutral.ContainerStart, "web")), clean},
		{"container restart", started, step(restarted), clean},
		{"container stop", started, step(stopped), clean},
		{"container remove", started, gone(removed), clean},
		{"network connect", append(slices.Clip(started), step(back)), step(joined), clean},
		{"network disconnect", append(slices.Clip(started), step(back), step(joined)), step(left), clean},
		{"network remove", steps(network), gone(at(neutral.NetworkRemove, "front")), clean},
		{"service create", steps(network, secret), step(service), clean},
		{"service update", served, update, clean},
		{"service remove", served, gone(at(neutral.WorkloadRemove, "shop")), clean},
	} {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			defer turn("killed")()
			kill(t, in, d, "killed-"+strings.ReplaceAll(d.name, " ", "-"), table)
		})
	}
}
