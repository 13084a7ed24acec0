package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// explainClient is a client that can be run to learn its requests.
type explainClient struct {
	name string
	of   neutral.Orchestrator // "" follows from each request's path
	// commands are those that only speak to the server. Others (plugins, logins, registries) are not run.
	commands []string
	// valued are the flags before the command that take a value of their own.
	valued []string
	// own are the flags that name a server, or more than one request; explain names it.
	own []string
	// global tells that those mean something else behind the command.
	global bool
	// abbreviates tells that long flags may be cut short.
	abbreviates bool
	// command is the command line and its environment, with the server replaced.
	command func(s *capture, args []string, command int) (line, environment []string)
}

var explainClients = []explainClient{
	{
		name: "docker", of: neutral.Docker,
		commands: []string{"attach", "commit", "config", "container", "cp", "create", "diff", "events", "exec", "export", "history",
			"image", "images", "import", "info", "inspect", "kill", "load", "logs", "network", "node", "pause", "port", "ps", "pull",
			"push", "rename", "restart", "rm", "rmi", "run", "save", "search", "secret", "service", "stack", "start", "stats", "stop",
			"swarm", "system", "tag", "top", "unpause", "update", "version", "volume", "wait"},
		valued: []string{"-l", "--log-level"},
		global: true,
		own:    []string{"-H", "--host", "-c", "--context", "--config", "--tls", "--tlscacert", "--tlscert", "--tlskey", "--tlsverify"},
		command: func(s *capture, args []string, _ int) (line, environment []string) {
			return args, []string{"DOCKER_HOST=unix://" + s.socket, "DOCKER_CONFIG=" + s.dir, "DOCKER_CONTEXT=", "DOCKER_TLS_VERIFY=",
				"DOCKER_CERT_PATH=", "DOCKER_CLI_HINTS=false"}
		},
	},
	{
		name: "kubectl", of: neutral.Kubernetes,
		commands: []string{"annotate", "api-resources", "api-versions", "apply", "attach", "auth", "autoscale", "certificate",
			"cluster-info", "cordon", "cp", "create", "debug", "delete", "describe", "diff", "drain", "edit", "events", "exec", "explain",
			"expose", "get", "label", "logs", "patch", "port-forward", "replace", "rollout", "run", "scale", "set", "taint", "top",
			"uncordon", "version", "wait"},
		valued: []string{"-n", "--namespace", "--as", "--as-group", "--as-uid", "--request-timeout", "-v", "--v"},
		own:    []string{"-s", "--server", "--kubeconfig", "--context", "--cluster", "--cache-dir"},
		command: func(s *capture, args []string, command int) (line, environment []string) {
			line = append([]string{"--kubeconfig", s.kubeconfig, "--cache-dir", filepath.Join(s.dir, "cache")}, args[:command+1]...)
			if slices.Contains([]string{"apply", "create", "replace"}, args[command]) {
				// Without the target's schemas the client cannot validate, and would not send anything.
				line = append(line, "--validate=ignore")
			}
			return append(line, args[command+1:]...), []string{"KUBECONFIG=" + s.kubeconfig, "KUBERC=off"}
		},
	},
	{
		name: "curl",
		own: []string{"-K", "--config", "-:", "--next", "-Z", "--parallel", "--preproxy", "--proxy1.0", "--socks4", "--socks4a",
			"--socks5", "--socks5-hostname"},
		abbreviates: true,
		command: func(s *capture, args []string, _ int) (line, environment []string) {
			// -q comes first or has no effect. Of options that are given twice, the last counts.
			line = append(append([]string{"-q"}, args...), "--proto", "=http,https")
			if proxied(args) {
				return append(line, "--proxy", "http://"+s.address, "--noproxy", ""), nil
			}
			return append(line, "--unix-socket", s.socket), []string{"http_proxy=", "https_proxy=", "HTTPS_PROXY=", "all_proxy=", "ALL_PROXY="}
		},
	},
}

// proxied tells whether a curl command line names a proxy.
func proxied(args []string) bool {
	for _, a := range args {
		if a == "-x" || a == "--proxy" || strings.HasPrefix(a, "--proxy=") || (strings.HasPrefix(a, "-x") && len(a) > 2) {
			return true
		}
	}
	return false
}

// parse finds the client's command and refuses what it would do elsewhere.
func (c *explainClient) parse(args []string) (command int, err error) {
	command = -1
	for i := 0; i < len(args) && args[i] != "--"; i++ {
		a := args[i]
		switch {
		case c.names(a) && (command < 0 || !c.global):
			name, _, _ := strings.Cut(a, "=")
			return 0, fmt.Errorf("leave %s out of the command line: explain itself says whom %s talks to, one request at a time", name, c.name)
		case strings.HasPrefix(a, "-"):
			if command < 0 && slices.Contains(c.valued, a) {
				i++
			}
		case command < 0 && c.commands != nil:
			if !slices.Contains(c.commands, a) {
				return 0, fmt.Errorf("%s %s is not run by explain: it is a plugin, or does more than ask its server", c.name, a)
			}
			command = i
		}
	}
	if c.commands != nil && command < 0 {
		return 0, fmt.Errorf("the command line has no command of %s", c.name)
	}
	return command, nil
}

// names tells whether an argument is a flag that names a server.
func (c *explainClient) names(argument string) bool {
	name, _, _ := strings.Cut(argument, "=")
	for _, own := range c.own {
		long := strings.HasPrefix(own, "--")
		switch {
		case name == own,
			!long && strings.HasPrefix(argument, own) && !strings.HasPrefix(argument, "--"), // -Htcp://...
			long && c.abbreviates && len(name) > 4 && strings.HasPrefix(own, name):
			return true
		}
	}
	return false
}

// capture is the server that a client talks to in place of its own.
type capture struct {
	explainer  *explainer
	client     *explainClient
	command    string // the client's own word, "run"
	direct     bool   // curl to a socket, which stands for the API
	dir        string
	socket     string
	address    string
	kubeconfig string
	stop       context.CancelFunc

	mu      sync.Mutex
	stopped bool
	result  Explanation
	made    map[string]string // the names of containers that the client was told it made, by id
}

// run runs a client and explains what it sends.
func (x *explainer) run(ctx context.Context, o *explainOptions) (*Explanation, error) {
	line := o.commandLine
	i := slices.IndexFunc(explainClients, func(c explainClient) bool { return c.name == filepath.Base(line[0]) })
	if i < 0 {
		return nil, fmt.Errorf("%q is no client that explain can run (docker, kubectl, curl); give --method, --path and --body", line[0])
	}
	client := &explainClients[i]
	args := line[1:]
	command, err := client.parse(args)
	if err != nil {
		return nil, err
	}
	binary, err := exec.LookPath(line[0])
	if err != nil {
		return nil, fmt.Errorf("%w; without the client give --method, --path and --body", err)
	}
	ctx, stop := context.WithTimeout(ctx, o.clientPatience)
	defer stop()
	s := &capture{explainer: x, client: client, stop: stop, made: map[string]string{}}
	if client.commands != nil {
		s.command = args[command]
	}
	if client.name == "curl" && proxied(args) && s.sockets(args) {
		return nil, errors.New("curl is given either a proxy or a Unix socket")
	}
	s.direct = client.name == "curl" && s.sockets(args)
	s.result.Requests = []Explained{}
	s.result.Client = strings.TrimSpace(client.name + " " + s.command)
	x.setType(client.of)
	end, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	arguments, environment := client.command(s, args, max(command, 0))
	problem := s.start(ctx, binary, arguments, append(slices.Clone(o.environment), environment...), o.stdin)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	if len(s.result.Requests) == 0 && len(s.result.Preliminary) == 0 {
		if problem == "" {
			problem = "it ended"
		}
		return nil, fmt.Errorf("%s sent no request: %s", client.name, problem)
	}
	if i := slices.IndexFunc(s.result.Preliminary, func(p ExplainedPreliminary) bool { return p.Decision != decisionAllow }); i >= 0 {
		s.result.Notes = append(s.result.Notes, "the client may end at "+s.result.Preliminary[i].Request+" already, which it asks first")
	}
	if len(s.result.Requests) == 0 && problem != "" {
		return nil, fmt.Errorf("%s ended before the request that it is for: %s", client.name, problem)
	}
	result := s.result
	return &result, nil
}

// sockets tells whether a curl command line names a Unix socket, which stands for an API.
func (*capture) sockets(args []string) bool {
	return slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, "--unix") || strings.HasPrefix(a, "--abstract") })
}

// open serves on a Unix socket and on loopback until end.
func (s *capture) open(ctx context.Context) (end func(), err error) {
	if s.dir, err = os.MkdirTemp("", "isthmus-explain"); err != nil {
		return nil, err
	}
	remove := func() { _ = os.RemoveAll(s.dir) }
	s.socket, s.kubeconfig = filepath.Join(s.dir, "api.sock"), filepath.Join(s.dir, "kubeconfig")
	socket, err := (&net.ListenConfig{}).Listen(ctx, "unix", s.socket)
	if err != nil {
		remove()
		return nil, err
	}
	loopback, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		_ = socket.Close()
		remove()
		return nil, err
	}
	s.address = loopback.Addr().String()
	if err := writeKubeconfig(s.kubeconfig, s.address); err != nil {
		_, _ = socket.Close(), loopback.Close()
		remove()
		return nil, err
	}
	server := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	var serving sync.WaitGroup
	for _, listener := range []net.Listener{socket, loopback} {
		serving.Go(func() { _ = server.Serve(listener) }) // it ends by Close below
	}
	return func() {
		s.stop()
		_ = server.Close()
		serving.Wait()
		remove()
	}, nil
}

// start runs the client to its end, or until the first request that is not answered. It gives what the client said
// when that was of its own will.
func (s *capture) start(ctx context.Context, binary string, args, environment []string, stdin io.Reader) string {
	var output bytes.Buffer
	c := exec.CommandContext(ctx, binary, args...)
	c.Env, c.Stdin, c.Stdout, c.Stderr = environment, stdin, io.Discard, &output
	if terminal, ok := stdin.(*os.File); ok && term.IsTerminal(int(terminal.Fd())) {
		// A client of a terminal must stay in its foreground, may make it raw, and is not asked when it is stopped.
		if state, err := term.GetState(int(terminal.Fd())); err == nil {
			defer func() { _ = term.Restore(int(terminal.Fd()), state) }() // a terminal that is gone needs no state
		}
	} else {
		c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // some clients are launchers of others
		c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	}
	c.WaitDelay = time.Second
	err := c.Run()
	said := strings.TrimSpace(output.String())
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return "it sent nothing more in time"
	case err != nil && ctx.Err() == nil:
		if said == "" {
			return err.Error()
		}
		return said
	}
	return ""
}

// ServeHTTP explains a request, and answers it where explain knows an answer.
func (s *capture) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, explainBody))
	if err != nil {
		http.Error(w, "the body is too large to be explained", http.StatusRequestEntityTooLarge)
		return
	}
	answer := s.serve(r, body)
	if answer == nil { // the client is stopped; it must not take a cut for something to try again
		<-r.Context().Done()
		return
	}
	if answer.Status == http.StatusSwitchingProtocols {
		attach(w, r)
		return
	}
	for key, values := range answer.Header {
		w.Header()[key] = values
	}
	w.WriteHeader(answer.Status)
	_, _ = w.Write(answer.Body)                                                              // a client that is gone needs no answer
	if answer.Body == nil && answer.Status == http.StatusOK && r.Method == http.MethodPost { // a wait: it goes on until the client is stopped
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
}

// attach takes a docker client's connection as an engine does, and says nothing on it until the client is stopped.
func attach(w http.ResponseWriter, r *http.Request) {
	conn, stream, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "the connection cannot be taken over", http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	_, _ = stream.WriteString("HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
	_ = stream.Flush() // a client that is gone needs no answer
	<-r.Context().Done()
}

// serve explains one request at a time; nil ends the client.
func (s *capture) serve(r *http.Request, body []byte) *modules.Answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil
	}
	c := captured{Method: r.Method, Host: r.Host, Path: r.URL.RequestURI(), Header: r.Header, Body: body}
	c.API = s.client.of != "" || s.direct
	if !c.API && r.Method != http.MethodConnect && !s.ours(r.Host) && local(r.Host) {
		c.API = true
	}
	for id, name := range s.made {
		c.Path = strings.ReplaceAll(c.Path, id, url.PathEscape(name))
	}
	if r.Method == http.MethodConnect {
		c.Path = "/"
	}
	if s.client.of == "" {
		s.explainer.setType(typeOfPath(c.Path))
	}
	explained := s.explainer.explain(r.Context(), c)
	answer, preliminary := s.answer(c, explained)
	if preliminary {
		p := ExplainedPreliminary{Request: explained.Request, Decision: explained.Decision}
		if explained.Decision != decisionAllow {
			p.Reason = explained.Reason
		}
		if !slices.Contains(s.result.Preliminary, p) {
			s.result.Preliminary = append(s.result.Preliminary, p)
		}
		return answer
	}
	if c.API && s.client.of == "" && !s.direct {
		explained.Notes = append(explained.Notes, fmt.Sprintf("%s is taken for the port that stands for the API of %s", r.Host, s.explainer.cluster()))
	}
	s.result.Requests = append(s.result.Requests, explained)
	if answer == nil || len(s.result.Requests) >= maxExplained {
		s.stopped = true
		s.stop()
		return nil
	}
	return answer
}

// maxExplained bounds the requests of one command line.
const maxExplained = 16

// ours tells whether a host is a name of the target.
func (s *capture) ours(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.HasSuffix(strings.ToLower(host), strings.ToLower("."+s.explainer.suffix()))
}

// local tells whether a host is this machine.
func local(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}
