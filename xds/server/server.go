// Package server is the control plane: delta ADS for the gateway's Envoy on a Unix socket.
//
//	s := server.New(server.Config{Log: log})
//	registry.MustRegister(s)                  // metrics
//	go s.Serve(ctx, listener)                 // until ctx is done
//	snap, err := snapshot.Build(model)        // again whenever the model changed
//	s.Set(snap)                               // pushes what differs
//	s.Status()                                // for the admin page
package server

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/config"
	xdsserverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/isthmus-mesh/isthmus/xds/snapshot"
)

// Config is what a Server needs.
type Config struct {
	Log *slog.Logger
}

// Server serves one gateway's configuration. Its methods are safe for concurrent use.
type Server struct {
	store    *store
	observer *observer
	log      *slog.Logger
}

// New makes a server. It answers no Envoy before Set.
func New(c Config) *Server {
	return &Server{store: newStore(), observer: newObserver(c.Log), log: c.Log}
}

// Set serves a snapshot from now on and pushes what differs from the one before.
func (s *Server) Set(next *snapshot.Snapshot) {
	changed := s.store.set(next)
	s.observer.set(next, changed)
	if len(changed) > 0 {
		s.log.Debug("configuration set", "version", next.Version, "types", shortAll(changed))
	}
}

// Took tells whether every Envoy, of which there is one at least, has taken the secrets and all else of the snapshot of
// that version.
func (s *Server) Took(version string) bool {
	return !s.observer.rejected() && s.store.tookAll(version)
}

// Serve answers on the listener until the context is done.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	// Only listeners and clusters are asked for wholesale. An empty first request of another type asks for nothing.
	ads := xdsserverv3.NewServer(ctx, s.store, s.observer, config.DeactivateLegacyWildcardForTypes([]string{
		resourcev3.EndpointType, resourcev3.RouteType, resourcev3.SecretType, resourcev3.ExtensionConfigType,
	}))
	g := grpc.NewServer(
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.MaxRecvMsgSize(64<<20), // an Envoy that comes back names all it has
	)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, ads)
	stop := context.AfterFunc(ctx, g.Stop)
	defer stop()
	if err := g.Serve(l); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve xDS: %w", err)
	}
	return nil
}
