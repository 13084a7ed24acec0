package kubernetes

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// credentialsAge is how long credentials are used before they are looked at again. client-go reads a token's file once a
// minute; projected service account tokens are renewed minutes before they expire.
const credentialsAge = 10 * time.Second

// rootFiles are where systems keep the CAs that everybody trusts; the first that exists is used. Envoy wants them as
// PEM, which crypto/x509 does not give.
var rootFiles = []string{
	"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem",
}

// loadConfig reads a kubeconfig, or the in-cluster configuration when config names none.
func loadConfig(config dialect.Config) (*rest.Config, error) {
	var loaded *rest.Config
	var err error
	if config.Kubeconfig == "" {
		if config.Context != "" {
			return nil, errors.New("kubernetes: a context needs a kubeconfig")
		}
		loaded, err = rest.InClusterConfig()
	} else {
		loaded, err = clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
			&clientcmd.ClientConfigLoadingRules{ExplicitPath: config.Kubeconfig},
			&clientcmd.ConfigOverrides{CurrentContext: config.Context},
		).ClientConfig()
	}
	if err != nil {
		return nil, fmt.Errorf("kubernetes configuration: %w", err)
	}
	loaded.QPS, loaded.Burst = clientQPS, clientBurst
	loaded.UserAgent = "isthmus"
	loaded.WarningHandler = rest.NoWarnings{} // the callers' warnings, not the log's
	return loaded, nil
}

// access is the way to the API: for Envoy (upstream) and for our own unread calls (RoundTrip).
type access struct {
	config  *rest.Config
	base    *url.URL
	log     *slog.Logger
	plain   http.RoundTripper // HTTP/2 where the server speaks it
	upgrade http.RoundTripper // HTTP/1.1, for requests that leave HTTP
	// dressing sets what the API server authenticates, and sends nothing.
	dressing http.RoundTripper

	mu   sync.Mutex
	last neutral.Upstream
	read time.Time
}

// newAccess refuses what Envoy could not be told, so that a gateway fails when it starts and not at a call.
func newAccess(config *rest.Config, log *slog.Logger) (*access, error) {
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, fmt.Errorf("kubernetes configuration: the server: %w", err)
	}
	switch {
	case strings.Trim(base.Path, "/") != "":
		return nil, errors.New("kubernetes configuration: a server URL with a path is not supported")
	case config.Insecure && base.Scheme == "https":
		return nil, errors.New("kubernetes configuration: insecure-skip-tls-verify is not supported; give the CA")
	case config.Proxy != nil:
		return nil, errors.New("kubernetes configuration: proxy-url is not supported")
	case config.Username != "":
		return nil, errors.New("kubernetes configuration: a user name and password are not supported; give a token or a certificate")
	case config.Impersonate.UserName != "":
		return nil, errors.New("kubernetes configuration: impersonation is not supported")
	}
	a := &access{config: config, base: base, log: log}
	if a.plain, err = rest.TransportFor(config); err != nil {
		return nil, fmt.Errorf("kubernetes transport: %w", err)
	}
	h1 := rest.CopyConfig(config)
	h1.NextProtos = []string{"http/1.1"}
	if a.upgrade, err = rest.TransportFor(h1); err != nil {
		return nil, fmt.Errorf("kubernetes transport: %w", err)
	}
	if a.dressing, err = rest.HTTPWrappersForConfig(config, nowhere{}); err != nil {
		return nil, fmt.Errorf("kubernetes credentials: %w", err)
	}
	if a.last, err = a.load(); err != nil {
		return nil, err
	}
	a.read = time.Now()
	if base.Scheme == "http" && !isLoopback(base.Hostname()) {
		log.Warn("the Kubernetes API is reached without TLS")
	}
	return a, nil
}

// upstream gives the credentials as they are now. Credentials that cannot be read leave the last ones in use.
func (a *access) upstream() neutral.Upstream {
	a.mu.Lock()
	defer a.mu.Unlock()
	if time.Since(a.read) < credentialsAge {
		return a.last
	}
	a.read = time.Now()
	fresh, err := a.load()
	if err != nil {
		a.log.Warn("the credentials of the Kubernetes API cannot be read; the last ones stay in use", "error", err)
		return a.last
	}
	a.last = fresh
	return fresh
}

// load reads the credentials, from files where the configuration names files.
func (a *access) load() (neutral.Upstream, error) {
	up := neutral.Upstream{Address: hostPort(a.base), Host: a.base.Host}
	token, err := a.token()
	if err != nil {
		return neutral.Upstream{}, fmt.Errorf("kubernetes credentials: %w", err)
	}
	up.Token = token
	if a.base.Scheme != "https" {
		return up, nil
	}
	files := rest.CopyConfig(a.config)
	if err := rest.LoadTLSFiles(files); err != nil {
		return neutral.Upstream{}, fmt.Errorf("kubernetes credentials: %w", err)
	}
	up.CA, up.Cert, up.Key = files.CAData, files.CertData, files.KeyData
	if len(up.CA) == 0 {
		if up.CA, err = systemRoots(); err != nil {
			return neutral.Upstream{}, err
		}
	}
	if !x509.NewCertPool().AppendCertsFromPEM(up.CA) {
		return neutral.Upstream{}, errors.New("kubernetes credentials: the CA holds no certificate")
	}
	if up.ServerName = files.ServerName; up.ServerName == "" {
		up.ServerName = a.base.Hostname()
	}
	if up.Token == "" && len(up.Cert) == 0 && a.config.ExecProvider != nil {
		return neutral.Upstream{}, errors.New("kubernetes credentials: a plugin that gives certificates is not supported; one that gives tokens is")
	}
	return up, nil
}

// token asks client-go for the bearer token by letting it dress a request that goes nowhere: that covers tokens in the
// configuration, in files, and those of credential plugins, with client-go's own caching and renewal.
func (a *access) token() (string, error) {
	resp, err := a.dressing.RoundTrip(&http.Request{Method: http.MethodGet, URL: a.base, Header: http.Header{}})
	if err != nil {
		return "", err
	}
	if err := resp.Body.Close(); err != nil {
		return "", err
	}
	authorization := resp.Request.Header.Get("Authorization")
	scheme, token, _ := strings.Cut(authorization, " ")
	if authorization != "" && !strings.EqualFold(scheme, "Bearer") {
		return "", errors.New("only bearer tokens and certificates are supported")
	}
	return strings.TrimSpace(token), nil
}

// nowhere answers a request with itself.
type nowhere struct{}

func (nowhere) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: r}, nil
}

// RoundTrip sends a request to the API whatever host it names. The caller's own credentials do not go along.
func (a *access) RoundTrip(r *http.Request) (*http.Response, error) {
	out := r.Clone(r.Context())
	out.URL.Scheme, out.URL.Host, out.Host = a.base.Scheme, a.base.Host, ""
	out.Header.Del("Authorization") // client-go leaves one that is there
	if out.Header.Get("Upgrade") != "" {
		return a.upgrade.RoundTrip(out)
	}
	return a.plain.RoundTrip(out)
}

func (a *access) close() {
	for _, rt := range []http.RoundTripper{a.plain, a.upgrade} {
		closeIdle(rt)
	}
}

// closeIdle finds the transport under client-go's wrappers and closes what it keeps.
func closeIdle(rt http.RoundTripper) {
	for rt != nil {
		if c, ok := rt.(interface{ CloseIdleConnections() }); ok {
			c.CloseIdleConnections()
			return
		}
		w, ok := rt.(interface{ WrappedRoundTripper() http.RoundTripper })
		if !ok {
			return
		}
		rt = w.WrappedRoundTripper()
	}
}

func systemRoots() ([]byte, error) {
	files := rootFiles
	if f := os.Getenv("SSL_CERT_FILE"); f != "" {
		files = []string{f}
	}
	for _, f := range files {
		if pem, err := os.ReadFile(f); err == nil {
			return pem, nil
		}
	}
	return nil, errors.New("kubernetes configuration: it names no CA and this system keeps none")
}

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = "443"
		if u.Scheme == "http" {
			port = "80"
		}
	}
	return net.JoinHostPort(u.Hostname(), port)
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
