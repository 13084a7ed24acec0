package app

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/manifest"
)

// documents writes the documents of a gateway of Docker with its folders in dir, and what more is given; it gives the
// file's path. Sockets have short names, so dir must have one too.
func documents(t *testing.T, dir string, more ...string) string {
	t.Helper()
	text := `apiVersion: isthmus.io/v1alpha1
kind: Gateway
metadata: {name: west}
spec:
  stateDir: ` + dir + `/state
  runDir: ` + dir + `/run
  orchestrator: {type: docker, docker: {endpoint: "unix://` + dir + `/docker.sock"}}
  callers: {unauthenticated: [services, accesses]}
`
	path := filepath.Join(dir, "west.yaml")
	if err := os.WriteFile(path, []byte(strings.Join(append([]string{text}, more...), "---\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// documentsOf writes such documents and loads them.
func documentsOf(t *testing.T, dir string, more ...string) *manifest.Set {
	t.Helper()
	set, err := manifest.Load(documents(t, dir, more...))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

const (
	peerEast = `apiVersion: isthmus.io/v1alpha1
kind: Peer
metadata: {name: east}
spec: {addresses: ["192.0.2.2:15443"], api: {listen: "127.0.0.1:16443"}}
`
	peerSouth = `apiVersion: isthmus.io/v1alpha1
kind: Peer
metadata: {name: south}
spec: {addresses: ["192.0.2.3:15443"], suspended: true}
`
	policyEast = `apiVersion: isthmus.io/v1alpha1
kind: AccessPolicy
metadata: {name: east}
spec:
  from: [{peer: east}]
  allow:
  - verbs: [query]
    objects: [{kind: service, namespace: shop, name: web}]
  - verbs: [list, get]
    objects: [{kind: container}]
`
)

// shortDir is a folder whose name leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "isthmus")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// run runs a command line and gives its exit status and what it printed.
func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = Main(t.Context(), args, &out, &err)
	return code, out.String(), err.String()
}
