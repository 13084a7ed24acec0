package app

import (
	"strings"
	"testing"
)

// TestExplainRights asks an orchestrator that has no rights of its own, and one that does not answer: neither changes what
// policy decides. What an API server answers, the end-to-end script alone_rights shows.
func TestExplainRights(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	west := documents(t, dir, peerEast, strings.Replace(policyEast, "[query]", "[get, list, query]", 1))
	away := write(t, dir, "kubeconfig", `apiVersion: v1
kind: Config
current-context: c
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
users: [{name: u, user: {}}]
`)
	east := write(t, dir, "kubernetes.yaml", strings.ReplaceAll(explainedEast, "KUBECONFIG", away))
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"docker":       {[]string{"--config", west, "--method", "GET", "--path", "/v1.49/containers/json"}, "rights       a docker engine has none of its own: policy alone decides"},
		"away":         {[]string{"--config", east, "--method", "GET", "--path", "/v1.49/containers/json"}, "rights       not known: "},
		"not needed":   {[]string{"--config", east, "--method", "GET", "--path", "/_ping"}, "rights       none are needed"},
		"denied first": {[]string{"--config", east, "--method", "DELETE", "--path", "/v1.49/containers/web"}, "decision     deny"},
		"a group":      {[]string{"--config", east, "--method", "GET", "--path", "/v1.49/info", "--caller", "ci", "--group", "ops", "--group", "b"}, "groups       b, ops\n"},
		"its rule":     {[]string{"--config", east, "--method", "GET", "--path", "/v1.49/info", "--caller", "ci", "--group", "ops"}, "decision     allow: by ops/0"},
		"no group":     {[]string{"--config", east, "--method", "GET", "--path", "/v1.49/info", "--caller", "ci", "--group", "b"}, "it is not for caller ci, in b"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := isthmus(t, append([]string{"explain", "--rights"}, c.args...)...)
			if !strings.Contains(text, c.says) {
				t.Errorf("nothing says %q:\n%s", c.says, text)
			}
			if strings.Contains(text, "127.0.0.1:1") {
				t.Errorf("an address is told:\n%s", text)
			}
		})
	}
}

const explainedEast = `apiVersion: isthmus.io/v1alpha1
kind: Gateway
metadata: {name: east}
spec:
  orchestrator: {type: kubernetes, kubernetes: {kubeconfig: KUBECONFIG}}
---
apiVersion: isthmus.io/v1alpha1
kind: Peer
metadata: {name: west}
spec: {addresses: ["192.0.2.2:15443"]}
---
apiVersion: isthmus.io/v1alpha1
kind: AccessPolicy
metadata: {name: west}
spec:
  from: [{peer: west}]
  allow:
  - verbs: [get, list]
    objects: [{kind: container}]
---
apiVersion: isthmus.io/v1alpha1
kind: AccessPolicy
metadata: {name: ops}
spec:
  from: [{peer: west, group: ops}]
  allow:
  - verbs: [get]
    objects: [{kind: system}]
`
