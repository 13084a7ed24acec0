package stream

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	peeringv1 "github.com/isthmus-mesh/isthmus/proto/gen/isthmus/peering/v1"
	"github.com/isthmus-mesh/isthmus/xds/names"
	"github.com/isthmus-mesh/isthmus/xds/peering"
	"github.com/isthmus-mesh/isthmus/xds/peering/session"
)

// Limits of what a peer can make this gateway hold.
const (
	maxMessage = 256 << 10 // the largest configuration that the protocol's rules allow is below it
	maxStreams = 128
)

// service answers the peers' calls: it finds the peer by the identity that Envoy proved, and gives the message to the
// peer's driver.
type service struct {
	peeringv1.UnimplementedPeeringServiceServer
	node *Node
}

func newServer(n *Node) *grpc.Server {
	s := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.UnaryInterceptor(validateServed),
		// Envoy may probe its connection to the socket far more often than grpc-go's default of five minutes allows.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
	)
	peeringv1.RegisterPeeringServiceServer(s, &service{node: n})
	return s
}

// validator is what protoc-gen-validate gives every message.
type validator interface{ Validate() error }

// validateServed holds each request and each answer against the protocol's rules.
func validateServed(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	if err := validate(req); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	resp, err := handle(ctx, req)
	if err != nil {
		return nil, err
	}
	if err := validate(resp); err != nil {
		return nil, status.Error(codes.Internal, "the answer breaks the protocol's rules")
	}
	return resp, nil
}

// validateCalled does the same for calls of this side.
func validateCalled(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if err := validate(req); err != nil {
		return fmt.Errorf("own message: %w", err)
	}
	if err := invoke(ctx, method, req, reply, cc, opts...); err != nil {
		return err
	}
	if err := validate(reply); err != nil {
		return fmt.Errorf("the peer's answer: %w", err)
	}
	return nil
}

func validate(m any) error {
	v, ok := m.(validator)
	if !ok {
		return fmt.Errorf("%T has no rules", m)
	}
	return v.Validate()
}

// identify is the identity that Envoy proved and put beside the call. Envoy overwrites the header, so a second value, or
// a list in one, is no mistake of Envoy's but somebody else's word.
func identify(ctx context.Context) (peering.Identity, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	values := md.Get(names.HeaderPeer)
	if len(values) != 1 {
		return peering.Identity{}, status.Errorf(codes.Unauthenticated, "want one proven identity, got %d", len(values))
	}
	identity, err := peering.ParseIdentity(values[0])
	if err != nil {
		return peering.Identity{}, status.Error(codes.Unauthenticated, err.Error())
	}
	return identity, nil
}

// ask gives an event to the driver of the calling peer and waits for the action that answers it.
func ask[A session.Action](ctx context.Context, n *Node, event func(session.Call) session.Event) (A, error) {
	var none A
	identity, err := identify(ctx)
	if err != nil {
		return none, err
	}
	d := n.driverOf(identity)
	if d == nil {
		n.config.Logger.WarnContext(ctx, "peering: a stranger called", "identity", identity.String())
		return none, status.Errorf(codes.PermissionDenied, "%s is no peer of this gateway", identity)
	}
	ctx, cancel := context.WithTimeout(ctx, n.config.Timing.Answer)
	defer cancel()
	action, err := d.ask(ctx, event)
	if err != nil {
		return none, err
	}
	answer, ok := action.(A)
	if !ok {
		return none, status.Error(codes.Unavailable, "this gateway is stopping")
	}
	return answer, nil
}

// Hello is steps 4 and 5.
func (s *service) Hello(ctx context.Context, req *peeringv1.HelloRequest) (*peeringv1.HelloResponse, error) {
	a, err := ask[session.AnswerHello](ctx, s.node, func(c session.Call) session.Event {
		return session.HelloReceived{Call: c, Hello: helloFromWire(req)}
	})
	if err != nil {
		return nil, err
	}
	return helloAnswerToWire(a.Answer), nil
}

// Configure is steps 8 and 9, and a change within a session.
func (s *service) Configure(ctx context.Context, req *peeringv1.ConfigureRequest) (*peeringv1.ConfigureResponse, error) {
	a, err := ask[session.AnswerConfigure](ctx, s.node, func(c session.Call) session.Event {
		return session.ConfigureReceived{Call: c, Configure: configureFromWire(req)}
	})
	if err != nil {
		return nil, err
	}
	return configureAnswerToWire(a.Answer), nil
}

// Heartbeat keeps a session.
func (s *service) Heartbeat(ctx context.Context, req *peeringv1.HeartbeatRequest) (*peeringv1.HeartbeatResponse, error) {
	a, err := ask[session.AnswerHeartbeat](ctx, s.node, func(c session.Call) session.Event {
		return session.HeartbeatReceived{Call: c, Heartbeat: heartbeatFromWire(req)}
	})
	if err != nil {
		return nil, err
	}
	return heartbeatAnswerToWire(a.Answer), nil
}

// Goodbye ends a session.
func (s *service) Goodbye(ctx context.Context, req *peeringv1.GoodbyeRequest) (*peeringv1.GoodbyeResponse, error) {
	a, err := ask[session.AnswerGoodbye](ctx, s.node, func(c session.Call) session.Event {
		return session.GoodbyeReceived{Call: c, Goodbye: goodbyeFromWire(req)}
	})
	if err != nil {
		return nil, err
	}
	return &peeringv1.GoodbyeResponse{Sequence: a.Sequence}, nil
}
