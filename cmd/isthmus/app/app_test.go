package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestExitStatus holds the three exit statuses, and that each failure says what is wrong.
func TestExitStatus(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	good := documents(t, dir, peerEast)
	bad := filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(bad, []byte("apiVersion: isthmus.io/v1alpha1\nkind: Gateway\nmetadata: {name: west}\nspec: {orchestator: {type: docker}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
		code int
		says string // on standard error, or on standard output with status 0
	}{
		{"nothing", nil, 0, "Usage:"},
		{"help", []string{"help"}, 0, "Usage:"},
		{"version", []string{"--version"}, 0, "isthmus version"},
		{"help of a group", []string{"trust"}, 0, "isthmus trust init"},
		{"help of a command", []string{"gateway", "--help"}, 0, "--check"},
		{"a check", []string{"gateway", "--check", "--config", good}, 0, "cluster       west (docker)"},
		{"an unknown command", []string{"gatway"}, 2, `unknown command "gatway"`},
		{"an unknown command of a group", []string{"trust", "initt"}, 2, `unknown command "initt" for "isthmus trust"`},
		{"an unknown flag", []string{"gateway", "--confg", good}, 2, "unknown flag: --confg"},
		{"a flag without its value", []string{"gateway", "--config"}, 2, "--config"},
		{"a word too many", []string{"peers", "east"}, 2, "east"},
		{"no documents", []string{"gateway", "--check"}, 2, "--config FILE is required"},
		{"no documents for trust", []string{"trust", "init"}, 2, "--config FILE is required"},
		{"no peer for import", []string{"trust", "import", "--config", good, "x"}, 2, `"peer"`},
		{"no target", []string{"access"}, 2, "accepts 1 arg"},
		{"a level that is none", []string{"gateway", "--config", good, "--log-level", "loud"}, 1, "--log-level"},
		{"a file that is not there", []string{"gateway", "--config", filepath.Join(dir, "nosuch.yaml")}, 1, "nosuch.yaml"},
		{"a field that is none", []string{"gateway", "--check", "--config", bad}, 1, "orchestrator"},
		{"no authority", []string{"gateway", "--config", good}, 1, "isthmus trust init makes the certificate authority"},
		{"no gateway", []string{"peers", "--admin", "127.0.0.1:1"}, 1, "is it running, is --admin right?"},
		{"a target that is none", []string{"access", "east/db:5432", "--admin", "127.0.0.1:1"}, 1, "<peer>/<namespace>/<container>:<port>"},
		{"a port that is none", []string{"access", "east/shop/db:x", "--admin", "127.0.0.1:1"}, 1, "between 1 and 65535"},
		{"a local port that is none", []string{"access", "east/shop/db:5432", "--local", "high", "--admin", "127.0.0.1:1"}, 1, "neither a port nor address:port"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := run(t, c.args...)
			if code != c.code {
				t.Errorf("exit status %d, want %d: %s%s", code, c.code, stdout, stderr)
			}
			if code == 0 {
				if !strings.Contains(stdout, c.says) || stderr != "" {
					t.Errorf("standard output has no %q:\n%s\nstandard error: %q", c.says, stdout, stderr)
				}
				return
			}
			if !strings.HasPrefix(stderr, "isthmus: ") || !strings.Contains(stderr, c.says) || stdout != "" {
				t.Errorf("standard error has no %q: %q; standard output: %q", c.says, stderr, stdout)
			}
			if strings.Contains(stderr, "panic") || strings.Contains(stderr, "goroutine") {
				t.Errorf("standard error is not for people: %s", stderr)
			}
		})
	}
}

func TestAccessTarget(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]AccessState{
		"east/shop/db-0:5432":      {Peer: "east", Target: "db-0.shop", Port: 5432},
		"east/shop/web.main:80":    {Peer: "east", Target: "web.main.shop", Port: 80},
		"east/default/Web_1:65535": {Peer: "east", Target: "Web_1.default", Port: 65535},
	} {
		got, err := accessTarget(text)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
		if containerOf(got.Target)+"/"+namespaceOf(got.Target) != strings.Split(strings.SplitN(text, "/", 3)[2], ":")[0]+"/"+strings.Split(text, "/")[1] {
			t.Errorf("%s: %s is taken apart as %s and %s", text, got.Target, containerOf(got.Target), namespaceOf(got.Target))
		}
	}
	if got, err := accessTarget("east/shop/db-0:5432/tcp"); err != nil || got.Port != 5432 {
		t.Errorf("with its protocol: %+v, %v", got, err)
	}
	if _, err := accessTarget("east/shop/dns:53/udp"); err == nil || !strings.Contains(err.Error(), "udp does not cross between gateways") {
		t.Errorf("udp: %v", err)
	}
	for _, text := range []string{"", "east", "east/db:1", "/shop/db:1", "east//db:1", "east/shop/:1", "east/shop/db", "east/shop/db:0",
		"east/shop/db:65536", "east/shop/db:-1", "east/sh.op/db:1", "east/shop/x/db:1"} {
		if got, err := accessTarget(text); err == nil {
			t.Errorf("%q is taken as %+v", text, got)
		}
	}
}

func TestListenAddress(t *testing.T) {
	t.Parallel()
	for local, want := range map[string]string{"": "127.0.0.1:5432", "15432": "127.0.0.1:15432", "0.0.0.0:99": "0.0.0.0:99", "[::1]:99": "[::1]:99"} {
		if got, err := listenAddress(local, 5432); err != nil || got != want {
			t.Errorf("%q: %q, %v", local, got, err)
		}
	}
	for _, local := range []string{"0", "x", "localhost:99", "127.0.0.1:", "127.0.0.1:0", "99999"} {
		if got, err := listenAddress(local, 5432); err == nil {
			t.Errorf("%q is taken as %q", local, got)
		}
	}
}
