package kubernetes

import (
	"bufio"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
)

// writeKubeconfig writes a kubeconfig for a server and its user.
func writeKubeconfig(t *testing.T, cluster clientcmdapi.Cluster, user clientcmdapi.AuthInfo) string {
	t.Helper()
	config := clientcmdapi.NewConfig()
	config.Clusters["c"], config.AuthInfos["u"] = &cluster, &user
	config.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		t.Fatal(err)
	}
	return file
}

func serverCA(s *httptest.Server) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}

func connect(t *testing.T, kubeconfig string) *Cluster {
	t.Helper()
	c, err := Dialect{}.Connect(t.Context(), dialect.Config{Cluster: "east", Kubeconfig: kubeconfig, Context: "x"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c.(*Cluster)
}

func TestUpstreamKeepsItsToken(t *testing.T) {
	t.Parallel()
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("one\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := connect(t, writeKubeconfig(t,
		clientcmdapi.Cluster{Server: s.URL, CertificateAuthorityData: serverCA(s), TLSServerName: "example.com"},
		clientcmdapi.AuthInfo{TokenFile: token}))
	up := c.Upstream()
	host := strings.TrimPrefix(s.URL, "https://")
	if up.Address != host || up.Host != host || up.ServerName != "example.com" || up.Token != "one" ||
		string(up.CA) != string(serverCA(s)) || up.Cert != nil {
		t.Errorf("upstream is %+v", up)
	}
	if err := os.WriteFile(token, []byte("two"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := c.Upstream().Token; got != "one" {
		t.Errorf("the token is read at each call: %q", got)
	}
	age(c)
	if err := os.Remove(token); err != nil {
		t.Fatal(err)
	}
	if got := c.Upstream().Token; got != "one" {
		t.Errorf("a file that is away for a moment takes the token away: %q", got)
	}
}

// age makes the credentials look old.
func age(c *Cluster) {
	c.access.mu.Lock()
	defer c.access.mu.Unlock()
	c.access.read = time.Now().Add(-2 * credentialsAge)
}

func TestUpstreamAsksCredentialPlugins(t *testing.T) {
	t.Parallel()
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	plugin := filepath.Join(t.TempDir(), "plugin")
	script := "#!/bin/sh\necho '{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\",\"status\":{\"token\":\"minted\"}}'\n"
	if err := os.WriteFile(plugin, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	c := connect(t, writeKubeconfig(t, clientcmdapi.Cluster{Server: s.URL, CertificateAuthorityData: serverCA(s)},
		clientcmdapi.AuthInfo{Exec: &clientcmdapi.ExecConfig{
			APIVersion: "client.authentication.k8s.io/v1", Command: plugin, InteractiveMode: clientcmdapi.NeverExecInteractiveMode,
		}}))
	if got := c.Upstream().Token; got != "minted" {
		t.Errorf("token %q", got)
	}
}

func TestConnectRefusesWhatEnvoyCannotBeTold(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cluster clientcmdapi.Cluster
		user    clientcmdapi.AuthInfo
		want    string
	}{
		"path":          {clientcmdapi.Cluster{Server: "https://rancher/k8s/clusters/c-1"}, clientcmdapi.AuthInfo{Token: "t"}, "path"},
		"insecure":      {clientcmdapi.Cluster{Server: "https://a", InsecureSkipTLSVerify: true}, clientcmdapi.AuthInfo{Token: "t"}, "insecure"},
		"proxy":         {clientcmdapi.Cluster{Server: "https://a", ProxyURL: "http://b"}, clientcmdapi.AuthInfo{Token: "t"}, "proxy-url"},
		"basic":         {clientcmdapi.Cluster{Server: "https://a"}, clientcmdapi.AuthInfo{Username: "u", Password: "hunter2"}, "password"},
		"impersonation": {clientcmdapi.Cluster{Server: "https://a"}, clientcmdapi.AuthInfo{Token: "hunter2", Impersonate: "x"}, "impersonation"},
		"no CA in it":   {clientcmdapi.Cluster{Server: "https://a", CertificateAuthorityData: []byte("nothing")}, clientcmdapi.AuthInfo{Token: "hunter2"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Dialect{}.Connect(t.Context(), dialect.Config{Kubeconfig: writeKubeconfig(t, c.cluster, c.user), Context: "x"})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one about %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error tells a secret: %v", err)
			}
		})
	}
	if _, err := (Dialect{}).Connect(t.Context(), dialect.Config{Kubeconfig: filepath.Join(t.TempDir(), "none")}); err == nil {
		t.Error("a missing kubeconfig connects")
	}
}

// TestTransport holds that a call handed on goes to this cluster with this gateway's credentials and none of the
// caller's, over HTTP/2 if it can and over HTTP/1.1 if it leaves HTTP.
func TestTransport(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Seen", strings.Join([]string{r.Proto, r.Header.Get("Authorization"), r.URL.RequestURI()}, " "))
		if r.Header.Get("Upgrade") == "" {
			return
		}
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", r.Header.Get("Upgrade"))
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		line, err := rw.ReadString('\n')
		if err == nil {
			_, err = conn.Write([]byte("echo " + line))
		}
		if err != nil {
			t.Error(err)
		}
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	c := connect(t, writeKubeconfig(t, clientcmdapi.Cluster{Server: s.URL, CertificateAuthorityData: serverCA(s)}, clientcmdapi.AuthInfo{Token: "ours"}))

	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://any/api/v1/pods?limit=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer theirs")
	resp, err := c.Transport().RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	if got, want := resp.Header.Get("X-Seen"), "HTTP/2.0 Bearer ours /api/v1/pods?limit=1"; got != want {
		t.Errorf("the API saw %q, want %q", got, want)
	}
	if req.URL.Host != "any" || req.Header.Get("Authorization") != "Bearer theirs" {
		t.Error("the caller's request was changed")
	}

	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "SPDY/3.1")
	resp, err = c.Transport().RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	stream, ok := resp.Body.(io.ReadWriter)
	if resp.StatusCode != http.StatusSwitchingProtocols || !ok {
		t.Fatalf("status %d, body %T", resp.StatusCode, resp.Body)
	}
	if _, err := stream.Write([]byte("hi\n")); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stream).ReadString('\n'); err != nil || line != "echo hi\n" {
		t.Errorf("%q, %v", line, err)
	}
	if got, want := resp.Header.Get("X-Seen"), "HTTP/1.1 Bearer ours /api/v1/pods?limit=1"; got != want {
		t.Errorf("the API saw %q, want %q", got, want)
	}
}
