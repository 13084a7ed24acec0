package podstream

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// kubectl is the testbed's, where that is installed.
func kubectl(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Skip(err)
	}
	found, err := filepath.Glob(filepath.Join(cache, "isthmus", "testbed", "kubernetes-*", "kubectl"))
	if err != nil || len(found) == 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("the testbed's kubectl is not installed")
		}
		t.Skip("the testbed's kubectl is not installed")
	}
	return found[len(found)-1]
}

// podWorld is an API server of one Pod, with as much of the API as kubectl asks for.
func podWorld(t *testing.T, dial Dial) *world {
	t.Helper()
	objects := map[string]any{
		"/api":  metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions", APIVersion: "v1"}, Versions: []string{"v1"}},
		"/apis": metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}, Groups: []metav1.APIGroup{}},
		"/api/v1": metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: "v1",
			APIResources: []metav1.APIResource{{Name: "pods", SingularName: "pod", Namespaced: true, Kind: "Pod", Verbs: metav1.Verbs{"get"}}}},
		"/api/v1/namespaces/default/pods/web": corev1.Pod{TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"},
			ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default"},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "x", Stdin: true,
				Ports: []corev1.ContainerPort{{ContainerPort: 80}}}}},
			Status: corev1.PodStatus{Phase: corev1.PodRunning}},
	}
	return newWorld(t, func(w http.ResponseWriter, r *http.Request) error {
		switch path.Base(r.URL.Path) {
		case "exec":
			e, err := ParseExec(r.URL.Query())
			if err != nil {
				return err
			}
			return e.Serve(w, r, func(ctx context.Context, session neutral.Session) (neutral.Result, error) {
				return process(ctx, e.Spec, session)
			})
		case "attach":
			a, err := ParseAttach(r.URL.Query())
			if err != nil {
				return err
			}
			return a.Serve(w, r, func(ctx context.Context, session neutral.Session) (neutral.Result, error) {
				return process(ctx, neutral.ExecSpec{Command: []string{"cat"}}, session)
			})
		case "log":
			l, err := ParseLog(r.URL.Query(), noon)
			if err != nil {
				return err
			}
			return l.Serve(w, r, lines)
		case "portforward":
			f, err := ParsePortForward(r.URL.Query())
			if err != nil {
				return err
			}
			return f.Serve(w, r, dial)
		}
		object, ok := objects[strings.TrimSuffix(r.URL.Path, "/")]
		if !ok {
			http.NotFound(w, r)
			return nil
		}
		w.Header().Set("Content-Type", "application/json")
		return json.NewEncoder(w).Encode(object)
	})
}

func TestKubectl(t *testing.T) {
	t.Parallel()
	program := kubectl(t)
	for name, test := range map[string]struct {
		arguments   string
		stdin, want string
		code        int
	}{
		"exec":      {"exec web -- echo hello", "", "hello\n", 0},
		"exec code": {"exec web -- sh -c false", "", "", 1},
		"exec -i":   {"exec -i web -- wc -c", strings.Repeat("x", 1<<20), "1048576\n", 0},
		"attach":    {"attach -i web", "typed", "typed", 0},
		"logs":      {"logs --timestamps --tail 5 web", "", "2026-11-30T12:00:00.000000000Z one\n", 0},
	} {
		for _, sockets := range []string{"true", "false"} {
			t.Run(name+", WebSocket "+sockets, func(t *testing.T) {
				t.Parallel()
				w := podWorld(t, nil)
				command := kubectlCommand(t, program, w, sockets, strings.Fields(test.arguments)...)
				command.Stdin = strings.NewReader(test.stdin)
				var stdout, stderr bytes.Buffer
				command.Stdout, command.Stderr = &stdout, &stderr
				_ = command.Run() // its exit code says it
				if !strings.HasPrefix(stdout.String(), test.want) || command.ProcessState.ExitCode() != test.code {
					t.Errorf("exit code %d, %q, %s", command.ProcessState.ExitCode(), stdout.String(), stderr.String())
				}
			})
		}
	}
}

func TestKubectlPortForward(t *testing.T) {
	t.Parallel()
	program := kubectl(t)
	for _, sockets := range []string{"true", "false"} {
		t.Run("WebSocket "+sockets, func(t *testing.T) {
			t.Parallel()
			w := podWorld(t, backend(t, echo))
			command := kubectlCommand(t, program, w, sockets, "port-forward", "web", ":80")
			stdout, err := command.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := command.Start(); err != nil {
				t.Fatal(err)
			}
			var port int
			if _, err := fmt.Fscanf(stdout, "Forwarding from 127.0.0.1:%d -> 80\n", &port); err != nil {
				t.Fatal(err)
			}
			go func() { _, _ = io.Copy(io.Discard, stdout) }() // ends with kubectl
			for range 3 {
				conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
				if err != nil {
					t.Fatal(err)
				}
				_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
				fmt.Fprint(conn, "hello")
				_ = conn.(*net.TCPConn).CloseWrite()
				if got, err := io.ReadAll(conn); err != nil || string(got) != "hello" {
					t.Errorf("%q, %v", got, err)
				}
				conn.Close()
			}
			_ = command.Process.Signal(os.Interrupt)
			_ = command.Wait() // killed
		})
	}
}

func kubectlCommand(t *testing.T, program string, w *world, sockets string, arguments ...string) *exec.Cmd {
	t.Helper()
	home := t.TempDir()
	config := filepath.Join(home, "config")
	if err := os.WriteFile(config, fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Config","current-context":"c",
		"contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}],"users":[{"name":"u","user":{}}],
		"clusters":[{"name":"c","cluster":{"server":%q}}]}`, w.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(limited(t), program, append([]string{"--kubeconfig", config}, arguments...)...)
	command.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "KUBECTL_REMOTE_COMMAND_WEBSOCKETS=" + sockets, "KUBECTL_PORT_FORWARD_WEBSOCKETS=" + sockets}
	return command
}
