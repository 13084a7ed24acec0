package stream

import (
	"context"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	peeringv1 "github.com/isthmus-mesh/isthmus/proto/gen/isthmus/peering/v1"
	"github.com/isthmus-mesh/isthmus/xds/names"
	"github.com/isthmus-mesh/isthmus/xds/peering/session"
)

// client calls one peer through this gateway's own Envoy, which does the TLS and proves the peer's identity.
type client struct {
	conn *grpc.ClientConn
	rpc  peeringv1.PeeringServiceClient
}

func newClient(peer, suffix string, dial func(context.Context) (net.Conn, error)) (*client, error) {
	host := names.PeeringHost(peer, suffix)
	conn, err := grpc.NewClient("passthrough:///"+host,
		grpc.WithAuthority(host),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) }),
		grpc.WithUnaryInterceptor(validateCalled),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		// The session repeats what has to be repeated.
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		// The way to one's own Envoy is a Unix socket: the session's pace is the one that counts.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: time.Second,
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("peering client of %s: %w", peer, err)
	}
	return &client{conn: conn, rpc: peeringv1.NewPeeringServiceClient(conn)}, nil
}

func (c *client) hello(ctx context.Context, m session.Hello) (session.Event, error) {
	r, err := c.rpc.Hello(ctx, helloToWire(m))
	if err != nil {
		return nil, err
	}
	return session.HelloAnswered{Answer: helloAnswerFromWire(r)}, nil
}

func (c *client) configure(ctx context.Context, m session.Configure) (session.Event, error) {
	r, err := c.rpc.Configure(ctx, configureToWire(m))
	if err != nil {
		return nil, err
	}
	return session.ConfigureAnswered{Answer: configureAnswerFromWire(r)}, nil
}

func (c *client) heartbeat(ctx context.Context, m session.Heartbeat) (session.Event, error) {
	r, err := c.rpc.Heartbeat(ctx, heartbeatToWire(m))
	if err != nil {
		return nil, err
	}
	return session.HeartbeatAnswered{Answer: heartbeatAnswerFromWire(r)}, nil
}

func (c *client) goodbye(ctx context.Context, m session.Goodbye) error {
	_, err := c.rpc.Goodbye(ctx, goodbyeToWire(m))
	return err
}

func (c *client) close() error { return c.conn.Close() }
