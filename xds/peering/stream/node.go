// Package stream carries sessions over gRPC: the server that Envoy brings the peers' calls to, the client that calls
// them through Envoy, and a driver for each peer between the two and the session's machine.
package stream

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/isthmus-mesh/isthmus/xds/peering"
	"github.com/isthmus-mesh/isthmus/xds/peering/session"
	"github.com/isthmus-mesh/isthmus/xds/peering/store"
	"github.com/isthmus-mesh/isthmus/xds/peering/tracker"
)

// Peer is a gateway to peer with, as this gateway's admin named it.
type Peer struct {
	Name     string           // also the label of its peering name, peering.<name>.<suffix>
	Identity peering.Identity // what its certificate must prove and its configuration must claim
	Passive  bool             // never call it, only answer
}

// Config is what a Node needs.
type Config struct {
	Local   peering.Configuration // what this gateway says of itself; Revision and Protocol are filled in
	Tracker *tracker.Tracker
	Store   store.Store
	Logger  *slog.Logger
	Timing  session.Timing // zero is session.DefaultTiming

	EdgeSocket string // this gateway's own Envoy, a Unix socket that speaks HTTP/2 without TLS
	Suffix     string // of the peering names
	// Dial replaces the dialling of EdgeSocket.
	Dial func(context.Context) (net.Conn, error)
	// Jitter replaces the random fraction in [0, 1) that spreads calls.
	Jitter func() float64
}

// Node is this gateway's end of all its peerings.
type Node struct {
	config Config
	boot   string
	local  atomic.Pointer[peering.Configuration]
	saver  *saver

	trustsMu sync.Mutex
	trusts   map[string][]string // by peer: which of its authorities are accepted here

	mu      sync.Mutex
	drivers map[string]*driver
	byID    atomic.Pointer[map[peering.Identity]*driver]
	running context.Context // nil before Run and after it
	group   sync.WaitGroup  // drivers that run
	retired bool
}

// NewNode checks the configuration. Run starts it.
func NewNode(c Config) (*Node, error) {
	if c.Timing == (session.Timing{}) {
		c.Timing = session.DefaultTiming()
	}
	if err := c.Timing.Validate(); err != nil {
		return nil, fmt.Errorf("peering: %w", err)
	}
	if c.Tracker == nil || c.Store == nil || c.Logger == nil {
		return nil, errors.New("peering: a node needs a tracker, a store and a logger")
	}
	if c.Dial == nil {
		if c.EdgeSocket == "" {
			return nil, errors.New("peering: a node needs its Envoy's edge socket")
		}
		c.Dial = func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", c.EdgeSocket)
		}
	}
	if c.Jitter == nil {
		c.Jitter = mathrand.Float64
	}
	boot := make([]byte, 16)
	if _, err := rand.Read(boot); err != nil {
		return nil, fmt.Errorf("peering: %w", err)
	}
	n := &Node{config: c, boot: hex.EncodeToString(boot), drivers: map[string]*driver{},
		saver: newSaver(c.Store, c.Logger), trusts: map[string][]string{}}
	n.byID.Store(&map[peering.Identity]*driver{})
	if err := n.SetLocal(c.Local); err != nil {
		return nil, err
	}
	return n, nil
}

// SetLocal changes what this gateway says of itself; peers in session are told. A configuration that breaks the
// protocol's rules changes nothing.
func (n *Node) SetLocal(c peering.Configuration) error {
	c.Protocol, c.Revision = peering.Protocol, 1
	// Whoever made c may change its slices later.
	c.Features, c.GatewayAddresses = slices.Clone(c.Features), slices.Clone(c.GatewayAddresses)
	c.Orchestrator.APIVersions = slices.Clone(c.Orchestrator.APIVersions)
	if err := configurationToWire(c).Validate(); err != nil {
		return fmt.Errorf("peering: own configuration: %w", err)
	}
	if before := n.local.Load(); before != nil && before.Identity != c.Identity {
		return fmt.Errorf("peering: own configuration: the identity cannot change from %s to %s while running",
			before.Identity, c.Identity)
	}
	n.local.Store(&c)
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, d := range n.drivers {
		d.notice()
	}
	return nil
}

// SetTrusts changes what one peer is told of its own authorities: the fingerprints of those that this gateway accepts.
func (n *Node) SetTrusts(peer string, fingerprints []string) error {
	c := *n.local.Load()
	c.Trusts = fingerprints
	if err := configurationToWire(c).Validate(); err != nil {
		return fmt.Errorf("peering: authorities of peer %s: %w", peer, err)
	}
	n.trustsMu.Lock()
	same := slices.Equal(n.trusts[peer], fingerprints)
	n.trusts[peer] = slices.Clone(fingerprints)
	n.trustsMu.Unlock()
	if same {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if d := n.drivers[peer]; d != nil {
		d.notice()
	}
	return nil
}

// localFor is what this gateway says of itself to one peer.
func (n *Node) localFor(peer string) peering.Configuration {
	c := *n.local.Load()
	n.trustsMu.Lock()
	defer n.trustsMu.Unlock()
	c.Trusts = n.trusts[peer]
	return c
}

// SetPeers makes the peers be these: it begins with the new ones, says goodbye to the ones that are gone and forgets
// them, and begins anew with those that changed. A list that contradicts itself changes nothing.
func (n *Node) SetPeers(peers []Peer) error {
	if err := n.checkPeers(peers); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), saveDeadline)
	defer cancel()
	records, err := n.config.Store.Load(ctx)
	if err != nil {
		// The peers will say it again; not to peer at all would be worse.
		n.config.Logger.Error("peering: what peers said before could not be read whole", "error", err)
	}

	n.mu.Lock()
	defer n.mu.Unlock()
	if n.retired {
		return errors.New("peering: the node has stopped")
	}
	for name, d := range n.drivers {
		if i := slices.IndexFunc(peers, func(p Peer) bool { return p.Name == name }); i < 0 || peers[i] != d.peer {
			n.dismiss(d)
		}
	}
	for _, p := range peers {
		if n.drivers[p.Name] != nil {
			continue
		}
		d, err := newDriver(n, p, recordOf(records, p))
		if err != nil {
			return err
		}
		n.drivers[p.Name] = d
		if n.running != nil {
			n.start(d)
		}
	}
	n.index()
	for _, r := range records {
		if n.drivers[r.Peer] == nil {
			n.saver.forget(r.Peer)
		}
	}
	return nil
}

// recordOf is what a peer said before; what was said under another identity was said by somebody else.
func recordOf(records []store.Record, p Peer) *store.Record {
	for i := range records {
		if records[i].Peer == p.Name && records[i].Configuration.Identity == p.Identity {
			return &records[i]
		}
	}
	return nil
}

func (n *Node) checkPeers(peers []Peer) error {
	names := map[string]bool{}
	identities := map[peering.Identity]string{n.local.Load().Identity: "this gateway"}
	for _, p := range peers {
		if names[p.Name] {
			return fmt.Errorf("peering: two peers are named %q", p.Name)
		}
		if _, err := peering.NewIdentity(p.Identity.TrustDomain, p.Name); err != nil {
			return fmt.Errorf("peering: peer %q: %w", p.Name, err)
		}
		if _, err := peering.NewIdentity(p.Identity.TrustDomain, p.Identity.Cluster); err != nil {
			return fmt.Errorf("peering: peer %q: %w", p.Name, err)
		}
		if other := identities[p.Identity]; other != "" {
			return fmt.Errorf("peering: peer %q has the identity of %s, %s", p.Name, other, p.Identity)
		}
		names[p.Name], identities[p.Identity] = true, "peer "+p.Name
	}
	return nil
}

// dismiss ends a driver; its goodbye is said behind the caller's back. The caller holds mu.
func (n *Node) dismiss(d *driver) {
	delete(n.drivers, d.peer.Name)
	d.entry.Close()
	if d.cancel != nil {
		d.cancel() // conclude follows
	} else {
		n.close(d)
	}
}

// conclude follows the end of a driver that ran: what a peer said is forgotten when nobody is configured by its name.
func (n *Node) conclude(d *driver) {
	n.close(d)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.drivers[d.peer.Name] == nil {
		n.saver.forget(d.peer.Name)
	}
}

func (n *Node) close(d *driver) {
	if err := d.client.close(); err != nil {
		n.config.Logger.Warn("peering: the client did not close", "peer", d.peer.Name, "error", err)
	}
}

// start runs a driver. The caller holds mu.
func (n *Node) start(d *driver) {
	ctx, cancel := context.WithCancel(n.running)
	d.cancel = cancel
	n.group.Go(func() {
		defer n.conclude(d)
		defer cancel()
		d.run(ctx)
	})
}

// index makes the drivers findable by identity. The caller holds mu.
func (n *Node) index() {
	byID := make(map[peering.Identity]*driver, len(n.drivers))
	for _, d := range n.drivers {
		byID[d.peer.Identity] = d
	}
	n.byID.Store(&byID)
}

func (n *Node) driverOf(id peering.Identity) *driver { return (*n.byID.Load())[id] }

// Run serves the peers' calls on the listener and drives every session until ctx ends; then it says goodbye to the
// peers in session and returns nil. It can run once. The listener must be reachable by this gateway's Envoy only:
// whoever reaches it can speak for any peer.
func (n *Node) Run(ctx context.Context, listener net.Listener) error {
	n.mu.Lock()
	if n.running != nil || n.retired {
		n.mu.Unlock()
		return errors.New("peering: a node runs once")
	}
	drives, stop := context.WithCancel(ctx)
	defer stop()
	n.running = drives
	for _, d := range n.drivers {
		n.start(d)
	}
	n.mu.Unlock()

	saves, stopSaving := context.WithCancel(context.WithoutCancel(ctx))
	var saving sync.WaitGroup
	saving.Go(func() { n.saver.run(saves) })

	server := newServer(n)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()

	var err error
	select {
	case <-ctx.Done():
	case err = <-served:
		err = fmt.Errorf("peering: %w", err)
	}
	stop()
	n.retire()
	n.group.Wait()
	shutdown(server)
	stopSaving()
	saving.Wait()
	return err
}

// retire lets no driver start any more.
func (n *Node) retire() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.running, n.retired = nil, true
}

// shutdown lets calls that are being answered end, for a moment.
func shutdown(s *grpc.Server) {
	timer := time.AfterFunc(goodbyeDeadline, s.Stop)
	defer timer.Stop()
	s.GracefulStop()
}
