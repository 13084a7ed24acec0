package outage

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/relay"
	"github.com/isthmus-mesh/isthmus/e2e/testbed"
)

// caller is the cluster from which targets are accessed. Nothing in it dies.
const caller = "south"

// policy lets the caller into a cluster's targets.
const policy = `apiVersion: isthmus.io/v1alpha1
kind: AccessPolicy
metadata: {name: outage}
spec:
  from: [{peer: south}]
  networkSwitch: restore
  allow:
  - verbs: [access, switch-network]
    objects: [{}]
`

// engine is an orchestrator that can be killed.
type engine interface {
	Crash(ctx context.Context) error
	Recover(ctx context.Context) error
	LoadImage(ctx context.Context, archive string) error
}

// site is a cluster whose targets are accessed.
type site struct {
	name    string
	bed     *testbed.Bed
	engine  engine
	cluster *testbed.Cluster
	gateway *mesh.Gateway
	caller  *mesh.Gateway
	calls   *relay.Lifeline // from its gateway to its orchestrator
	link    *relay.Link     // from the caller's gateway to its own
	made    sync.Map        // the names of targets that are there
}

// stage is three clusters and their gateways.
type stage struct {
	bed   *testbed.Bed
	sites map[string]*site
}

// open starts everything under root.
func open(ctx context.Context, root string, log *slog.Logger) (*stage, error) {
	binary, err := mesh.RaceBinary("../..")
	if err != nil {
		return nil, err
	}
	bed, err := testbed.Up(ctx, testbed.Options{Root: root, Name: "outage", Log: log, Docker: []string{"west", caller}, Plain: []string{caller},
		Kubernetes: []testbed.KubernetesOptions{{Name: "east"}}, Links: [][2]string{{caller, "west"}, {caller, "east"}}})
	if err != nil {
		return nil, err
	}
	s := &stage{bed: bed, sites: map[string]*site{}}
	for name, engine := range map[string]engine{"west": bed.Docker("west"), "east": bed.Kubernetes("east")} {
		s.sites[name] = &site{name: name, bed: bed, engine: engine, cluster: bed.Cluster(name)}
		if err := engine.LoadImage(ctx, bed.Tools().PostgresImage); err != nil {
			return nil, err
		}
	}
	m, err := mesh.Up(ctx, mesh.Options{Bed: bed, Binary: binary, Log: log, Policies: map[string]string{"west": policy, "east": policy},
		Linger: time.Second, Through: s.through, Before: s.before})
	if err != nil {
		return nil, err
	}
	for name, site := range s.sites {
		site.gateway, site.caller = m.Gateway(name), m.Gateway(caller)
	}
	return s, nil
}

// through puts a link before a site, in the caller's namespace.
func (s *stage) through(ctx context.Context, bed *testbed.Bed, from, to, target string) (string, error) {
	if from != caller {
		return target, nil
	}
	cluster := bed.Cluster(from)
	listener, err := cluster.ListenIn(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	s.sites[to].link = relay.LinkBetween(listener, func(ctx context.Context) (net.Conn, error) { return cluster.DialIn(ctx, "tcp", target) })
	return listener.Addr().String(), nil
}

// before puts a line between a site's gateway and its orchestrator.
func (s *stage) before(ctx context.Context, bed *testbed.Bed, name, direct string) (string, error) {
	site := s.sites[name]
	if site == nil {
		return direct, nil
	}
	if docker := bed.Docker(name); docker != nil {
		path := filepath.Join(docker.Dir, "line.sock")
		listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
		if err != nil {
			return "", err
		}
		site.calls = relay.NewLifeline(listener, &url.URL{Scheme: "http", Host: "docker"}, &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", direct)
			}})
		return path, nil
	}
	config, err := clientcmd.BuildConfigFromFlags("", bed.Kubernetes(name).HostKubeconfig)
	if err != nil {
		return "", err
	}
	account, err := clientcmd.BuildConfigFromFlags("", direct)
	if err != nil {
		return "", err
	}
	config = rest.AnonymousClientConfig(config)
	config.BearerToken, config.BearerTokenFile = account.BearerToken, account.BearerTokenFile // none is shown on a line without TLS
	transport, err := rest.TransportFor(config)
	if err != nil {
		return "", err
	}
	target, err := url.Parse(config.Host)
	if err != nil {
		return "", err
	}
	listener, err := site.cluster.ListenIn(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	site.calls = relay.NewLifeline(listener, target, transport)
	kubeconfig, err := clientcmd.LoadFromFile(direct)
	if err != nil {
		return "", err
	}
	for key := range kubeconfig.Clusters {
		kubeconfig.Clusters[key] = &clientcmdapi.Cluster{Server: "http://" + listener.Addr().String()}
	}
	path := direct + ".line"
	return path, clientcmd.WriteToFile(*kubeconfig, path)
}

// lease is what a site's gateway tells of one.
type lease struct{ Target, Phase, Step, Failure string }

func (s *site) leases(ctx context.Context) ([]lease, error) {
	var all []lease
	err := s.gateway.Get(ctx, "/leases", &all)
	return all, err
}

// leasesOf are those of a target.
func (s *site) leasesOf(ctx context.Context, target target) ([]lease, error) {
	all, err := s.leases(ctx)
	return slices.DeleteFunc(all, func(l lease) bool { return !strings.Contains(l.Target, target.name) }), err
}

// step is the line of the journal that was written last.
func (s *site) step(ctx context.Context) string {
	all, err := s.leases(ctx)
	if err != nil || len(all) == 0 {
		return ""
	}
	return all[0].Step
}

// kubectl is east's own.
func (s *site) kubectl(ctx context.Context, arguments ...string) (string, error) {
	return s.bed.Kubernetes(s.name).Kubectl(ctx, arguments...)
}

// docker is west's own.
func (s *site) docker(ctx context.Context, arguments ...string) (string, error) {
	return s.bed.Docker(s.name).Run(ctx, arguments...)
}

// object is what an orchestrator tells of one object, without what need not be as before.
func object(raw string, without ...string) (string, error) {
	var value any
	if err := json.Unmarshal([]byte(raw), &value); err != nil {
		return "", fmt.Errorf("%w: %.200s", err, raw)
	}
	drop(value, without)
	text, err := json.MarshalIndent(value, "", " ")
	return string(text), err
}

func drop(value any, without []string) {
	switch value := value.(type) {
	case []any:
		for _, element := range value {
			drop(element, without)
		}
	case map[string]any:
		for key := range value {
			if slices.Contains(without, key) {
				delete(value, key)
			} else {
				drop(value[key], without)
			}
		}
	}
}
