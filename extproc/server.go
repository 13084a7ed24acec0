// Package extproc is the external-processing server beside Envoy: for each request it reads the head, asks the module
// of its class for a verdict, and says it to Envoy. It knows Envoy's messages and nothing of the business.
//
// Envoy goes on with a request whose stream ends cleanly without a decision, so no stream ends here before one was
// said; and no route behind the filter leads anywhere unless a verdict set the routing header.
package extproc

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/grpc"
	grpcmetadata "google.golang.org/grpc/metadata"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// Config is what a Server needs. All fields are required but Observer and Follow.
type Config struct {
	Zone    Zone
	Modules []modules.Module
	// Fallback renders refusals for requests of no class; it is asked to decide them as well.
	Fallback modules.Module
	// Edge decides about requests of this cluster's own callers before they leave for a peer, whatever their class.
	Edge modules.Module
	// Follow takes over what a module held for a request that Envoy carries alone, and leave tells of its end; nil where
	// nothing is held.
	Follow func(hold string) (leave func(), ok bool)
	// Peer finds the peer behind a SPIFFE identity; the zero Peer is nobody.
	Peer     func(spiffe string) modules.Peer
	Deadline time.Duration // of one decision; below Envoy's message timeout
	Observer Observer
	Log      *slog.Logger
}

// Observer is told of every decision, for metrics and traces. Its methods must not block.
type Observer interface {
	// Begin is called with each request; the context it gives is the decision's.
	Begin(ctx context.Context, req *modules.Request) context.Context
	// Decided is called once a request with what came of it: outcome is "allow" or a fault's kind, status the HTTP
	// status when the gateway answered, else 0.
	Decided(ctx context.Context, req *modules.Request, record modules.Record, outcome string, status int)
}

// Server implements Envoy's ExternalProcessor service.
type Server struct {
	extprocv3.UnimplementedExternalProcessorServer
	config  Config
	modules map[modules.Class]modules.Module
	panics  atomic.Uint64
}

// New makes a server.
func New(config Config) *Server {
	s := &Server{config: config, modules: make(map[modules.Class]modules.Module, len(config.Modules))}
	for _, m := range config.Modules {
		s.modules[m.Class()] = m
	}
	if s.config.Observer == nil {
		s.config.Observer = unobserved{}
	}
	return s
}

// Register adds the server to a gRPC server.
func (s *Server) Register(g grpc.ServiceRegistrar) { extprocv3.RegisterExternalProcessorServer(g, s) }

// Process serves one HTTP request.
func (s *Server) Process(envoy extprocv3.ExternalProcessor_ProcessServer) error {
	if len(grpcmetadata.ValueFromIncomingContext(envoy.Context(), names.MetadataHold)) > 0 {
		s.follow(envoy)
		return nil
	}
	st := &stream{server: s, ctx: envoy.Context(), edge: edgeOf(envoy.Context())}
	defer st.end()
	for {
		message, err := envoy.Recv()
		if err != nil {
			// Envoy has closed its side: the request is over or its client is gone, so nothing waits for a decision.
			return nil // an ended stream is how every request ends
		}
		response := st.step(message)
		if err := envoy.Send(response); err != nil {
			return fmt.Errorf("say a decision to Envoy: %w", err)
		}
		if st.later != nil { // Envoy waits, and sends nothing meanwhile
			if err := envoy.Send(st.wait()); err != nil {
				return fmt.Errorf("say a decision to Envoy: %w", err)
			}
		}
		if st.done {
			return nil
		}
	}
}

// follow sees a request that was let through to its end. Nothing is said to Envoy, which waits for nothing.
func (s *Server) follow(envoy extprocv3.ExternalProcessor_ProcessServer) {
	message, err := envoy.Recv()
	if err != nil || s.config.Follow == nil {
		return
	}
	_, header := readHeaders(message.GetRequestHeaders().GetHeaders())
	leave, ok := s.config.Follow(header.Get(names.HeaderHold))
	if !ok {
		return
	}
	defer leave()
	for err == nil {
		_, err = envoy.Recv()
	}
}

// module finds who decides about a class.
func (s *Server) module(class modules.Class) modules.Module {
	if m, ok := s.modules[class]; ok {
		return m
	}
	return s.config.Fallback
}

// edgeOf is the edge by which a caller of this cluster came in, as the gateway's own Envoy says; "" is the peer link.
func edgeOf(ctx context.Context) string {
	if values := grpcmetadata.ValueFromIncomingContext(ctx, names.MetadataEdge); len(values) > 0 {
		return values[0]
	}
	return ""
}

// guarded runs one step of a module with the deadline, and turns a panic into a fault: one bad request must not end
// the process that serves all others.
func (s *Server) guarded(ctx context.Context, step func(context.Context) error) error {
	return s.guardedFor(ctx, s.config.Deadline, step)
}

func (s *Server) guardedFor(ctx context.Context, deadline time.Duration, step func(context.Context) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = s.panicked(p)
		}
	}()
	return step(ctx)
}

// Panics counts the panics that requests were refused for.
func (s *Server) Panics() uint64 { return s.panics.Load() }

// panicked makes a fault of a panic. It must be called where the panic was recovered, for the stack.
func (s *Server) panicked(p any) error {
	s.panics.Add(1)
	s.config.Log.Error("a decision panicked", "panic", p, "stack", string(debug.Stack()))
	return fault.New(fault.Internal, "internal error of the gateway")
}

type unobserved struct{}

func (unobserved) Begin(ctx context.Context, _ *modules.Request) context.Context          { return ctx }
func (unobserved) Decided(context.Context, *modules.Request, modules.Record, string, int) {}
