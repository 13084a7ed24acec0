package bench

import (
	"context"
	"fmt"
	"net"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/grpc"
)

// ServeNoop serves external processing on a Unix socket until the context ends, the way that is usual in Go: grpc-go
// with its defaults. It sets one header and decides nothing.
func ServeNoop(ctx context.Context, socket string) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("no-op external processing: %w", err)
	}
	server := grpc.NewServer()
	extprocv3.RegisterExternalProcessorServer(server, noop{})
	defer context.AfterFunc(ctx, server.Stop)()
	if err := server.Serve(listener); err != nil && ctx.Err() == nil {
		return fmt.Errorf("no-op external processing: %w", err)
	}
	return nil
}

type noop struct {
	extprocv3.UnimplementedExternalProcessorServer
}

func (noop) Process(envoy extprocv3.ExternalProcessor_ProcessServer) error {
	for {
		if _, err := envoy.Recv(); err != nil {
			return nil //nolint:nilerr // an ended stream is how every request ends
		}
		if err := envoy.Send(&extprocv3.ProcessingResponse{
			Response: &extprocv3.ProcessingResponse_RequestHeaders{RequestHeaders: &extprocv3.HeadersResponse{
				Response: &extprocv3.CommonResponse{HeaderMutation: &extprocv3.HeaderMutation{
					SetHeaders: []*corev3.HeaderValueOption{{
						Header: &corev3.HeaderValue{Key: "x-processed", RawValue: []byte("yes")},
					}},
				}},
			}},
		}); err != nil {
			return err
		}
	}
}
