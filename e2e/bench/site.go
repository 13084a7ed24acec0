package bench

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/e2e/bench/load"
	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/testbed"
)

// Names of arms.
const (
	armQuery  = "query"
	armAccess = "access"
	armPlain  = "E"
	armStock  = "S"
	armAgain  = "E again"
	armList   = "docker ps"
	armDirect = "kube-apiserver"
)

// Ports within the clusters' namespaces.
const (
	backendPort = 8080  // in east
	plainPort   = 16080 // in west, of E; S has the next
	linkPort    = 15450 // in east, of E; S has the next
	edgePort    = 15080 // in west, of the gateway
)

// policy is what east allows west.
const policy = `apiVersion: isthmus.io/v1alpha1
kind: AccessPolicy
metadata: {name: west}
spec:
  from: [{peer: west}]
  allow:
  - verbs: [query, access, get, list]
    objects: [{namespace: default}]
`

// site is clusters, gateways and plain Envoys, ready to be measured.
type site struct {
	options Options
	bed     *testbed.Bed
	mesh    *mesh.Mesh
	west    *testbed.DockerCluster
	east    *testbed.KubernetesCluster
	// plain are the plain pairs.
	plain map[string]plainPair

	divided                  bool
	all, gateways, elsewhere unix.CPUSet
}

// plainPair is the processes of two plain Envoys and of what the far one asks.
type plainPair struct {
	west, east, server *testbed.Process
	address            string // in west
}

func newSite(ctx context.Context, root string, options Options) (*site, error) {
	begin := time.Now()
	s := &site{options: options, plain: make(map[string]plainPair)}
	var err error
	if s.all, s.gateways, s.elsewhere, s.divided, err = split(); err != nil {
		return nil, err
	}
	if s.bed, err = testbed.Up(ctx, testbed.Options{
		Root: root, Name: "bench", Log: options.Log,
		Docker:     []string{"west"},
		Kubernetes: []testbed.KubernetesOptions{{Name: "east", ControlPlaneOnly: true}},
		Links:      [][2]string{{"west", "east"}},
		Keep:       options.Keep,
	}); err != nil {
		return nil, err
	}
	s.west, s.east = s.bed.Docker("west"), s.bed.Kubernetes("east")
	if _, err := s.east.Start(ctx, testbed.Command{Name: "backend", Argv: []string{
		options.Self, BackendCommand, net.JoinHostPort("0.0.0.0", strconv.Itoa(backendPort)),
	}}); err != nil {
		return nil, err
	}
	if err := s.populate(ctx); err != nil {
		return nil, err
	}
	if s.mesh, err = mesh.Up(ctx, mesh.Options{
		Bed: s.bed, Binary: options.Binary, Log: options.Log, Policies: map[string]string{"east": policy},
	}); err != nil {
		return nil, err
	}
	if err := s.startPlain(ctx); err != nil {
		return nil, err
	}
	options.Log.Info("clusters, gateways and plain Envoys are up", "took", time.Since(begin).Round(time.Second))
	return s, nil
}

// requests are the arms that ask the backend in east from west.
func (s *site) requests(_ context.Context) (*group, error) {
	gateways, err := s.gatewayRoles()
	if err != nil {
		return nil, err
	}
	edge := net.JoinHostPort("127.0.0.1", strconv.Itoa(edgePort))
	arms := map[string]*arm{
		armQuery:  s.request(armQuery, objectName+".default.svc.east.isthmus.internal", edge, gateways),
		armAccess: s.request(armAccess, objectName+".default.ctr.east.isthmus.internal:"+strconv.Itoa(backendPort), edge, gateways),
	}
	for _, name := range []string{armPlain, armStock} {
		pair := s.plain[name]
		pids := map[string][]int{roleEnvoyWest: {pair.west.PID}, roleEnvoyEast: {pair.east.PID}}
		if pair.server != nil {
			pids[roleServer] = []int{pair.server.PID}
		}
		arms[name] = s.request(name, objectName+".default.svc.east.isthmus.internal", pair.address, pids)
	}
	again := *arms[armPlain]
	again.name = armAgain
	arms[armAgain] = &again
	return &group{
		name: "requests", connections: 64,
		arms: []*arm{arms[armPlain], arms[armQuery], arms[armStock], arms[armAccess], arms[armAgain]},
		comparisons: []comparison{
			{"service query to E", arms[armQuery], arms[armPlain]},
			{"service query to S", arms[armQuery], arms[armStock]},
			{"container access to E", arms[armAccess], arms[armPlain]},
			{"container access to S", arms[armAccess], arms[armStock]},
			{"S to E", arms[armStock], arms[armPlain]},
			{"E to itself", arms[armAgain], arms[armPlain]},
		},
	}, nil
}

func (s *site) gatewayRoles() (map[string][]int, error) {
	west, east := s.mesh.Gateway("west"), s.mesh.Gateway("east")
	envoyWest, err := west.EnvoyPID()
	if err != nil {
		return nil, err
	}
	envoyEast, err := east.EnvoyPID()
	if err != nil {
		return nil, err
	}
	return map[string][]int{
		roleEnvoyWest: {envoyWest}, roleEnvoyEast: {envoyEast},
		roleIsthmusWest: {west.Process.PID}, roleServer: {east.Process.PID},
	}, nil
}

// request is an arm that asks for a name at an address in west.
func (s *site) request(name, host, address string, pids map[string][]int) *arm {
	return &arm{
		name: name, roles: pids, want: backendBody,
		target: load.Target{
			Dial: func(ctx context.Context) (net.Conn, error) { return s.west.DialIn(ctx, "tcp", address) },
			// What wrk sends as well.
			Request: []byte("GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n"),
		},
		saturate: func(ctx context.Context, duration time.Duration) (int, float64, error) {
			r, err := wrk(ctx, &s.west.Cluster, duration, host, address, "/")
			return r.requests, r.rate, err
		},
	}
}

// confine keeps the gateways, ours and plain, on one processor, and all else on the others, so that saturation is what
// one processor of gateways can do and the load takes nothing of it.
func (s *site) confine() error {
	if !s.divided {
		return nil
	}
	gateways, err := s.gatewayPIDs()
	if err != nil {
		return err
	}
	for _, p := range s.bed.Processes() {
		if p.Running() && !gateways[p.PID] {
			if err := confine(p.PID, s.elsewhere); err != nil {
				return err
			}
		}
	}
	for pid := range gateways {
		if err := confine(pid, s.gateways); err != nil {
			return err
		}
	}
	return confine(os.Getpid(), s.elsewhere)
}

// unconfine undoes confine.
func (s *site) unconfine() error {
	if !s.divided {
		return nil
	}
	pids, err := s.gatewayPIDs()
	if err != nil {
		return err
	}
	for _, p := range s.bed.Processes() {
		if p.Running() {
			pids[p.PID] = true
		}
	}
	pids[os.Getpid()] = true
	for pid := range pids {
		if err := confine(pid, s.all); err != nil {
			return err
		}
	}
	return nil
}

// release undoes confine for this process, whatever became of the others.
func (s *site) release() {
	if s.divided {
		_ = confine(os.Getpid(), s.all) // it was allowed a moment ago
	}
}

func (s *site) gatewayPIDs() (map[int]bool, error) {
	gateways, err := s.gatewayRoles()
	if err != nil {
		return nil, err
	}
	all := make(map[int]bool)
	for _, pids := range gateways {
		for _, pid := range pids {
			all[pid] = true
		}
	}
	for _, pair := range s.plain {
		for _, p := range []*testbed.Process{pair.west, pair.east, pair.server} {
			if p != nil {
				all[p.PID] = true
			}
		}
	}
	return all, nil
}

// startPlain starts the plain Envoys and opens the link for them.
func (s *site) startPlain(ctx context.Context) error {
	link := s.bed.Link("west", "east")
	for _, end := range []*testbed.Cluster{&s.west.Cluster, &s.east.Cluster} {
		for _, direction := range []string{"-in", "-out"} {
			// One rule for all arms: each that a packet passes before its own is kernel time.
			if _, err := end.Exec(ctx, "iptables", "--wait", "-t", "mangle", "-I", link.Interface()+direction, "-p", "tcp",
				"-j", "ACCEPT"); err != nil {
				return fmt.Errorf("open the link: %w", err)
			}
		}
	}
	keys, err := writeKeys(filepath.Join(s.bed.Root, "plain"))
	if err != nil {
		return err
	}
	for i, name := range []string{armPlain, armStock} {
		pair, err := s.startPair(ctx, keys, name, i)
		if err != nil {
			return err
		}
		s.plain[name] = pair
	}
	return nil
}

func (s *site) startPair(ctx context.Context, keys keyFiles, name string, n int) (pair plainPair, err error) {
	far := plainEnvoy{
		Address: s.bed.Link("west", "east").Address("east"), Port: linkPort + n,
		OutAddress: s.east.NodeAddress(), OutPort: backendPort,
		Far: true, Certificate: keys.east, Key: keys.eastKey, Authority: keys.authority, Peer: westID,
	}
	if name == armStock {
		far.Processor = filepath.Join(s.bed.Root, "plain", "noop.sock")
		if pair.server, err = s.east.Start(ctx, testbed.Command{
			Name: "noop", Argv: []string{s.options.Self, NoopCommand, far.Processor},
		}); err != nil {
			return pair, err
		}
	}
	near := plainEnvoy{
		Address: "127.0.0.1", Port: plainPort + n, OutAddress: far.Address, OutPort: far.Port,
		Certificate: keys.west, Key: keys.westKey, Authority: keys.authority, Peer: eastID,
	}
	pair.address = net.JoinHostPort(near.Address, strconv.Itoa(near.Port))
	for _, e := range []struct {
		config  plainEnvoy
		cluster *testbed.Cluster
		process **testbed.Process
	}{{far, &s.east.Cluster, &pair.east}, {near, &s.west.Cluster, &pair.west}} {
		path := filepath.Join(s.bed.Root, "plain", name+"-"+e.cluster.Name+".yaml")
		if err := e.config.write(path); err != nil {
			return pair, err
		}
		if *e.process, err = e.cluster.Start(ctx, testbed.Command{Name: "plain-" + name, Argv: []string{
			s.bed.Tools().Envoy, "--config-path", path, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning",
		}}); err != nil {
			return pair, err
		}
	}
	return pair, nil
}
