package kubernetes

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"k8s.io/client-go/transport"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
)

// A peer is a user and two groups of the cluster, which its administrator gives rights to: all peers, and this one. The
// API server adds system:authenticated.
const (
	peersGroup   = "isthmus:peers"
	peerIdentity = "isthmus:peer:" // of the user and the group of one peer
)

func peerGroups(peer string) []string { return []string{peersGroup, peerIdentity + peer} }

// Impersonation gives the headers by which a request acts as the actor's peer.
func (c *Cluster) Impersonation(actor dialect.Actor) http.Header {
	if !c.impersonate {
		return nil
	}
	header := http.Header{}
	impersonatePeer(header, actor)
	return header
}

func impersonatePeer(header http.Header, actor dialect.Actor) {
	header.Set(transport.ImpersonateUserHeader, peerIdentity+actor.Peer)
	header[transport.ImpersonateGroupHeader] = peerGroups(actor.Peer)
}

type ownKey struct{}

// asGateway marks a change as the gateway's own.
func asGateway(ctx context.Context) context.Context { return context.WithValue(ctx, ownKey{}, true) }

// impersonator makes every request act as the peer that its context names. It stands below all clients, exec and attach
// included. Without a peer the gateway reads for itself, the catalogue and where containers are; a change without one
// has lost whom it is for.
type impersonator struct{ next http.RoundTripper }

var errNobody = errors.New("a change of the cluster is for no peer")

// RoundTrip sends the request in the peer's name.
func (i impersonator) RoundTrip(r *http.Request) (*http.Response, error) {
	actor, ok := dialect.ActorOf(r.Context())
	if own, _ := r.Context().Value(ownKey{}).(bool); own {
		ok = false
	} else if !ok && r.Method != http.MethodGet {
		return nil, errNobody
	}
	out := r.Clone(r.Context())
	for key := range out.Header {
		if strings.HasPrefix(strings.ToLower(key), strings.ToLower(impersonation)) {
			delete(out.Header, key)
		}
	}
	if ok {
		impersonatePeer(out.Header, actor)
	}
	return i.next.RoundTrip(out)
}

// WrappedRoundTripper gives client-go the transport below.
func (i impersonator) WrappedRoundTripper() http.RoundTripper { return i.next }
