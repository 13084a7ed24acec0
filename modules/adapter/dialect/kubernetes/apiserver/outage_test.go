package apiserver

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// TestOutage has the orchestrator away for a while: reads and writes say so, and a watch goes on after it.
func TestOutage(t *testing.T) {
	s := stands(t)
	ctx := t.Context()
	maps := s.CoreV1().ConfigMaps("default")
	w := must(maps.Watch(ctx, metav1.ListOptions{}))(t)
	defer w.Stop()
	breaks := func(err error) {
		s.fake.mu.Lock()
		defer s.fake.mu.Unlock()
		s.fake.broken = err
	}
	breaks(fault.New(fault.Unavailable, "the engine at /var/run/docker.sock is away"))
	if _, err := maps.List(ctx, metav1.ListOptions{}); !apierrors.IsServiceUnavailable(err) {
		t.Errorf("listed: %v", err)
	}
	if _, err := maps.Create(ctx, configMap("one", nil), metav1.CreateOptions{}); !apierrors.IsServiceUnavailable(err) {
		t.Errorf("made: %v", err)
	}
	if code, body := s.ask(t, "GET", "/readyz", "", ""); code != 503 || strings.Contains(body, "docker.sock") {
		t.Errorf("ready: %d %s", code, body)
	}
	if code, _ := s.ask(t, "GET", "/api", "", ""); code != 200 {
		t.Errorf("discovery: %d", code)
	}
	// What is away is not gone: nobody is told of a removal.
	breaks(nil)
	must(maps.Create(ctx, configMap("two", nil), metav1.CreateOptions{}))(t)
	if event := next(t, w); event.Type != watch.Added || event.Object.(*corev1.ConfigMap).Name != "two" {
		t.Errorf("watched: %v", event)
	}
}

// TestNamesTellNothing mounts the same short value under two keys of the gateway: docker's names of it have nothing in common.
func TestNamesTellNothing(t *testing.T) {
	names := map[string]bool{}
	for _, key := range []string{"one", "two"} {
		s := stands(t)
		s.api.key = []byte(key)
		ctx := t.Context()
		must(s.CoreV1().ConfigMaps("default").Create(ctx, configMap("files", map[string]string{"a": "1"}), metav1.CreateOptions{}))(t)
		must(s.CoreV1().Secrets("default").Create(ctx, secret("word"), metav1.CreateOptions{}))(t)
		must(s.AppsV1().Deployments("default").Create(ctx, mounting(deployment("web", 1), "files", "word"), metav1.CreateOptions{}))(t)
		s.fake.mu.Lock()
		for _, f := range s.fake.files[neutral.KindSecret] {
			if f.Labels[labelRecord] == recordFile {
				names[f.Name] = true
			}
		}
		s.fake.mu.Unlock()
	}
	if len(names) != 2 {
		t.Errorf("the names are %v", names)
	}
}
