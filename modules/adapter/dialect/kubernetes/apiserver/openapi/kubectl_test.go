package openapi_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/discovery"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/openapi"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/resource"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/table"
)

// kubectlServer serves discovery, OpenAPI and the table of one pod, and takes every change of a config map.
type kubectlServer struct {
	mu    sync.Mutex
	asked []string
}

func (s *kubectlServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked = append(s.asked, r.Method+" "+r.URL.RequestURI())
	s.mu.Unlock()
	for _, answer := range []func(string, http.Header) (dialect.Response, bool){discovery.Answer, openapi.Answer} {
		if a, ok := answer(r.URL.RequestURI(), r.Header); ok && r.Method == http.MethodGet {
			for name, values := range a.Header {
				w.Header()[name] = values
			}
			w.WriteHeader(a.Status)
			_, _ = w.Write(a.Body)
			return
		}
	}
	switch {
	case r.URL.Path == "/api/v1/namespaces/default/pods":
		pods, _ := resource.Find("", "v1", "pods")
		started := metav1.NewTime(time.Now().Add(-3 * time.Hour))
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default", CreationTimestamp: started},
			Spec:       corev1.PodSpec{NodeName: "one", Containers: []corev1.Container{{Name: "a"}}},
			Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{
				{Name: "a", Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: started}}},
			}},
		}
		made, _ := table.Of(pods, []runtime.Object{pod}, metav1.ListMeta{}, metav1.TableOptions{}, time.Now())
		reply(w, http.StatusOK, made)
	case strings.HasPrefix(r.URL.Path, "/api/v1/namespaces/default/configmaps"):
		if r.Method == http.MethodGet {
			reply(w, http.StatusNotFound, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
				Status: metav1.StatusFailure, Reason: metav1.StatusReasonNotFound, Code: http.StatusNotFound})
			return
		}
		reply(w, http.StatusCreated, corev1.ConfigMap{TypeMeta: metav1.TypeMeta{Kind: "ConfigMap", APIVersion: "v1"},
			ObjectMeta: metav1.ObjectMeta{Name: "settings", Namespace: "default"}})
	default:
		http.NotFound(w, r)
	}
}

func reply(w http.ResponseWriter, status int, object any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(object)
}

// TestKubectl lets a real kubectl discover, explain, get and apply.
func TestKubectl(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("kubectl"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	handler := &kubectlServer{}
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	home := t.TempDir()
	kubectl := func(t *testing.T, stdin string, arguments ...string) string {
		t.Helper()
		command := exec.CommandContext(t.Context(), "kubectl", append([]string{"--server", server.URL}, arguments...)...)
		command.Env = append(os.Environ(), "HOME="+home, "KUBECONFIG=", "KUBECACHEDIR="+filepath.Join(home, "cache"))
		command.Stdin = strings.NewReader(stdin)
		out, err := command.CombinedOutput()
		if err != nil {
			t.Errorf("kubectl %s: %v\n%s", strings.Join(arguments, " "), err, out)
		}
		return string(out)
	}
	t.Run("version", func(t *testing.T) {
		out := kubectl(t, "", "version")
		if !strings.Contains(out, "Server Version: "+discovery.Version().GitVersion) {
			t.Error(out)
		}
		client := "Client Version: v" + discovery.Major + "." + discovery.Minor + "."
		if strings.Contains(out, client) && strings.Contains(out, "WARNING") {
			t.Error(out)
		}
	})
	t.Run("api-resources", func(t *testing.T) {
		out := kubectl(t, "", "api-resources", "--no-headers", "-o", "wide")
		for _, r := range slices.Concat(resource.All, resource.Reviews) {
			if !slices.ContainsFunc(strings.Split(out, "\n"), func(line string) bool {
				return strings.HasPrefix(line, r.Name+" ") && strings.Contains(line, " "+r.Kind+" ") && strings.Contains(line, strings.Join(r.Verbs, ","))
			}) {
				t.Errorf("no %s in\n%s", r.Name, out)
			}
		}
	})
	t.Run("explain", func(t *testing.T) {
		for _, r := range slices.Concat(resource.All, resource.Reviews) {
			if out := kubectl(t, "", "explain", r.Name); !strings.Contains(out, "KIND:       "+r.Kind+"\n") || !strings.Contains(out, "metadata\t<ObjectMeta>") {
				t.Errorf("%s:\n%s", r.Name, out)
			}
		}
		for path, want := range map[string]string{
			"deployment.spec.template.spec.containers.ports": "containerPort\t<integer> -required-",
			"service.spec.ports.targetPort":                  "FIELD: targetPort <IntOrString>",
			"pod.spec.containers.resources.limits":           "FIELD: limits <map[string]Quantity>",
			"pod.metadata.creationTimestamp":                 "FIELD: creationTimestamp <string>",
		} {
			if out := kubectl(t, "", "explain", path); !strings.Contains(out, want) {
				t.Errorf("%s:\n%s", path, out)
			}
		}
		if out := kubectl(t, "", "explain", "deployment", "--recursive"); !strings.Contains(out, "terminationGracePeriodSeconds") {
			t.Error(out)
		}
	})
	t.Run("get", func(t *testing.T) {
		want := []string{"NAME READY STATUS RESTARTS AGE IP NODE NOMINATED NODE READINESS GATES", "web 1/1 Running 0 3h <none> one <none> <none>"}
		var got []string
		for line := range strings.Lines(kubectl(t, "", "get", "pods", "-o", "wide")) {
			got = append(got, strings.Join(strings.Fields(line), " "))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q", got)
		}
	})
	t.Run("apply", func(t *testing.T) {
		const manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\n"
		kubectl(t, manifest, "apply", "-f", "-")
		kubectl(t, manifest, "apply", "-f", "-", "--dry-run=server")
		kubectl(t, manifest, "apply", "-f", "-", "--server-side")
		handler.mu.Lock()
		defer handler.mu.Unlock()
		for _, want := range []string{"fieldManager=kubectl-client-side-apply&fieldValidation=Strict", "dryRun=All&", "fieldManager=kubectl&fieldValidation=Strict&force=false"} {
			// Fields are left to the server, which the client does only if the server tells of the parameter.
			if !slices.ContainsFunc(handler.asked, func(asked string) bool { return strings.Contains(asked, want) }) {
				t.Errorf("no request had %s: %q", want, handler.asked)
			}
		}
		for _, asked := range handler.asked {
			if strings.HasPrefix(asked, "GET /openapi/v2") {
				t.Errorf("kubectl fell back to %s", asked)
			}
		}
	})
}
