package apiserver

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// TestReservedLabels refuses what would put an object where policy has not looked, and lets it stay where it is.
func TestReservedLabels(t *testing.T) {
	client, _ := served(t)
	deployments := client.AppsV1().Deployments("default")
	for _, label := range []string{"com.docker.stack.namespace", "com.docker.compose.project", "com.docker.swarm.service.id", "isthmus.io/origin",
		"isthmus.io/record", "isthmus.io/waiting", "isthmus.io/adopted", "isthmus.io/claim"} {
		d := deployment("web", 1)
		d.Labels = map[string]string{label: "shop"}
		if _, err := deployments.Create(t.Context(), d, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
			t.Errorf("label %s: %v", label, err)
		}
		d = deployment("web", 1)
		d.Spec.Template.Labels[label] = "shop"
		if _, err := deployments.Create(t.Context(), d, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
			t.Errorf("label %s of the template: %v", label, err)
		}
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web", Labels: map[string]string{label: "shop"}}, Spec: deployment("web", 1).Spec.Template.Spec}
		if _, err := client.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
			t.Errorf("label %s of a Pod: %v", label, err)
		}
	}
	d := deployment("web", 1)
	d.Annotations = map[string]string{"isthmus.io/labels": `{"team":"a"}`}
	if _, err := deployments.Create(t.Context(), d, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("annotation: %v", err)
	}
}

// TestVariablesWithoutEnd refuses variables that stand for more than any program could be given.
func TestVariablesWithoutEnd(t *testing.T) {
	client, _ := served(t)
	d := deployment("web", 1)
	env := []corev1.EnvVar{{Name: "A0", Value: strings.Repeat("x", 1000)}}
	for _, name := range []string{"A1", "A2", "A3", "A4", "A5", "A6", "A7", "A8"} {
		env = append(env, corev1.EnvVar{Name: name, Value: strings.Repeat("$("+env[len(env)-1].Name+")", 100)})
	}
	for range 100 {
		env = append(env, corev1.EnvVar{Name: "B", Value: strings.Repeat("$(A1)", 1)})
	}
	d.Spec.Template.Spec.Containers[0].Env = env
	if _, err := client.AppsV1().Deployments("default").Create(t.Context(), d, metav1.CreateOptions{DryRun: []string{"All"}}); !apierrors.IsInvalid(err) {
		t.Errorf("%v", err)
	}
}

// TestForgedDocument reads labels that somebody else has written.
func TestForgedDocument(t *testing.T) {
	client, fake := served(t)
	for _, text := range []string{`{"object":{"spec":{"template":{"spec":{"containers":[{"name":"x"}]}}}}}`, `{"object":{}}`, `{`,
		`{"object":{"spec":{"selector":{},"template":{"spec":{"containers":[{"name":"x"}]}}}}}`} {
		fake.workloads = []neutral.Workload{{ID: "s", Name: "web", Namespace: "default", Mode: neutral.ModeReplicated, Labels: map[string]string{labelWaiting: "x"},
			Origin: &neutral.Origin{Dialect: neutral.Kubernetes, Spec: []byte(text)}}}
		if _, err := client.AppsV1().ReplicaSets("default").List(t.Context(), metav1.ListOptions{}); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestAskedToWatch reads the query as the Kubernetes dialect does, by which policy was asked.
func TestAskedToWatch(t *testing.T) {
	for query, verb := range map[string]string{"": "list", "watch=true": "watch", "watch=yes": "watch", "watch": "watch", "watch=FALSE": "list",
		"watch=0": "list", "watch=false&watch=true": "list"} {
		c, err := parse(&http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/api/v1/namespaces/shop/pods", RawQuery: query}, Header: http.Header{}})
		if err != nil || c.verb != verb {
			t.Errorf("%q: %v, %v", query, c, err)
		}
	}
	c, err := parse(&http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/api/v1/namespaces/shop/pods/web", RawQuery: "watch=true"}, Header: http.Header{}})
	if err != nil || c.verb != "get" {
		t.Errorf("of one object: %v, %v", c, err)
	}
}

// TestSlowNumber finds one however it is written.
func TestSlowNumber(t *testing.T) {
	c := &call{Request: &http.Request{Header: http.Header{}}}
	for body, slowly := range map[string]bool{`{"cpu":"1e-9999999"}`: true, `{"cpu":"1\u0065999999"}`: true, "cpu: 1e99999\n": true,
		`{"cpu":"100m","name":"e12345","digest":"sha256:1e12345abc"}`: false} {
		if got := slow(c, []byte(body)); got != slowly {
			t.Errorf("%s: %t", body, got)
		}
	}
}

// TestReattach has a workload answer to the name of a Service whose gateway was killed before it came to that.
func TestReattach(t *testing.T) {
	t.Parallel()
	s := stands(t)
	must(s.AppsV1().Deployments("default").Create(t.Context(), deployment("web", 1), metav1.CreateOptions{}))(t)
	o := service("shop")
	o.Spec.Selector = map[string]string{"app": "web"}
	must(s.CoreV1().Services("default").Create(t.Context(), o, metav1.CreateOptions{}))(t)
	answers := func() bool {
		s.fake.mu.Lock()
		defer s.fake.mu.Unlock()
		return slices.Contains(s.fake.workloads[0].Template.Networks[0].Aliases, "shop")
	}
	if !answers() {
		t.Fatal("it never answered")
	}
	s.fake.mu.Lock()
	version := s.fake.workloads[0].Version
	s.fake.mu.Unlock()
	again := func() {
		next := New(Config{Cluster: "west", Orchestrator: s.fake})
		defer next.Close()
		next.Resume()
		eventually(t, "it answers", answers)
	}
	again()
	s.fake.mu.Lock()
	if s.fake.workloads[0].Version != version {
		t.Error("what was abreast was written again")
	}
	s.fake.workloads[0].Template.Networks[0].Aliases = []string{"web"}
	s.fake.mu.Unlock()
	again()
}
