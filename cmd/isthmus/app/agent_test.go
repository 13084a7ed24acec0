package app

import (
	"bytes"
	"strings"
	"testing"
)

// TestAgentRefuses is what an agent does not begin with.
func TestAgentRefuses(t *testing.T) {
	t.Setenv("NODE_NAME", "")
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no node":        {[]string{"--namespace", "default"}, "--node is missing"},
		"no namespace":   {[]string{"--node", "a"}, "--namespace is missing"},
		"a log level":    {[]string{"--node", "a", "--namespace", "default", "--log-level", "loud"}, "--log-level"},
		"no cluster":     {[]string{"--node", "a", "--namespace", "default", "--kubeconfig", "/nowhere"}, "the cluster's API"},
		"no such socket": {[]string{"--node", "a", "--namespace", "default", "--kubeconfig", "testdata/agent.kubeconfig", "--containerd", "x.sock"}, "not an absolute path"},
	} {
		var stdout, stderr bytes.Buffer
		if code := Main(t.Context(), append([]string{"agent"}, c.args...), &stdout, &stderr); code != 1 || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("%s: %d %s", name, code, stderr.String())
		}
	}
}
