package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/caller"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/load"
	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/modules/orchestration"
	"github.com/isthmus-mesh/isthmus/modules/policy"
	"github.com/isthmus-mesh/isthmus/modules/proxy/lease"
	"github.com/isthmus-mesh/isthmus/modules/state"
	"github.com/isthmus-mesh/isthmus/xds/names"
	"github.com/isthmus-mesh/isthmus/xds/peering"
	"github.com/isthmus-mesh/isthmus/xds/peering/join"
	"github.com/isthmus-mesh/isthmus/xds/peering/store"
	"github.com/isthmus-mesh/isthmus/xds/peering/stream"
	"github.com/isthmus-mesh/isthmus/xds/peering/tracker"
	"github.com/isthmus-mesh/isthmus/xds/peering/trust"
	"github.com/isthmus-mesh/isthmus/xds/resource"
	"github.com/isthmus-mesh/isthmus/xds/server"
)

// gatewayOptions are the flags of isthmus gateway.
type gatewayOptions struct {
	config   []string
	envoy    string
	check    bool
	logLevel slog.LevelVar
}

func gatewayCommand() *cobra.Command {
	options := &gatewayOptions{}
	c := &cobra.Command{
		Use:   "gateway",
		Short: "Run the gateway of this cluster",
		Long: "Runs the gateway: the xDS control plane, the external-processing server, the bridge, the peering service and\n" +
			"the Docker front, on Unix sockets beside an Envoy, which --envoy starts and supervises. The documents are read\n" +
			"again when they change; wrong ones are reported and the old ones stay. SIGTERM drains and ends.",
		Example: "  isthmus gateway --config west.yaml --envoy envoy\n  isthmus gateway --config west.yaml --check",
		Args:    cobra.NoArgs,
	}
	config := configFlag(c)
	level := "info"
	c.Flags().StringVar(&options.envoy, "envoy", "", "Envoy binary to start and supervise (a path, or a name in PATH); overrides spec.envoy.path")
	c.Flags().BoolVar(&options.check, "check", false, "validate the documents, print what would be served, and end")
	c.Flags().StringVar(&level, "log-level", level, "debug, info, warn or error")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := options.logLevel.UnmarshalText([]byte(level)); err != nil {
			return fmt.Errorf("--log-level: %w", err)
		}
		options.config = *config
		set, err := manifest.Load(options.config...)
		if err != nil {
			return err
		}
		if options.check {
			return checkDocuments(cmd.Context(), cmd.OutOrStdout(), set)
		}
		log := slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: &options.logLevel}))
		log = log.With("cluster", set.Gateway.Metadata.Name)
		g, err := newGateway(cmd.Context(), set, options, log)
		if err != nil {
			return err
		}
		return g.run(cmd.Context())
	}
	return c
}

// gateway is everything that one isthmus gateway is.
type gateway struct {
	options     *gatewayOptions
	log         *slog.Logger
	started     *manifest.Set // what this process started with: its directories and orchestrator stay
	set         atomic.Pointer[manifest.Set]
	engine      atomic.Pointer[policy.Engine]
	callers     atomic.Pointer[caller.Authenticator]
	rejected    atomic.Pointer[string] // the error of the documents as they are now; nil when they are in force
	self        peering.Identity
	authority   atomic.Pointer[trust.Authority] // nil until the admin has supplied it
	vault       *vault                          // holds the own authority
	rotator     *trust.Rotator                  // nil where the admin supplies the authority
	material    atomic.Pointer[string]          // why what the admin supplies is not in use; nil when it is
	taken       trust.Material                  // in use; for followAuthority only
	vouching    sync.Mutex                      // holds vouchAnew
	sent        sync.Map                        // sentBundle, by peer
	compiled    atomic.Pointer[compilation]
	told        *compilation // of which peers were told; for keepTrust only
	renewer     *trust.Renewer
	home        state.Home
	leader      *state.Singleton // of the replicas that share the home, one speaks with the peers
	bundles     *trust.Peers
	dialect     dialect.Dialect
	target      dialect.Cluster
	emulation   neutral.Orchestrator // for whose callers emulated stands before the target
	emulated    dialect.Emulated     // nil for none
	system      atomic.Pointer[neutral.System]
	catalogue   *orchestration.Catalogue
	tracker     *tracker.Tracker
	node        *stream.Node
	xds         *server.Server
	accesses    *accesses
	replica     string      // its name among those that share the home
	leases      *lease.Book // nil where the orchestrator's dialect switches no network modes
	joined      *joinedPeers
	invitations *join.Invitations
	partings    partings
	fronts      *fronts
	departures  *departures
	registry    *prometheus.Registry
	dirty       chan struct{} // a wish to compile again
	reread      chan struct{} // a wish to read the documents again

	trustedBundles atomic.Pointer[[]trust.PeerBundle] // as they were read last
	certificates   *apiCertificates                   // of the TCP listeners of peers' APIs

	pairMu sync.Mutex
	pair   trust.Pair
}

// newGateway opens what the gateway stands on; run serves.
func newGateway(ctx context.Context, set *manifest.Set, options *gatewayOptions, log *slog.Logger) (*gateway, error) {
	spec := set.Gateway.Spec
	if err := os.MkdirAll(spec.StateDir, 0o700); err != nil {
		return nil, err
	}
	// Local tools reach the sockets that are for them; who may use which is each socket's own mode.
	if err := os.MkdirAll(spec.RunDir, 0o711); err != nil {
		return nil, err
	}
	replica, err := replicaName(spec.RunDir)
	if err != nil {
		return nil, err
	}
	g := &gateway{
		options: options, log: log, replica: replica, catalogue: orchestration.NewCatalogue(), tracker: tracker.New(),
		registry: prometheus.NewRegistry(), dirty: make(chan struct{}, 1), reread: make(chan struct{}, 1),
		xds: server.New(server.Config{Log: log.With("part", "xds")}), partings: partings{of: map[string]int{}},
	}
	if g.home, err = awaitHome(ctx, set, replica, log); err != nil {
		return nil, err
	}
	if g.joined, err = openJoined(ctx, g.home, g.readAgain); err != nil {
		return nil, err
	}
	if set, err = g.joined.load(set.Paths()); err != nil {
		return nil, err
	}
	g.started = set
	g.leader = &state.Singleton{Lease: g.home.Lease(actingLease), Log: log.With("part", "state")}
	if g.self, err = identity(set); err != nil {
		return nil, err
	}
	if g.vault, err = openVault(ctx, g.home, set, spec.RunDir); err != nil {
		return nil, err
	}
	g.bundles = trust.OpenPeers(g.home, g.self)
	g.trustedBundles.Store(new([]trust.PeerBundle))
	g.readBundles()
	g.certificates = newAPICertificates(g.authority.Load, spec.Suffix)
	if err := g.connect(ctx, set); err != nil {
		return nil, err
	}
	if err := g.openAuthority(ctx, set); err != nil {
		return nil, err
	}
	if g.node, err = stream.NewNode(stream.Config{
		Local: g.configuration(), Tracker: g.tracker, Store: store.New(g.home, g.leader.Number), Logger: log.With("part", "peering"),
		EdgeSocket: g.socket(names.EdgeSocket), Suffix: spec.Suffix,
	}); err != nil {
		return nil, err
	}
	if g.accesses, err = openAccesses(ctx, g.home, g.touch); err != nil {
		return nil, err
	}
	if g.invitations, err = join.OpenInvitations(ctx, g.home, g.touch); err != nil {
		return nil, err
	}
	g.fronts, g.departures = newFronts(g), newDepartures(g)
	if err := g.adopt(set); err != nil {
		return nil, err
	}
	return g, nil
}

// adopt takes documents into force.
func (g *gateway) adopt(set *manifest.Set) error {
	engine, err := policy.Compile(set.Policies)
	if err != nil {
		return err
	}
	callers := g.callers.Load()
	if before := g.set.Load(); before == nil || !reflect.DeepEqual(before.Gateway.Spec.Callers, set.Gateway.Spec.Callers) {
		if callers, err = newCallers(set.Gateway.Spec, g.target, g.log.With("part", "callers")); err != nil {
			return err
		}
	}
	var peers []stream.Peer
	for _, p := range set.Peers {
		if p.Spec.Suspended {
			continue
		}
		id, err := peering.NewIdentity(p.Spec.TrustDomain, p.Metadata.Name)
		if err != nil {
			return err
		}
		peers = append(peers, stream.Peer{Name: p.Metadata.Name, Identity: id,
			Passive: len(p.Spec.Addresses) == 0 && p.Spec.ReverseTunnel.Role != manifest.TunnelAccept})
	}
	if err := g.node.SetPeers(peers); err != nil {
		return err
	}
	g.engine.Store(engine)
	g.callers.Store(callers)
	g.set.Store(set)
	g.rejected.Store(nil)
	for _, warning := range set.Warnings {
		g.log.Warn("documents", "warning", warning.Error())
	}
	if n := len(g.accesses.list()); n > 0 && !set.Gateway.Spec.Callers.Open(manifest.CallersOfAccesses) {
		g.log.Warn("accesses are open, and nobody may use them: spec.callers.unauthenticated has no accesses", "accesses", n)
	}
	g.fronts.changed()
	g.touch()
	return nil
}

// reload is called when the documents changed; the old ones stay in force when the new ones are wrong.
func (g *gateway) reload(set *manifest.Set, err error) {
	if err == nil {
		err = g.unchangeable(set)
	}
	if err == nil {
		err = g.adopt(set)
	}
	if err != nil {
		text := err.Error()
		g.rejected.Store(&text)
		g.log.Error("the changed documents are not taken; the old ones stay", "err", err)
		return
	}
	g.log.Info("the changed documents are in force")
}

// unchangeable refuses changes that need a restart.
func (g *gateway) unchangeable(set *manifest.Set) error {
	old, now := g.started.Gateway, set.Gateway
	var fields []string
	for _, f := range []struct {
		name string
		same bool
	}{
		{"metadata.name", old.Metadata.Name == now.Metadata.Name},
		{"spec.suffix", old.Spec.Suffix == now.Spec.Suffix},
		{"spec.trustDomain", old.Spec.TrustDomain == now.Spec.TrustDomain},
		{"spec.stateDir", old.Spec.StateDir == now.Spec.StateDir},
		{"spec.runDir", old.Spec.RunDir == now.Spec.RunDir},
		{"spec.orchestrator", old.Spec.Orchestrator == now.Spec.Orchestrator},
		{"spec.listeners.admin", old.Spec.Listeners.Admin == now.Spec.Listeners.Admin},
		{"spec.listeners.health", old.Spec.Listeners.Health == now.Spec.Listeners.Health},
		{"spec.trust", old.Spec.Trust == now.Spec.Trust},
		{"spec.envoy", old.Spec.Envoy == now.Spec.Envoy},
		{"spec.audit", old.Spec.Audit == now.Spec.Audit},
		{"spec.state", reflect.DeepEqual(old.Spec.State, now.Spec.State)},
		{"spec.tracing", old.Spec.Tracing == now.Spec.Tracing},
	} {
		if !f.same {
			fields = append(fields, f.name)
		}
	}
	if len(fields) > 0 {
		return fmt.Errorf("a change of %s needs a restart of the gateway", strings.Join(fields, ", "))
	}
	return nil
}

// touch wishes for a compilation; wishes that come while one is pending are one.
func (g *gateway) touch() {
	select {
	case g.dirty <- struct{}{}:
	default:
	}
}

func (g *gateway) socket(name string) string { return g.started.Gateway.Spec.RunDir + "/" + name }

func (g *gateway) policy() modules.Policy { return judge{g.engine.Load()} }

// byCaller tells whether it depends on the caller whether a peer may query a service.
func (g *gateway) byCaller(peer string, service neutral.Service) bool {
	return len(g.engine.Load().Queries(service, []string{peer}).ByCaller) > 0
}

// peer finds the peer behind a SPIFFE identity.
func (g *gateway) peer(spiffe string) modules.Peer {
	for _, p := range g.set.Load().Peers {
		id := peering.Identity{TrustDomain: p.Spec.TrustDomain, Cluster: p.Metadata.Name}
		if p.Spec.Suspended || id.String() != spiffe {
			continue
		}
		peer := modules.Peer{Name: p.Metadata.Name}
		if status, ok := g.tracker.Peer(peer.Name); ok && status.Configuration != nil {
			peer.Orchestrator = status.Configuration.Orchestrator.Type
			peer.Ready = status.Routable()
		}
		return peer
	}
	return modules.Peer{}
}

// limits are what the documents let a peer do at a time.
func (g *gateway) limits(peer string) load.Limits {
	p, _ := g.set.Load().Peer(peer)
	l := p.Spec.Limits
	return load.Limits{
		Share: load.Share{Operations: l.ConcurrentOperations, Streams: l.ConcurrentStreams}, Body: int64(l.BodySize) << 20,
		Caller: load.Share{Operations: l.Caller.ConcurrentOperations, Streams: l.Caller.ConcurrentStreams},
	}
}

func (g *gateway) knows(peer string) bool {
	_, ok := g.set.Load().Peer(peer)
	return ok
}

// listens names the gateway's own listener on an address, if it has one there.
func (g *gateway) listens(address string) string {
	wanted, err := netip.ParseAddrPort(address)
	if err != nil {
		return ""
	}
	set := g.set.Load()
	listeners := set.Gateway.Spec.Listeners
	own := map[string]netip.AddrPort{"listeners.peer": listeners.Peer, "listeners.http": listeners.HTTP, "listeners.admin": listeners.Admin,
		"listeners.health": listeners.Health}
	for _, p := range set.Peers {
		own["api.listen of peer "+p.Metadata.Name] = p.Spec.API.Listen
	}
	for name, has := range own {
		if has.IsValid() && has.Port() == wanted.Port() && (has.Addr() == wanted.Addr() || has.Addr().IsUnspecified() || wanted.Addr().IsUnspecified()) {
			return name
		}
	}
	return ""
}

// configuration is what peers are told of this cluster.
func (g *gateway) configuration() peering.Configuration {
	c := peering.Configuration{
		Identity: g.self, Software: version,
		Orchestrator: peering.Orchestrator{Type: g.dialect.Orchestrator()},
		Features:     []string{"service-query", "container-operation", "container-access", peering.FeatureTrustBundle},
	}
	if authority := g.authority.Load(); authority != nil {
		c.Bundle = authority.Signed()
	}
	if system := g.system.Load(); system != nil {
		c.Orchestrator.Version = system.Version
		if system.APIVersion != "" {
			c.Orchestrator.APIVersions = []string{system.APIVersion}
		}
	}
	if snapshot := g.catalogue.Snapshot(); snapshot.Synced {
		c.CatalogueVersion = fmt.Sprint(snapshot.Version)
	}
	return c
}

// watchSystem asks the orchestrator who it is, until ctx ends: often until it answers, then now and then.
func (g *gateway) watchSystem(ctx context.Context) error {
	wait := time.Duration(0)
	var checked string // the peers that the account's rights were last held against
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		ask, cancel := context.WithTimeout(ctx, 10*time.Second)
		system, err := g.target.System(ask)
		cancel()
		before := g.system.Load()
		switch {
		case err != nil && ctx.Err() == nil:
			if wait != 2*time.Second {
				g.log.Warn("the orchestrator does not answer; trying again", "err", err)
			}
			g.system.Store(nil)
			wait = 2 * time.Second
			continue
		case err == nil:
			g.system.Store(&system)
			wait = 15 * time.Second
		}
		if before == nil || before.Version != system.Version {
			g.log.Info("the orchestrator answers", "type", g.dialect.Orchestrator(), "version", system.Version)
			if err := g.node.SetLocal(g.configuration()); err != nil {
				g.log.Error("peers could not be told of the orchestrator", "err", err)
			}
		}
		if peers := activePeers(g.set.Load()); err == nil && (before == nil || fingerprint(peers) != checked) {
			checked = fingerprint(peers)
			g.warnOfRights(ctx, peers)
		}
	}
}

// warnOfRights says in the log what the gateway's account at its orchestrator lacks.
func (g *gateway) warnOfRights(ctx context.Context, peers []string) {
	account, ok := g.target.(dialect.Rights)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, rightsPatience)
	defer cancel()
	found, err := account.Rights(ctx, peers)
	if err != nil {
		g.log.Warn("the rights of the gateway's account are not known", "err", err)
		return
	}
	for _, missing := range found.Missing {
		g.log.Warn("the gateway's account lacks a right", "right", missing)
	}
}

// listening waits until Envoy has taken an access, so that who opened it can connect at once, or has refused it since
// the given time.
func (g *gateway) listening(ctx context.Context, access AccessState, since time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		if why := g.xds.Refusal(resource.AccessListener(access.Name), since); why != "" {
			return fault.New(fault.Conflict, "Envoy cannot listen on %s; choose another port with --local: %s", access.Listen, why)
		}
		err := g.dialable(ctx, access.Listen)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fault.Wrap(fault.Timeout, errors.Join(err, ctx.Err()), "Envoy has not opened %s; isthmus access list "+
				"shows the access, the gateway's log says why", access.Listen)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
