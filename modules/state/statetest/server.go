package statetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Server is a real etcd or Kubernetes API server for tests, which can be killed and started again on what it kept.
type Server struct {
	URL string

	argv   []string
	ready  func(ctx context.Context) error
	log    logged
	cmd    *exec.Cmd
	exited chan struct{}
}

// logged is the output of a process.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Start starts a server that is not running and waits until it serves.
func (s *Server) Start(t *testing.T) {
	t.Helper()
	s.cmd = exec.CommandContext(context.WithoutCancel(t.Context()), s.argv[0], s.argv[1:]...)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	s.exited = exited
	go func() {
		_ = s.cmd.Wait() // it is killed in the end
		close(exited)
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	for {
		err := s.ready(ctx)
		if err == nil {
			return
		}
		select {
		case <-exited:
			t.Fatalf("%s ended: %s", s.argv[0], s.log.String())
		case <-ctx.Done():
			t.Fatalf("%s is not ready: %v: %s", s.argv[0], err, s.log.String())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Kill ends a server as a crash does.
func (s *Server) Kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		<-s.exited
		s.cmd = nil
	}
}

// Signal sends it a signal. After SIGSTOP it stands still: its threads stop one by one, and those that run on can answer
// a last request.
func (s *Server) Signal(t *testing.T, signal syscall.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); signal == syscall.SIGSTOP && !s.stands(t); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the process does not stop")
		}
	}
}

// stands tells whether all threads of the process are stopped.
func (s *Server) stands(t *testing.T) bool {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		stat, err := os.ReadFile(thread)
		if err != nil {
			continue // it has ended
		}
		// The name of the program stands in parentheses before the state.
		if _, after, ok := strings.Cut(string(stat), ") "); !ok || !strings.HasPrefix(after, "T") {
			return false
		}
	}
	return true
}

// Etcd starts an etcd; flags are added to its command line. scheme is http or https.
func Etcd(t *testing.T, scheme string, flags ...string) *Server {
	t.Helper()
	path, err := exec.LookPath("etcd")
	if err != nil {
		missing(t, "etcd")
	}
	own, peers := freeAddress(t), freeAddress(t)
	s := &Server{URL: scheme + "://" + own, argv: append([]string{path,
		"--data-dir", filepath.Join(t.TempDir(), "etcd"), "--logger", "zap",
		"--listen-client-urls", scheme + "://" + own, "--advertise-client-urls", scheme + "://" + own,
		"--listen-peer-urls", "http://" + peers, "--initial-advertise-peer-urls", "http://" + peers,
		"--initial-cluster", "default=http://" + peers,
	}, flags...), ready: func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", own)
		if err != nil {
			return err
		}
		return conn.Close()
	}}
	t.Cleanup(s.Kill)
	s.Start(t)
	return s
}

// token is the credential of the one user of an API server.
const token = "isthmus-state-test"

// Kubernetes starts a Kubernetes API server on an etcd of its own, and gives the path of a kubeconfig for it. Users are
// groups by user name; the token of each is its name.
func Kubernetes(t *testing.T, users map[string]string) (s *Server, kubeconfig func(user string) string) {
	t.Helper()
	argv := apiServer(t)
	etcd := Etcd(t, "http", "--unsafe-no-fsync")
	dir, own := t.TempDir(), freeAddress(t)
	_, port, _ := net.SplitHostPort(own)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	serviceAccounts := write("accounts.key", string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})))
	tokens := token + ",admin,1,\"system:masters\"\n"
	for user, group := range users {
		tokens += fmt.Sprintf("%s,%s,%s,%q\n", user, user, user, group)
	}
	s = &Server{URL: "https://" + own, argv: append(argv,
		"--etcd-servers="+etcd.URL, "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--secure-port="+port,
		"--cert-dir="+dir, "--token-auth-file="+write("tokens.csv", tokens), "--authorization-mode=RBAC",
		"--service-cluster-ip-range=10.96.0.0/24", "--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+serviceAccounts, "--service-account-signing-key-file="+serviceAccounts,
		"--disable-admission-plugins=ServiceAccount",
	)}
	s.ready = func(ctx context.Context) error {
		roots := x509.NewCertPool()
		certificate, err := os.ReadFile(filepath.Join(dir, "apiserver.crt"))
		if err != nil {
			return err
		}
		roots.AppendCertsFromPEM(certificate)
		return serves(ctx, s.URL+"/readyz", roots)
	}
	t.Cleanup(s.Kill)
	s.Start(t)
	return s, func(user string) string {
		secret := user
		if user == "" {
			secret = token
		}
		return write("kubeconfig-"+user, fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: test
contexts: [{name: test, context: {cluster: test, user: test}}]
clusters: [{name: test, cluster: {server: %q, certificate-authority: %q}}]
users: [{name: test, user: {token: %q}}]
`, s.URL, filepath.Join(dir, "apiserver.crt"), secret))
	}
}

// apiServer finds the program, by itself or as the testbed builds it.
func apiServer(t *testing.T) []string {
	t.Helper()
	if path, err := exec.LookPath("kube-apiserver"); err == nil {
		return []string{path}
	}
	if cache, err := os.UserCacheDir(); err == nil {
		if found, _ := filepath.Glob(filepath.Join(cache, "isthmus", "testbed", "kubernetes-*", "kubernetes")); len(found) > 0 {
			return []string{found[len(found)-1], "kube-apiserver"}
		}
	}
	missing(t, "kube-apiserver")
	return nil
}

// missing ends a test that lacks a program: where all must run it has failed.
func missing(t *testing.T, program string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is not installed; make install-testbed brings it", program)
	}
	t.Skipf("%s is not installed; make install-testbed brings it", program)
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// serves asks a server for its health.
func serves(ctx context.Context, url string, roots *x509.CertPool) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	answer, err := (&http.Client{Transport: transport, Timeout: 5 * time.Second}).Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, answer.Status)
	}
	return nil
}
