package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	engine "github.com/moby/moby/client"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/e2e/demo"
	"github.com/isthmus-mesh/isthmus/e2e/relay"
	"github.com/isthmus-mesh/isthmus/modules/adapter"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/docker"
	emulation "github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes"
)

// kubernetesCaller does on a Docker Swarm what clients of the Kubernetes API ask for, in a namespace.
type kubernetesCaller struct {
	kubernetes.Interface
	namespace string
}

// dockerSite is west's engine.
type dockerSite struct {
	socket string
	client *engine.Client
}

func (d *dockerSite) space(*testing.T, string) {} // it comes with what is made in it

func (d *dockerSite) open(t *testing.T, namespace string) (*kubernetesCaller, *relay.Lifeline) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "d.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", d.socket)
	}}
	line := relay.NewLifeline(listener, &url.URL{Scheme: "http", Host: "docker"}, transport)
	cluster, err := docker.Dialect{}.Connect(t.Context(), dialect.Config{Cluster: "west", Endpoint: "unix://" + socket})
	if err != nil {
		t.Fatal(err)
	}
	api, err := emulation.Dialect{}.Emulate(dialect.Emulation{Cluster: "west", Over: adapter.NewExecutor(cluster), Socket: filepath.Join(t.TempDir(), "e.sock"),
		Seal: []byte("a key of the test")})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(api)
	caller, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL, QPS: -1, WarningHandler: rest.NoWarnings{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		for _, c := range []interface{ Close() error }{api, cluster, line} {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
		transport.CloseIdleConnections()
	})
	return &kubernetesCaller{Interface: caller, namespace: namespace}, line
}

func (d *dockerSite) settle(_ context.Context, t *testing.T, g *kubernetesCaller) error {
	t.Helper()
	d.open(t, g.namespace) // which goes on with what it finds
	return nil
}

func (d *dockerSite) done(err error) bool { return apierrors.IsAlreadyExists(err) }

// state is what the engine has of a namespace.
func (d *dockerSite) state(t *testing.T, namespace string) string {
	t.Helper()
	ctx := t.Context()
	var lines []string
	add := func(kind, name string, labels map[string]string, spec any) {
		if !strings.HasPrefix(name, namespace+"_") && labels["com.docker.stack.namespace"] != namespace && labels["com.docker.compose.project"] != namespace && name != namespace {
			return
		}
		delete(labels, "isthmus.io/origin") // the API's document, which says when it was written; the API's own tests read it
		raw, err := json.Marshal(spec)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, passing.ReplaceAllString(fmt.Sprintf("%s %s %s", kind, name, raw), "~"))
	}
	services, err := d.client.ServiceList(ctx, engine.ServiceListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range services.Items {
		s.Spec.TaskTemplate.ForceUpdate = 0 // how often it was started anew
		add("service", s.Spec.Name, s.Spec.Labels, s.Spec)
	}
	configs, err := d.client.ConfigList(ctx, engine.ConfigListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range configs.Items {
		add("config", c.Spec.Name, c.Spec.Labels, c.Spec)
	}
	secrets, err := d.client.SecretList(ctx, engine.SecretListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range secrets.Items {
		add("secret", s.Spec.Name, s.Spec.Labels, s.Spec)
	}
	networks, err := d.client.NetworkList(ctx, engine.NetworkListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range networks.Items {
		add("network", n.Name, n.Labels, n.Driver)
	}
	volumes, err := d.client.VolumeList(ctx, engine.VolumeListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range volumes.Items {
		add("volume", v.Name, v.Labels, v.Driver)
	}
	containers, err := d.client.ContainerList(ctx, engine.ContainerListOptions{All: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range containers.Items {
		if c.Labels["com.docker.swarm.service.id"] == "" {
			add("container", strings.TrimPrefix(c.Names[0], "/"), c.Labels, []any{c.State, c.Image, c.Labels})
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

// TestKilledBeforeDocker kills a gateway of a Swarm.
func TestKilledBeforeDocker(t *testing.T) {
	scripting(t)
	host := running.Bed.Docker("west").Host()
	client, err := engine.New(engine.WithHost(host))
	if err != nil {
		t.Fatal(err)
	}
	in, table := &dockerSite{socket: strings.TrimPrefix(host, "unix://"), client: client}, &outcomes{}
	t.Cleanup(func() { t.Logf("\n%s", table) })

	type call = func(context.Context, *kubernetesCaller) error
	create, no := metav1.CreateOptions{}, metav1.DeleteOptions{}
	ignored := func(err error) error {
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	space := func(ctx context.Context, g *kubernetesCaller) error {
		_, err := g.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: g.namespace}}, create)
		return err
	}
	config := func(value string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "page"}, Data: map[string]string{"greeting": value}}
	}
	configMap := func(ctx context.Context, g *kubernetesCaller) error {
		_, err := g.CoreV1().ConfigMaps(g.namespace).Create(ctx, config("hello"), create)
		return err
	}
	secret := func(ctx context.Context, g *kubernetesCaller) error {
		_, err := g.CoreV1().Secrets(g.namespace).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "key"}, Data: map[string][]byte{"password": []byte("s3cret")}}, create)
		return err
	}
	grace := int64(1)
	spec := func(env string) corev1.PodSpec {
		return corev1.PodSpec{TerminationGracePeriodSeconds: &grace, Containers: []corev1.Container{{Name: "web", Image: demo.Image, Command: []string{"sleep", "600"},
			Env: []corev1.EnvVar{{Name: "A", Value: env}}}}}
	}
	pod := func(ctx context.Context, g *kubernetesCaller) error {
		_, err := g.CoreV1().Pods(g.namespace).Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "alone"}, Spec: spec("1")}, create)
		return err
	}
	deployment := func(env string) *appsv1.Deployment {
		labels, template := map[string]string{"app": "web"}, spec(env)
		template.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "page", MountPath: "/page"}, {Name: "key", MountPath: "/key"}}
		template.Volumes = []corev1.Volume{
			{Name: "page", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "page"}}}},
			{Name: "key", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "key"}}}}
		return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: template}}}
	}
	deploy := func(ctx context.Context, g *kubernetesCaller) error {
		_, err := g.AppsV1().Deployments(g.namespace).Create(ctx, deployment("1"), create)
		return err
	}
	headless := func(ctx context.Context, g *kubernetesCaller) error {
		_, err := g.CoreV1().Services(g.namespace).Create(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.ServiceSpec{
			ClusterIP: corev1.ClusterIPNone, Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80}}}}, create)
		return err
	}
	away := func(ctx context.Context, g *kubernetesCaller) error {
		if err := ignored(g.CoreV1().Namespaces().Delete(ctx, g.namespace, no)); err != nil {
			return err
		}
		for ctx.Err() == nil {
			if _, err := g.CoreV1().Namespaces().Get(ctx, g.namespace, metav1.GetOptions{}); apierrors.IsNotFound(err) {
				return nil
			}
			time.Sleep(100 * time.Millisecond)
		}
		return ctx.Err()
	}
	clean := []call{away}
	for _, d := range []deed[*kubernetesCaller]{
		{"Namespace create", nil, space, clean},
		{"ConfigMap create", []call{space}, configMap, clean},
		{"ConfigMap update", []call{space, configMap}, func(ctx context.Context, g *kubernetesCaller) error {
			_, err := g.CoreV1().ConfigMaps(g.namespace).Update(ctx, config("good day"), metav1.UpdateOptions{})
			return err
		}, clean},
		{"ConfigMap delete", []call{space, configMap}, func(ctx context.Context, g *kubernetesCaller) error {
			return ignored(g.CoreV1().ConfigMaps(g.namespace).Delete(ctx, "page", no))
		}, clean},
		{"awaited ConfigMap create", []call{space, secret, deploy}, configMap, clean},
		{"Secret create", []call{space}, secret, clean},
		{"Pod create", []call{space}, pod, clean},
		{"Pod delete", []call{space, pod}, func(ctx context.Context, g *kubernetesCaller) error {
			return ignored(g.CoreV1().Pods(g.namespace).Delete(ctx, "alone", no))
		}, clean},
		{"Deployment create", []call{space, configMap, secret}, deploy, clean},
		{"Deployment update", []call{space, configMap, secret, deploy}, func(ctx context.Context, g *kubernetesCaller) error {
			_, err := g.AppsV1().Deployments(g.namespace).Update(ctx, deployment("2"), metav1.UpdateOptions{})
			return err
		}, clean},
		{"Deployment delete", []call{space, configMap, secret, deploy}, func(ctx context.Context, g *kubernetesCaller) error {
			return ignored(g.AppsV1().Deployments(g.namespace).Delete(ctx, "web", no))
		}, clean},
		{"Service create", []call{space, configMap, secret, deploy}, headless, clean},
		{"Service delete", []call{space, configMap, secret, deploy, headless}, func(ctx context.Context, g *kubernetesCaller) error {
			return ignored(g.CoreV1().Services(g.namespace).Delete(ctx, "web", no))
		}, clean},
		{"Namespace delete", []call{space, configMap, secret, deploy, pod}, away, clean},
	} {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			defer turn("killed")()
			kill(t, in, d, "killed-"+strings.ToLower(strings.NewReplacer(" ", "-", ",", "").Replace(d.name)), table)
		})
	}
}
