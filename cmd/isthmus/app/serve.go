package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/isthmus-mesh/isthmus/cmd/isthmus/app/telemetry"
	"github.com/isthmus-mesh/isthmus/extproc"
	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/adapter"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/mask"
	"github.com/isthmus-mesh/isthmus/modules/caller"
	"github.com/isthmus-mesh/isthmus/modules/durable"
	"github.com/isthmus-mesh/isthmus/modules/load"
	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/modules/orchestration"
	"github.com/isthmus-mesh/isthmus/modules/policy/audit"
	"github.com/isthmus-mesh/isthmus/modules/proxy"
	"github.com/isthmus-mesh/isthmus/xds/accesslog"
	"github.com/isthmus-mesh/isthmus/xds/envoy"
	"github.com/isthmus-mesh/isthmus/xds/names"
	"github.com/isthmus-mesh/isthmus/xds/peering/join"
	"github.com/isthmus-mesh/isthmus/xds/peering/trust"
)

const (
	// decisionDeadline is below Envoy's message timeout, so that a slow decision is refused in the caller's words.
	decisionDeadline = 8 * time.Second
	// bodyLimit bounds a request that is read whole.
	bodyLimit = 16 << 20
	// drainTime is what running requests get when the gateway ends.
	drainTime = 10 * time.Second
)

// run serves until ctx ends, drains, and ends everything that it started.
func (g *gateway) run(ctx context.Context) error {
	spec := g.started.Gateway.Spec
	auditLog, err := g.openAudit(spec.Audit)
	if err != nil {
		return err
	}
	defer func() {
		if err := auditLog.Close(); err != nil {
			g.log.Error("the audit log could not be closed", "err", err)
		}
	}()
	observer, err := telemetry.New(ctx, telemetry.Config{
		Cluster: g.self.Cluster, Orchestrator: g.dialect.Orchestrator(), Registry: g.registry, Collector: spec.Tracing.OTLP,
		Audit: auditLog, Log: g.log,
	})
	if err != nil {
		return err
	}
	for _, c := range []prometheus.Collector{g.xds, g.tracker, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})} {
		if err := g.registry.Register(c); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	if err := g.openLeases(spec.Leases, observer); err != nil {
		return err
	}
	maskKey, err := openKey(ctx, g.home, maskKind)
	if err != nil {
		return err
	}
	masks := mask.New(maskKey)
	underway := load.New(load.Config{Limits: g.limits, Limited: observer.Limited})
	operations := adapter.New(adapter.Config{
		Cluster: g.self.Cluster, Orchestrator: g.dialect.Orchestrator(), Namespace: namespaceFor(g.started),
		Dialects: adapter.Dialects, Target: g.target, Emulated: g.emulations(), Policy: g.policy, Log: g.log.With("part", "adapter"),
		Load: underway, Mask: masks,
		APIVersion: func() string {
			if system := g.system.Load(); system != nil {
				return system.APIVersion
			}
			return ""
		},
	})
	bridge := adapter.NewBridge(adapter.BridgeConfig{Module: operations, Peer: g.peer, Observer: observer.Bridge(), BodyLimit: bodyLimit})

	// Two lifetimes: what takes new work ends first; what running work stands on ends after the drain.
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	group, serving := errgroup.WithContext(serving)
	intake, stopIntake := context.WithCancel(serving)
	defer stopIntake()

	if err := g.listeners(serving, intake, group, observer, auditLog, underway, masks, operations, bridge); err != nil {
		return err
	}
	group.Go(func() error { return g.renew(serving) })
	group.Go(func() error { return g.followAuthority(serving) })
	group.Go(func() error { return g.keepTrust(serving) })
	group.Go(func() error { return g.watchSystem(serving) })
	group.Go(func() error {
		return envoy.Rotation{RunDir: spec.RunDir, Path: accessLog(spec), MaxSize: int64(spec.Audit.MaxSize) << 20,
			Keep: spec.Audit.Keep, Log: g.log.With("part", "envoy")}.Run(serving)
	})
	group.Go(func() error { return g.keepCompiled(serving) })
	group.Go(func() error {
		manifest.Watch(serving, g.started, g.reread, g.reload)
		return nil
	})
	if g.leases != nil {
		group.Go(func() error { return g.leases.Run(serving) })
	}
	group.Go(func() error { return ignoreCancelled(g.target.Services(serving, g.catalogue.Publish)) })
	g.followState(serving, group)
	envoyEnded, stopEnvoy, err := g.supervise(serving, group)
	if err != nil {
		return err
	}
	g.log.Info("the gateway runs", "identity", g.self.String(), "orchestrator", g.dialect.Orchestrator(),
		"peer", spec.Listeners.Peer, "http", spec.Listeners.HTTP, "admin", spec.Listeners.Admin, "version", version)

	select {
	case <-ctx.Done():
		g.log.Info("the gateway drains", "limit", drainTime)
	case <-serving.Done():
	}
	// Peers hear goodbye and callers find no listener while what runs goes on; then Envoy goes, then what it stood on.
	stopIntake()
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime+5*time.Second)
	defer cancel()
	stopEnvoy()
	select {
	case <-envoyEnded:
	case <-end.Done():
	}
	stopServing()
	errs := []error{group.Wait()}
	bridge.Close()
	if err := observer.Shutdown(end); err != nil { // a collector that is away is no failure of the gateway's
		g.log.Warn("spans are lost", "error", err)
	}
	if g.emulated != nil {
		errs = append(errs, g.emulated.Close())
	}
	errs = append(errs, g.target.Close(), g.home.Close())
	if err := errors.Join(errs...); err != nil {
		return err
	}
	g.log.Info("the gateway has ended")
	return nil
}

// listeners opens every socket before anything is served, so that a taken one ends the start.
func (g *gateway) listeners(serving, intake context.Context, group *errgroup.Group, observer *telemetry.Telemetry,
	auditLog *audit.Log, underway *load.Load, masks *mask.Mask, operations *adapter.Module, bridge *adapter.Bridge) error {
	set := g.started
	audited := func(m modules.Module) modules.Module { return telemetry.Audited{Module: m, Log: auditLog} }
	fallback := unknown{zone: set.Gateway.Metadata.Name + "." + set.Gateway.Spec.Suffix}
	decider := extproc.New(extproc.Config{
		Zone: extproc.NewZone(set.Gateway.Metadata.Name, set.Gateway.Spec.Suffix),
		Modules: []modules.Module{
			audited(operations),
			audited(proxy.New(proxy.Config{Cluster: g.self.Cluster, Suffix: set.Gateway.Spec.Suffix,
				Pods: set.Gateway.Spec.Orchestrator.Type == manifest.Kubernetes, Locator: g.target, Policy: g.policy, Load: underway, StandIn: masks.Name,
				Switcher: g.switcher(), Leases: g.leases})),
			audited(orchestration.New(orchestration.Config{Cluster: g.self.Cluster, Suffix: set.Gateway.Spec.Suffix,
				Catalogue: g.catalogue, Policy: g.policy, ByCaller: g.byCaller})),
		},
		Fallback: audited(fallback), Edge: caller.Admission{Callers: g.callers.Load, Native: g.refuseNative, Settle: g.settle}, Peer: g.peer, Follow: underway.Follow, Deadline: decisionDeadline, Observer: observer, Log: g.log.With("part", "extproc"),
	})
	if err := g.registry.Register(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "isthmus_panics_total",
		Help: "Requests that were refused, or ended, because of a bug that the log tells of."},
		func() float64 { return float64(decider.Panics() + bridge.Panics()) })); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	grpcServer := grpc.NewServer(grpc.MaxRecvMsgSize(2*bodyLimit), grpc.NumStreamWorkers(4))
	decider.Register(grpcServer)

	sockets := map[string]net.Listener{}
	served := []string{names.ExtProcSocket, names.XDSSocket, names.BridgeSocket, names.JoinSocket, names.ALSSocket}
	if g.emulated != nil {
		served = append(served, names.EmulationSocket)
	}
	for _, name := range served {
		listener, err := listen(serving, g.socket(name))
		if err != nil {
			return err
		}
		sockets[name] = listener
	}
	adminListener, err := (&net.ListenConfig{}).Listen(serving, "tcp", set.Gateway.Spec.Listeners.Admin.String())
	if err != nil {
		return fmt.Errorf("admin interface: %w", err)
	}
	admin := &admin{gateway: g, registry: g.registry, log: g.log}
	adminServer := &http.Server{Handler: admin.handler(), ReadHeaderTimeout: 10 * time.Second}
	if at := set.Gateway.Spec.Listeners.Health; at.IsValid() {
		listener, err := (&net.ListenConfig{}).Listen(serving, "tcp", at.String())
		if err != nil {
			return fmt.Errorf("health listener: %w", err)
		}
		serveHTTP(serving, group, &http.Server{Handler: admin.health(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 20 * time.Second}, listener)
	}
	bridgeServer := &http.Server{Handler: bridge, ReadHeaderTimeout: 30 * time.Second, Protocols: new(http.Protocols)}
	bridgeServer.Protocols.SetUnencryptedHTTP2(true)

	joinServer := &http.Server{ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 20 * time.Second, Protocols: new(http.Protocols), Handler: &join.Server{
		Invitations: g.invitations, Self: g.selfBundle, Accept: g.admit, Log: g.log.With("part", "join"),
	}}
	joinServer.Protocols.SetUnencryptedHTTP2(true)

	serveGRPC(serving, group, grpcServer, sockets[names.ExtProcSocket])
	endServer := grpc.NewServer()
	(&accesslog.Server{Ended: observer.HandedOn}).Register(endServer)
	serveGRPC(serving, group, endServer, sockets[names.ALSSocket])
	group.Go(func() error { return g.xds.Serve(serving, sockets[names.XDSSocket]) })
	serveHTTP(serving, group, bridgeServer, sockets[names.BridgeSocket])
	if g.emulated != nil {
		serveHTTP(serving, group, &http.Server{Handler: g.emulated, ReadHeaderTimeout: 10 * time.Second}, sockets[names.EmulationSocket])
	}
	serveHTTP(intake, group, joinServer, sockets[names.JoinSocket])
	serveHTTP(serving, group, adminServer, adminListener)
	group.Go(func() error { return g.lead(intake) })
	group.Go(func() error { return g.fronts.run(intake) })
	return nil
}

// lead does what one replica at a time does, once this one has the lease: to speak with the peers, and to finish what
// the orchestrator was left with. Until then Envoy finds nobody at the peering socket, and peers another replica.
func (g *gateway) lead(ctx context.Context) error {
	return ignoreCancelled(g.leader.Run(ctx, func(ctx context.Context) error {
		g.takeRotation(ctx) // the replica before may have changed it a moment ago
		listener, err := listen(ctx, g.socket(names.PeeringSocket))
		if err != nil {
			return err
		}
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error { return g.node.Run(ctx, listener) })
		if reaper, ok := g.target.(dialect.Reaper); ok {
			group.Go(func() error {
				return ignoreCancelled(reaper.Reap(ctx, func() []string { return g.set.Load().PeerNames() }))
			})
		}
		return group.Wait()
	}))
}

// followState takes in what other replicas and commands change in the state, until ctx ends.
func (g *gateway) followState(ctx context.Context, group *errgroup.Group) {
	log := g.log.With("part", "state")
	for _, follow := range []func(){
		func() { g.joined.follow(ctx, log) },
		func() { g.accesses.follow(ctx, log) },
		func() { g.invitations.Follow(ctx, log) },
		func() { g.home.Watch(ctx, authorityKind, func() { g.takeRotation(ctx) }) },
		func() {
			g.home.Watch(ctx, trust.Bundles, func() {
				g.readBundles()
				g.touch()
			})
		},
	} {
		group.Go(func() error {
			follow()
			return nil
		})
	}
}

// listen opens one of the Unix sockets that only our Envoy may reach. One that a dead process left behind is taken over,
// one that answers is not.
func listen(ctx context.Context, path string) (net.Listener, error) {
	if conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("%s is served by another process", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		listener.Close()
		return nil, err
	}
	return listener, nil
}

// serveGRPC serves until ctx ends. Streams are not waited for: one that ended without a word would be taken for
// consent, one that is cut is a refusal.
func serveGRPC(ctx context.Context, group *errgroup.Group, server *grpc.Server, listener net.Listener) {
	group.Go(func() error { return server.Serve(listener) })
	group.Go(func() error {
		<-ctx.Done()
		server.Stop()
		return nil
	})
}

func serveHTTP(ctx context.Context, group *errgroup.Group, server *http.Server, listener net.Listener) {
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if err := server.Shutdown(end); err != nil {
			return server.Close()
		}
		return nil
	})
}

// supervise starts Envoy where this gateway is to. stop drains and ends it; ended is closed once it has ended, at once
// when someone else runs it.
func (g *gateway) supervise(ctx context.Context, group *errgroup.Group) (ended <-chan struct{}, stop func(), err error) {
	spec := g.started.Gateway.Spec
	path := g.options.envoy
	if path == "" {
		path = spec.Envoy.Path
	}
	options := envoy.Options{Node: g.self.String(), Cluster: g.self.Cluster, RunDir: spec.RunDir, Concurrency: spec.Envoy.Concurrency}
	done := make(chan struct{})
	if path == "" {
		close(done)
		document, err := envoy.Bootstrap(options)
		if err != nil {
			return nil, nil, err
		}
		bootstrap := g.socket("envoy.json")
		if err := durable.Replace(bootstrap, document, 0o600); err != nil {
			return nil, nil, err
		}
		g.log.Info("no Envoy is started here; start one with this bootstrap and --drain-time-s 0", "bootstrap", bootstrap)
		group.Go(func() error { return g.departures.run(ctx, nil) })
		return done, func() {}, nil
	}
	supervisor, err := envoy.New(envoy.Config{Options: options, Binary: path, LogFile: filepath.Join(spec.StateDir, "envoy.log"),
		Log: g.log.With("part", "envoy"), Drain: drainTime})
	if err != nil {
		return nil, nil, err
	}
	if err := g.registry.Register(supervisor); err != nil {
		return nil, nil, fmt.Errorf("register metrics: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	group.Go(func() error {
		defer close(done)
		return ignoreCancelled(supervisor.Run(ctx))
	})
	group.Go(func() error { return g.departures.run(ctx, supervisor) })
	return done, cancel, nil
}

func ignoreCancelled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// accessLog is where Envoy's access log is.
func accessLog(spec manifest.GatewaySpec) string { return filepath.Join(spec.StateDir, "access.log") }

// openAudit opens the audit log and writes that the gateway has started: of what it was doing before, no line tells the
// end.
func (g *gateway) openAudit(config manifest.Audit) (*audit.Log, error) {
	where := audit.Config{
		Path: config.Path, MaxSize: int64(config.MaxSize) << 20, Keep: config.Keep, Lenient: config.OnFailure == manifest.FailureAllow,
		Report: func(err error) {
			if err != nil {
				g.log.Error("audit lines cannot be written", "onFailure", config.OnFailure, "err", err)
				return
			}
			g.log.Info("audit lines are written again")
		},
	}
	if config.Path == manifest.AuditStdout {
		where.Path, where.Output = "", os.Stdout
	}
	log, err := audit.Open(where)
	if err != nil {
		return nil, err
	}
	if err := log.Write(audit.Entry{Phase: audit.Started}); err != nil {
		g.log.Warn("the start of the gateway is not in the audit log", "err", err)
	}
	return log, g.registry.Register(auditLines{log})
}

// dialable tells whether Envoy listens on an address, without a connection that would cross to the peer.
func (g *gateway) dialable(ctx context.Context, address string) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", g.socket(names.AdminSocket))
	}}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://envoy/listeners", nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	list, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(list)) {
		if strings.HasSuffix(strings.TrimSpace(line), "::"+address) {
			return nil
		}
	}
	return fmt.Errorf("no listener on %s", address)
}

func portText(port uint16) string { return strconv.Itoa(int(port)) }

// fingerprint joins names, to tell whether a list has changed.
func fingerprint(list []string) string { return strings.Join(list, ",") }
