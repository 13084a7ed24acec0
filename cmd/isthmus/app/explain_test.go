package app

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
	"path/filepath"
	"strings"
	"testing"
)

// init makes this binary the client that explain runs when it is started under a client's name.
func init() {
	if filepath.Base(os.Args[0]) != "docker" {
		return
	}
	if err := fakeDocker(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// fakeDocker sends what docker's client sends for "create NAME BODY" and "ps".
func fakeDocker(args []string) error {
	socket := strings.TrimPrefix(os.Getenv("DOCKER_HOST"), "unix://")
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	send := func(method, path, body string) (string, error) {
		request, err := http.NewRequestWithContext(context.Background(), method, "http://docker"+path, strings.NewReader(body))
		if err != nil {
			return "", err
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := client.Do(request)
		if err != nil {
			return "", err
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err == nil && response.StatusCode >= 400 {
			err = fmt.Errorf("%s", text)
		}
		return string(text), err
	}
	if args[0] == "wait" {
		return fmt.Errorf("wait what?") // it ends before it sends anything
	}
	if _, err := send(http.MethodHead, "/_ping", ""); err != nil {
		return err
	}
	if args[0] == "top" {
		return fmt.Errorf("top what?")
	}
	if args[0] == "ps" {
		_, err := send(http.MethodGet, "/v1.49/containers/json", "")
		return err
	}
	text, err := send(http.MethodPost, "/v1.49/containers/create?name="+args[1], args[2])
	if err != nil {
		return err
	}
	var made struct{ ID string }
	if err := json.Unmarshal([]byte(text), &made); err != nil {
		return err
	}
	_, err = send(http.MethodPost, "/v1.49/containers/"+made.ID+"/start", "")
	return err
}

const gatewayEast = `apiVersion: isthmus.io/v1alpha1
kind: Gateway
metadata: {name: east}
spec:
  orchestrator: {type: kubernetes, kubernetes: {kubeconfig: /away/kubeconfig, namespace: team}}
---
apiVersion: isthmus.io/v1alpha1
kind: Peer
metadata: {name: west}
---
apiVersion: isthmus.io/v1alpha1
kind: Peer
metadata: {name: shut}
spec: {suspended: true}
---
apiVersion: isthmus.io/v1alpha1
kind: AccessPolicy
metadata: {name: west}
spec:
  from: [{peer: west}, {peer: shut}]
  allow:
  - verbs: [list, get, start]
    objects: [{kind: container, namespace: team}]
  - verbs: [create]
    objects: [{kind: container, namespace: team}, {kind: workload, namespace: team}]
    when: "!object.privileged"
  - verbs: [stop]
    objects: [{kind: container, labels: {team: a}}]
  - verbs: [query]
    objects: [{kind: service, namespace: team}]
  - verbs: [access]
    objects: [{kind: container, name: "db-?", labels: {open: "yes"}}]
  - verbs: [pause]
    objects: [{kind: container}]
`

// eastDocuments writes the documents of a Kubernetes gateway that is not there.
func eastDocuments(t *testing.T) string {
	t.Helper()
	return write(t, t.TempDir(), "east.yaml", gatewayEast)
}

// explained runs isthmus explain and gives what it says.
func explained(t *testing.T, args ...string) Explanation {
	t.Helper()
	code, stdout, stderr := run(t, append([]string{"explain", "--output", "json"}, args...)...)
	var e Explanation
	if err := json.Unmarshal([]byte(stdout), &e); err != nil || code != 0 {
		t.Fatalf("exit status %d, %v: %s%s", code, err, stdout, stderr)
	}
	return e
}

// TestExplainRequest explains requests by method, path and body.
func TestExplainRequest(t *testing.T) {
	t.Parallel()
	const create, pods = "/v1.49/containers/create?name=web", "/api/v1/namespaces/team/pods"
	for name, c := range map[string]struct {
		method, path, body string
		more               []string
		decision, rule     string
		says               []string // somewhere in the text
		lacks              string
	}{
		"allowed": {method: "POST", path: create, body: `{"Image":"nginx"}`, decision: "allow", rule: "west/1", says: []string{
			"class        container-operation (api.east.isthmus.internal)\n", "peer         west (docker)\n", "caller       -\n",
			"operation    container.create create container team/web\n", "decision     allow: by west/1\n",
			"    rule west/0 deny: it does not allow create\n", "    rule west/1 allow: it allows this\n",
			"plan         translated to one native call, rewritten in place in Envoy\n", "upstream     orchestrator\n",
			"call         POST /api/v1/namespaces/team/pods?"}, lacks: "loss "},
		"lossy": {method: "POST", path: create, body: `{"Image":"nginx","HostConfig":{"Ulimits":[{"Name":"nofile","Soft":1,"Hard":1}]}}`,
			decision: "allow", rule: "west/1", says: []string{"loss         HostConfig.Ulimits: dropped ("}},
		"denied by condition": {method: "POST", path: create, body: `{"Image":"nginx","HostConfig":{"Privileged":true}}`, decision: "deny",
			says: []string{"rule west/1 needs-object: its condition is undecided: it needs object.privileged",
				"rule west/1 deny: its condition is false: !object.privileged"}, lacks: "plan "},
		"denied by verb": {method: "DELETE", path: "/v1.49/containers/web", decision: "deny",
			says: []string{"(object unknown): deny: no rule for this caller allows destroy"}},
		"refused": {method: "POST", path: create, body: `{"Image":"nginx","HostConfig":{"Binds":["/etc:/etc"]}}`, decision: "refuse",
			says: []string{"HostConfig.Binds"}},
		"not translated": {method: "POST", path: "/v1.49/containers/web/pause", decision: "refuse",
			says: []string{"pause is refused: the policy has pause: freeze, and the target carries out none but quiesce"}},
		"no JSON":       {method: "POST", path: create, body: `{`, decision: "refuse", says: []string{"invalid JSON"}},
		"no path":       {method: "GET", path: "/v1.49/nonsense", decision: "refuse", says: []string{"page not found"}},
		"no policy":     {method: "GET", path: "/_ping", decision: "allow", says: []string{"no policy is asked", "answered by the gateway at once"}},
		"live state":    {method: "POST", path: "/v1.49/containers/web/stop", decision: "depends", says: []string{"it depends on the object's labels", "--labels KEY=VALUE supposes what it is", "plan         translated to several native calls, made by the bridge"}},
		"supposed":      {method: "POST", path: "/v1.49/containers/web/stop", more: []string{"--labels", "team=a"}, decision: "allow", rule: "west/2", says: []string{"supposed: container team/web exists"}},
		"supposed none": {method: "POST", path: "/v1.49/containers/web/stop", more: []string{"--exists"}, decision: "deny", says: []string{"wants label team, which the object has not"}},
		"a list":        {method: "GET", path: "/v1.49/containers/json", decision: "allow", rule: "west/0", says: []string{"GET /api/v1/namespaces/team/pods"}},
		"a program": {method: "POST", path: "/v1.49/services/create", body: `{"Name":"s","TaskTemplate":{"ContainerSpec":{"Image":"nginx"}}}`,
			decision: "allow", rule: "west/1", says: []string{"upstream     bridge", "the target may report further losses"}},
		"same type":        {method: "GET", path: pods + "/web", decision: "allow", rule: "west/0", says: []string{"peer         west (kubernetes)", "handed on by the bridge, which reads the answer"}},
		"same type judged": {method: "POST", path: pods, body: `{}`, decision: "depends", says: []string{"what the request would make is judged before it is done"}},
		"same type stream": {method: "GET", path: pods + "/web/log", decision: "deny", says: []string{"no rule for this caller allows logs"}},
		"same type live":   {method: "DELETE", path: pods + "/web", decision: "deny", says: []string{"no rule for this caller allows destroy"}},
		"the other type":   {method: "GET", path: "/version", more: []string{"--peer-type", "kubernetes"}, decision: "deny", says: []string{"peer         west (kubernetes)"}},
		"a query":          {method: "GET", path: "/", more: []string{"--host", "shop.team.svc.east.isthmus.internal:80"}, decision: "allow", rule: "west/3", says: []string{"class        service-query", "a route in Envoy", "live state"}},
		"another's query":  {method: "GET", path: "/", more: []string{"--host", "shop.other.svc.east.isthmus.internal"}, decision: "deny", says: []string{"objects[0] is for namespace team, not other"}},
		"no query":         {method: "GET", path: "/", more: []string{"--host", "a.b.c.svc.east.isthmus.internal"}, decision: "refuse", says: []string{"is not a service's name here"}},
		"an access":        {method: "GET", path: "/", more: []string{"--host", "db-1.team.ctr.east.isthmus.internal:5432"}, decision: "depends", says: []string{"class        container-access"}},
		"an access allowed": {method: "GET", path: "/", more: []string{"--host", "db-1.team.ctr.east.isthmus.internal:5432", "--labels", "open=yes"}, decision: "allow", rule: "west/4",
			says: []string{"upstream     access"}},
		"a list of hosts": {method: "GET", path: "/?namespace=team", more: []string{"--host", "ctr.east.isthmus.internal"}, decision: "allow", rule: "west/0",
			says: []string{"class        container-access", "the list of hosts"}},
		"an access denied": {method: "GET", path: "/", more: []string{"--host", "web.team.ctr.east.isthmus.internal"}, decision: "deny", says: []string{"objects[0] is for name db-?, not web"}},
		"no name of ours":  {method: "GET", path: "/", more: []string{"--host", "example.org"}, decision: "refuse", says: []string{"class        unknown"}},
		"impersonation":    {method: "GET", path: pods, more: []string{"--header", "Impersonate-User: root"}, decision: "deny", says: []string{"impersonation does not cross gateways"}},
		"suspended":        {method: "GET", path: "/_ping", more: []string{"--peer", "shut"}, decision: "deny", says: []string{"the peer is suspended"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := []string{"--config", eastDocuments(t), "--peer", "west", "--method", c.method, "--path", c.path}
			if c.body != "" {
				args = append(args, "--body", write(t, t.TempDir(), "body.json", c.body))
			}
			args = append(args, c.more...)
			e := explained(t, args...)
			if r := e.Requests[0]; len(e.Requests) != 1 || r.Decision != c.decision || r.Rule != c.rule {
				t.Errorf("%s by %q: %s", r.Decision, r.Rule, r.Reason)
			}
			text := isthmus(t, append([]string{"explain"}, args...)...)
			for _, s := range c.says {
				if !strings.Contains(text, s) {
					t.Errorf("nothing says %q:\n%s", s, text)
				}
			}
			if c.lacks != "" && strings.Contains(text, c.lacks) {
				t.Errorf("%q is said:\n%s", c.lacks, text)
			}
		})
	}
}

// TestExplainDocker has a Docker target: docker's callers pass untouched, and so do Kubernetes', to the API before it.
func TestExplainDocker(t *testing.T) {
	t.Parallel()
	west := documents(t, t.TempDir(), peerEast, policyEast)
	for name, c := range map[string]struct{ method, path, decision, says string }{
		"untouched": {"GET", "/v1.49/containers/json", decisionAllow, "handed on by the bridge, which reads the answer"},
		"denied":    {"POST", "/v1.49/containers/web/stop", decisionDeny, "no rule for this caller allows stop"},
		"emulated":  {"GET", "/api/v1/namespaces/default/pods", decisionAllow, "served by the kubernetes API before the orchestrator"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := []string{"--config", west, "--method", c.method, "--path", c.path} // the only peer asks
			if r := explained(t, args...).Requests[0]; r.Decision != c.decision {
				t.Errorf("%s: %s", r.Decision, r.Reason)
			}
			if text := isthmus(t, append([]string{"explain"}, args...)...); !strings.Contains(text, c.says) {
				t.Errorf("nothing says %q:\n%s", c.says, text)
			}
		})
	}
}

// client gives a program of a client's name: this binary.
func client(t *testing.T, name string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(shortDir(t), name)
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestExplainClient runs a client up to the request that would have to be done.
func TestExplainClient(t *testing.T) {
	t.Parallel()
	docker, east := client(t, "docker"), eastDocuments(t)
	e := explained(t, "--config", east, "--peer", "west", "--", docker, "run", "web", `{"Image":"nginx","HostConfig":{"Ulimits":[{"Name":"a"}]}}`)
	if len(e.Preliminary) != 1 || e.Preliminary[0].Request != "HEAD /_ping" || e.Client != "docker run" {
		t.Errorf("%+v", e)
	}
	if len(e.Requests) != 2 || e.Requests[0].Action != "container.create" || len(e.Requests[0].Losses) != 1 ||
		e.Requests[1].Request != "POST /v1.49/containers/web/start" || e.Requests[1].Rule != "west/0" {
		t.Errorf("%+v", e.Requests)
	}
	e = explained(t, "--config", east, "--peer", "west", "--", docker, "run", "web", `{"Image":"nginx","HostConfig":{"Privileged":true}}`)
	if len(e.Requests) != 1 || e.Requests[0].Decision != decisionDeny {
		t.Errorf("a client goes on from a denial: %+v", e.Requests)
	}
	e = explained(t, "--config", east, "--peer", "west", "--", docker, "ps")
	if len(e.Requests) != 1 || e.Requests[0].Action != "container.list" || e.Requests[0].Decision != decisionAllow {
		t.Errorf("%+v", e.Requests)
	}
	for command, says := range map[string]string{
		"wait": "docker sent no request: wait what?",
		"top":  "docker ended before the request that it is for: top what?",
	} {
		code, _, stderr := run(t, "explain", "--config", east, "--peer", "west", "--", docker, command)
		if code != 1 || !strings.Contains(stderr, says) {
			t.Errorf("exit status %d: %s", code, stderr)
		}
	}
}

// TestExplainRealClients runs those of the real clients that are installed.
func TestExplainRealClients(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ line, last, decision, rule string }{
		{"docker run -d --name web nginx", "POST /v1.49/containers/web/start", decisionAllow, "west/0"},
		{"docker run -d --privileged nginx", "POST /v1.49/containers/create", decisionDeny, ""},
		{"docker stop web", "POST /v1.49/containers/web/stop", decisionDepends, ""},
		{"kubectl -n team get pods", "GET /api/v1/namespaces/team/pods?limit=500", decisionAllow, "west/0"},
		{"kubectl -n team delete pod web", "DELETE /api/v1/namespaces/team/pods/web", decisionDeny, ""},
		{"curl -s http://shop.team.svc.east.isthmus.internal/x", "GET /x", decisionAllow, "west/3"},
		{"curl -s -H Host:shop.team.svc.east.isthmus.internal http://127.0.0.1:15080/x", "GET /x", decisionAllow, "west/3"},
		{"curl -s -p -x http://127.0.0.1:1 http://shop.team.svc.east.isthmus.internal:80/", "CONNECT shop.team.svc.east.isthmus.internal:80", decisionAllow, "west/3"},
		{"curl -s --unix-socket /away.sock http://x/v1.49/containers/json", "GET /v1.49/containers/json", decisionAllow, "west/0"},
	} {
		t.Run(c.line, func(t *testing.T) {
			t.Parallel()
			words := strings.Fields(c.line)
			installed(t, words[0])
			e := explained(t, append([]string{"--config", eastDocuments(t), "--peer", "west", "--"}, words...)...)
			if len(e.Requests) == 0 {
				t.Fatalf("%+v", e)
			}
			if last := e.Requests[len(e.Requests)-1]; !strings.HasPrefix(last.Request, c.last) || last.Decision != c.decision || last.Rule != c.rule {
				t.Errorf("%s: %s by %q: %s", last.Request, last.Decision, last.Rule, last.Reason)
			}
		})
	}
}

// TestExplainRefuses wants wrong command lines refused before anything is run.
func TestExplainRefuses(t *testing.T) {
	t.Parallel()
	east := eastDocuments(t)
	for line, says := range map[string]string{
		"":                                "what is to be explained?",
		"-- docker -H tcp://192.0.2.1 ps": "leave -H out",
		"-- docker --context=prod ps":     "leave --context out",
		"-- docker compose up":            "docker compose is not run by explain",
		"-- docker -D":                    "no command of docker",
		"-- kubectl get pods -s http://192.0.2.1":       "leave -s out",
		"-- kubectl --kubeconfig=x get pods":            "leave --kubeconfig out",
		"-- kubectl krew":                               "kubectl krew is not run by explain",
		"-- curl http://a --next http://b":              "leave --next out",
		"-- curl --nex http://b":                        "leave --nex out",
		"-- curl -Kfile":                                "out of the command line",
		"-- curl -x http://a --unix-socket /a http://b": "either a proxy or a Unix socket",
		"-- podman ps":                                  `"podman" is no client`,
		"-- /away/docker ps":                            "without the client give --method",
		"--method GET":                                  "belong together",
		"--method GET --path x":                         "a path begins with /",
		"--method GET --path / -- docker ps":            "give either",
		"--body x -- docker ps":                         "a client makes its own",
		"--method GET --path / --header x":              "does not read 'Name: value'",
		"--method GET --path / --body /away":            "--body: open /away",
		"--method GET --path / --peer wset":             `no Peer "wset"; did you mean "west"?`,
		"--method GET --path / --peer-type nomad":       "neither docker nor kubernetes",
		"--method GET --path / --output xml":            "neither text nor json",
	} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			args := append([]string{"explain", "--config", east}, strings.Fields(line)...)
			if !strings.Contains(line, "--peer ") {
				args = append([]string{"explain", "--peer", "west"}, args[1:]...)
			}
			code, stdout, stderr := run(t, args...)
			if code != 1 || !strings.Contains(stderr, says) || stdout != "" {
				t.Errorf("exit status %d: %s%s", code, stdout, stderr)
			}
		})
	}
	code, _, stderr := run(t, "explain", "--config", east, "--method", "GET", "--path", "/")
	if code != 1 || !strings.Contains(stderr, "--peer is required: which of the peers asks (shut, west)") {
		t.Errorf("no peer: %d, %s", code, stderr)
	}
}

// TestExplainLeavesNothing wants the temporary folders gone, and nothing of a body said: it can hold secrets.
func TestExplainLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	body := write(t, t.TempDir(), "body.json", `{"Image":"nginx","Env":["PASSWORD=hunter2"]}`)
	text := isthmus(t, "explain", "--config", eastDocuments(t), "--peer", "west", "--method", "POST", "--path", "/containers/create", "--body", body)
	if strings.Contains(text, "hunter2") {
		t.Errorf("the body's secret is said:\n%s", text)
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range left {
		if bytes.HasPrefix([]byte(entry.Name()), []byte("isthmus-explain")) {
			t.Errorf("%s is left", entry.Name())
		}
	}
}

// installed skips a test of a program that is not there, but for CI, where it fails.
func installed(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("%s is not installed (make install-testbed)", program)
	}
}
