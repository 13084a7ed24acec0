package apiserver

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// shell runs real programs of the field against a stand.
type shell struct {
	*testing.T
	stand *stand
	home  string
}

// shells gives one, where the program is installed.
func shells(t *testing.T, program string) *shell {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	sh := &shell{T: t, stand: stands(t), home: t.TempDir()}
	config := "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{name: c, cluster: {server: \"" + sh.stand.server.URL +
		"\"}}]\ncontexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {}}]\n"
	if err := os.WriteFile(filepath.Join(sh.home, "config"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return sh
}

func (sh *shell) command(ctx context.Context, stdin string, line ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, line[0], line[1:]...)
	c.Env = append(os.Environ(), "HOME="+sh.home, "KUBECONFIG="+filepath.Join(sh.home, "config"), "KUBE_EDITOR=sed -i s/first/second/")
	c.Stdin = strings.NewReader(stdin)
	return c
}

// run runs a line, whose words are apart by spaces, and wants each of the texts in what it says; "!" before one wants it
// not there.
func (sh *shell) run(line, stdin string, wants ...string) string {
	sh.Helper()
	return sh.ends(true, line, stdin, wants...)
}

// fails is run of what must fail.
func (sh *shell) fails(line, stdin string, wants ...string) string {
	sh.Helper()
	return sh.ends(false, line, stdin, wants...)
}

func (sh *shell) ends(well bool, line, stdin string, wants ...string) string {
	sh.Helper()
	ctx, cancel := context.WithTimeout(sh.Context(), 60*time.Second)
	defer cancel()
	c := sh.command(ctx, stdin, strings.Fields(line)...)
	said, err := c.CombinedOutput()
	if (err == nil) != well {
		sh.Errorf("%s: %v\n%s", line, err, said)
	}
	for _, want := range wants {
		if rest, not := strings.CutPrefix(want, "!"); not && strings.Contains(string(said), rest) || !not && !strings.Contains(string(said), want) {
			sh.Errorf("%s said, without %q:\n%s", line, want, said)
		}
	}
	return string(said)
}

const webManifest = `apiVersion: v1
kind: ConfigMap
metadata: {name: page, annotations: {edited: "no"}}
data: {index.html: "first"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: "nginx:1", ports: [{containerPort: 80}], volumeMounts: [{name: page, mountPath: /page}]}
      volumes: [{name: page, configMap: {name: page}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
`

// TestKubectl types what people type.
func TestKubectl(t *testing.T) {
	sh := shells(t, "kubectl")
	sh.run("kubectl version", "", "Server Version")
	sh.run("kubectl api-resources", "", "deployments", "configmaps", "!ingresses")
	sh.run("kubectl explain deployment.spec.strategy", "", "rollingUpdate")
	sh.run("kubectl get all", "", "No resources found")
	sh.run("kubectl diff -f -", "", "") // of nothing
	sh.run("kubectl apply -f -", webManifest, "configmap/page created", "deployment.apps/web created", "service/web created")
	sh.run("kubectl apply -f -", webManifest, "configmap/page unchanged", "deployment.apps/web unchanged", "service/web unchanged")
	sh.run("kubectl diff -f -", webManifest)
	sh.fails("kubectl diff -f -", strings.Replace(webManifest, "nginx:1", "nginx:2", 1), "+", "nginx:2")
	sh.run("kubectl apply --server-side -f -", webManifest, "serverside-applied")
	sh.run("kubectl apply --server-side --field-manager other --force-conflicts -f -", webManifest, "serverside-applied")
	sh.run("kubectl apply -f - --dry-run=server", strings.Replace(webManifest, "nginx:1", "nginx:9", 1), "configured (server dry run)")
	sh.run("kubectl get deploy,rs,pods,svc,cm,endpointslices -o wide", "", "deployment.apps/web", "2/2", "nginx:1", "service/web", "!nginx:9")
	sh.run("kubectl get pods -l app=web --field-selector status.phase=Running -o name", "", "pod/web-")
	sh.run("kubectl get pods -A --sort-by .metadata.name -o custom-columns=N:.metadata.name", "", "web-")
	sh.run("kubectl get deploy web -o yaml --show-managed-fields", "", "manager: other", "nginx:1")
	sh.run("kubectl get --raw /readyz", "", "ok")
	sh.run("kubectl describe deployment web", "", "2 desired | 2 updated | 2 total | 2 available", "NewReplicaSet:")
	sh.run("kubectl describe pods", "", "Controlled By:", "web")
	sh.run("kubectl label deployment web tier=front", "", "labeled")
	sh.fails("kubectl label deployment web tier=back", "", "already has a value")
	sh.run("kubectl label deployment web tier=back --overwrite", "", "labeled")
	sh.run("kubectl annotate deployment web note=x", "", "annotated")
	sh.run("kubectl annotate deployment web note-", "", "annotated")
	sh.run("kubectl edit configmap page", "", "edited")
	sh.run("kubectl get cm page -o jsonpath={.data}", "", "second")
	sh.run("kubectl scale deployment web --replicas 4", "", "scaled")
	sh.fails("kubectl scale deployment web --current-replicas 1 --replicas 5", "", "Expected replicas to be 1")
	sh.run("kubectl wait deployment web --for=condition=Available --timeout=20s", "", "condition met")
	sh.run("kubectl wait deployment web --for=jsonpath={.status.readyReplicas}=4 --timeout=20s", "", "condition met")
	sh.run("kubectl set image deployment/web web=nginx:3", "", "image updated")
	sh.run("kubectl rollout status deployment/web --timeout=20s", "", "successfully rolled out")
	sh.run("kubectl get deployment web -o jsonpath={.status.conditions[*].message}", "", "ReplicaSet \"web-", "has successfully progressed.")
	sh.run("kubectl set env deployment/web A=1", "", "env updated")
	sh.run("kubectl set resources deployment/web --limits=cpu=100m,memory=64Mi", "", "resource requirements updated")
	sh.run("kubectl rollout history deployment/web", "", "1 ", "2 ", "3 ", "4 ")
	sh.run("kubectl rollout history deployment/web --revision 2", "", "nginx:3", "!A:")
	sh.run("kubectl rollout undo deployment/web --to-revision 1", "", "rolled back")
	sh.run("kubectl get deployment web -o jsonpath={..image}", "", "nginx:1")
	sh.run("kubectl rollout undo deployment/web", "", "rolled back")
	sh.run("kubectl get deployment web -o jsonpath={..cpu}", "", "100m")
	sh.run("kubectl rollout pause deployment/web", "", "paused")
	sh.run("kubectl set image deployment/web web=nginx:4", "", "image updated")
	sh.run("kubectl get pods -o jsonpath={..image}", "", "nginx:3", "!nginx:4")
	sh.run("kubectl rollout resume deployment/web", "", "resumed")
	sh.run("kubectl rollout status deployment/web --timeout=20s", "", "successfully rolled out")
	sh.run("kubectl get pods -o jsonpath={..image}", "", "nginx:4", "!nginx:3")
	sh.run("kubectl rollout restart deployment/web", "", "restarted")
	sh.run("kubectl patch deployment web --type json -p [{\"op\":\"remove\",\"path\":\"/metadata/labels/tier\"}]", "", "patched")
	sh.run("kubectl patch deployment web --subresource scale --type merge -p {\"spec\":{\"replicas\":1}}", "", "patched")
	sh.run("kubectl create deployment api --image nginx:1 --replicas 1 --port 80", "", "created")
	sh.run("kubectl expose deployment api --name api --port 80", "", "exposed")
	sh.fails("kubectl expose deployment api --name badport --port 81 --target-port 80", "", "targetPort")
	sh.run("kubectl create job once --image busybox -- true", "", "created")
	sh.run("kubectl wait job once --for=condition=Complete --timeout=20s", "", "condition met")
	sh.run("kubectl create secret generic word --from-literal=word=open", "", "created")
	sh.run("kubectl create configmap more --from-literal=a=b", "", "created")
	sh.run("kubectl replace -f -", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: more}\ndata: {a: c}\n", "replaced")
	sh.run("kubectl create namespace shop", "", "created")
	sh.run("kubectl run tool --image busybox -n shop -- sleep 1000", "", "created")
	sh.run("kubectl logs tool -n shop", "", "one\ntwo")
	sh.run("kubectl wait pod tool -n shop --for=condition=Ready --timeout=20s", "", "condition met")
	sh.run("kubectl events", "")
	sh.run("kubectl get nodes -o wide", "", "west-1", "Ready")
	sh.fails("kubectl create quota q --hard=pods=1", "", "the server could not find the requested resource")
	sh.fails("kubectl get ingress", "", "the server doesn't have a resource type")
	sh.fails("kubectl apply -f - --validate=strict", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndota: {}\n", "unknown field")
	sh.fails("kubectl delete pod -l app=web", "", "Swarm removes a task only with its service")
	sh.run("kubectl delete -f -", webManifest, "deleted")
	sh.run("kubectl delete pod tool -n shop", "", "deleted")
	sh.run("kubectl delete namespace shop --timeout=20s", "", "deleted")
	sh.run("kubectl delete deployments,jobs,svc,cm,secrets --all", "", "deleted")
	sh.run("kubectl get all", "", "No resources found")
}

// TestKubectlWatch has kubectl watch while a Deployment comes, changes and goes.
func TestKubectlWatch(t *testing.T) {
	sh := shells(t, "kubectl")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := sh.command(ctx, "", "kubectl", "get", "deployments", "-w", "--output-watch-events")
	seen := &spoken{}
	c.Stdout, c.Stderr = seen, seen
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Wait() }()
	defer cancel()
	eventually(t, "it watches", func() bool { return !sh.stand.api.follower.idle() })
	sh.run("kubectl create deployment web --image nginx:1", "", "created")
	eventually(t, "it is added", func() bool { return seen.has("ADDED") })
	sh.run("kubectl scale deployment web --replicas 3", "", "scaled")
	eventually(t, "it is changed", func() bool { return seen.has("3/3") })
	sh.run("kubectl delete deployment web", "", "deleted")
	eventually(t, "it is removed", func() bool { return seen.has("DELETED") })
}

// spoken is what a program says while it runs.
type spoken struct {
	mu   sync.Mutex
	said bytes.Buffer
}

func (s *spoken) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.said.Write(b)
}

func (s *spoken) has(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(s.said.String(), text)
}
