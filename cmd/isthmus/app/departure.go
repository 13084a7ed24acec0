package app

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/xds/envoy"
	"github.com/isthmus-mesh/isthmus/xds/names"
	"github.com/isthmus-mesh/isthmus/xds/snapshot"
)

const (
	// cutting is how long Envoy lets connections of a filter chain, or a listener, live that is gone.
	cutting = time.Second
	// withdrawal is how long Envoy's routes and clusters of a peer that is gone may take to go: what is severed after it
	// is not dialled again.
	withdrawal = 500 * time.Millisecond
)

// departures sees peers go, and ends what callers of this cluster still have under way at them. What peers have under way
// here goes with their filter chain.
type departures struct {
	gateway *gateway
	dialled []snapshot.Peer
	gone    chan far
}

// far is where connections to peers that are gone lead.
type far struct {
	addresses []string // that no peer has any more
	marks     []int    // of the tunnels that they left
}

func newDepartures(g *gateway) *departures {
	return &departures{gateway: g, gone: make(chan far, 16)}
}

// see is told of the peers in Envoy's configuration each time that it is made.
func (d *departures) see(peers []snapshot.Peer) {
	var kept []string
	for _, p := range peers {
		kept = append(kept, p.Addresses...)
	}
	var gone far
	for _, p := range d.dialled {
		if slices.ContainsFunc(peers, func(q snapshot.Peer) bool { return q.Name == p.Name }) {
			continue
		}
		gone.addresses = append(gone.addresses,
			slices.DeleteFunc(slices.Clone(p.Addresses), func(a string) bool { return slices.Contains(kept, a) })...)
		if p.Tunnels.Accepted {
			gone.marks = append(gone.marks, names.TunnelMark(p.Name))
		}
	}
	d.dialled = slices.Clone(peers)
	if len(gone.addresses)+len(gone.marks) == 0 {
		return
	}
	select {
	case d.gone <- gone:
	default: // sixteen departures wait
		d.gateway.log.Warn("peers go faster than what callers have open at them can be ended", "addresses", gone.addresses)
	}
}

// run severs, until ctx ends.
func (d *departures) run(ctx context.Context, envoy *envoy.Supervisor) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case gone := <-d.gone:
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(withdrawal):
			}
			addresses, err := resolve(ctx, gone.addresses)
			severed := 0
			if envoy == nil {
				err = errors.Join(err, errors.New("Envoy is not a process of this gateway"))
			} else {
				n, severErr := envoy.Sever(addresses, gone.marks...)
				severed, err = n, errors.Join(err, severErr)
			}
			if err != nil {
				d.gateway.log.Warn("what callers here have under way at a peer that is gone may go on until they end it", "err", err)
			} else if severed > 0 {
				d.gateway.log.Info("connections to a peer that is gone were ended", "connections", severed)
			}
		}
	}
}

// resolve gives all that the addresses of a peer mean now.
func resolve(ctx context.Context, addresses []string) ([]netip.AddrPort, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var resolved []netip.AddrPort
	var errs []error
	for _, a := range addresses {
		host, portName, err := net.SplitHostPort(a)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		port, err := net.DefaultResolver.LookupPort(ctx, "tcp", portName)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, ip := range ips {
			resolved = append(resolved, netip.AddrPortFrom(ip.Unmap(), uint16(port))) //nolint:gosec // LookupPort gives ports
		}
	}
	return resolved, errors.Join(errs...)
}

// departed waits until nothing of a peer passes any more.
func (g *gateway) departed(ctx context.Context, peer string) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	for g.admits(ctx, peer) {
		select {
		case <-ctx.Done():
			return fault.New(fault.Timeout, "%s is no peer any more, but Envoy still has its way in; the gateway's log says why", peer)
		case <-time.After(20 * time.Millisecond):
		}
	}
	select {
	case <-ctx.Done():
	case <-time.After(cutting):
	}
	return nil
}

// errAdmitted ends the probe's handshake once it has shown what it was for.
var errAdmitted = errors.New("the listener has a filter chain for this peer")

// admits tells whether Envoy has a way in for a peer, by asking for it as the peer would.
func (g *gateway) admits(ctx context.Context, peer string) bool {
	at := g.set.Load().Gateway.Spec.Listeners.Peer
	if at.Addr().IsUnspecified() {
		loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
		if at.Addr().Is6() {
			loopback = netip.IPv6Loopback()
		}
		at = netip.AddrPortFrom(loopback, at.Port())
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{
		ServerName: names.LinkHost(peer, g.self.TrustDomain), NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13,
		InsecureSkipVerify: true, //nolint:gosec // nothing is said to whoever answers
		VerifyConnection:   func(tls.ConnectionState) error { return errAdmitted },
	}}
	conn, err := dialer.DialContext(ctx, "tcp", at.String())
	if err == nil {
		_ = conn.Close()
	}
	return err == nil || errors.Is(err, errAdmitted)
}
