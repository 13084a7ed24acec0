package app

import (
	"encoding/base64"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func TestKubeconfig(t *testing.T) {
	t.Parallel()
	api := APIState{Orchestrator: neutral.Kubernetes, Listen: "0.0.0.0:16443", Authority: "PEM",
		Names: []string{"localhost", "127.0.0.1", "::1", "api.east.isthmus.internal", "gateway.example"}}
	for _, c := range []struct {
		options kubeconfigOptions
		listen  string
		server  string
	}{
		{kubeconfigOptions{}, "0.0.0.0:16443", "https://gateway.example:16443"},
		{kubeconfigOptions{tokenFile: "token"}, "127.0.0.1:16443", "https://127.0.0.1:16443"},
		{kubeconfigOptions{server: "https://other:1", certificate: "c", key: "k"}, "[::]:16443", "https://other:1"},
	} {
		api.Listen = c.listen
		text, err := c.options.kubeconfig("east", api)
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Clusters []struct {
				Cluster struct {
					Server    string
					Authority string `yaml:"certificate-authority-data"`
				}
			}
			Users []struct{ User map[string]string }
		}
		if err := yaml.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		if cluster := got.Clusters[0].Cluster; cluster.Server != c.server || cluster.Authority != base64.StdEncoding.EncodeToString([]byte("PEM")) {
			t.Errorf("the cluster is %+v, want %s", cluster, c.server)
		}
		for key, file := range map[string]string{"tokenFile": c.options.tokenFile, "client-certificate": c.options.certificate, "client-key": c.options.key} {
			got := got.Users[0].User[key]
			if file == "" && got != "" || file != "" && (filepath.Base(got) != file || !filepath.IsAbs(got)) {
				t.Errorf("%s is %q", key, got)
			}
		}
	}
	if _, err := (kubeconfigOptions{server: "http://plain:1"}).kubeconfig("east", api); err == nil {
		t.Error("clients drop their tokens on plain HTTP, and it is taken")
	}
	for _, open := range []bool{false, true} {
		api.Open = open
		if text, err := (kubeconfigOptions{}).kubeconfig("east", api); err != nil || strings.Contains(string(text), "username: anonymous") != open {
			t.Errorf("open %t: %s, %v", open, text, err)
		}
	}
	api.Orchestrator, api.Listen = neutral.Docker, "127.0.0.1:12376"
	if _, err := (kubeconfigOptions{}).kubeconfig("east", api); err == nil || !strings.Contains(err.Error(), "DOCKER_HOST=tcp://127.0.0.1:12376") {
		t.Errorf("docker's clients are told %v", err)
	}
}

// TestAPIState holds what the admin interface tells of the listeners of peers' APIs.
func TestAPIState(t *testing.T) {
	t.Parallel()
	g, _ := testGateway(t, peerEast, peerSouth)
	api, err := g.api("east")
	if err != nil || api.Listen != "127.0.0.1:16443" || api.Authority != string(g.authority.Load().CertificatePEM()) || api.Orchestrator != neutral.Docker {
		t.Errorf("%+v, %v", api, err)
	}
	handler := (&admin{gateway: g, registry: g.registry, log: g.log}).handler()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	for _, c := range []struct{ peer, says string }{
		{"nobody", "no peer is named"}, {"south", "has no spec.api.listen"}, {"east", "DOCKER_HOST=tcp://127.0.0.1:16443"},
	} {
		code, _, stderr := run(t, "kubeconfig", c.peer, "--admin", server.URL)
		if code != 1 || !strings.Contains(stderr, c.says) {
			t.Errorf("%s: %d %s", c.peer, code, stderr)
		}
	}
}
