package envoytest

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/isthmus-mesh/isthmus/xds/names"
)

// TestHeartbeatsInAccessLog holds that calls of the peering service are logged where they fail, and only there.
func TestHeartbeatsInAccessLog(t *testing.T) {
	t.Parallel()
	west, east := pair(t, func(east *gateway) {
		l := listen(t, "unix", east.socket(names.PeeringSocket))
		s := grpc.NewServer()
		healthv1.RegisterHealthServer(s, health.NewServer())
		go func() { _ = s.Serve(l) }()
		t.Cleanup(s.Stop)
	})
	conn, err := grpc.NewClient("passthrough:///"+names.PeeringHost("east", names.DefaultSuffix),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", west.socket(names.EdgeSocket))
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	c := healthv1.NewHealthClient(conn)
	for range 3 {
		if _, err := c.Check(t.Context(), &healthv1.HealthCheckRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	// A failure of gRPC has HTTP's status 200. Its line comes after those of the calls before, if there were any.
	if _, err := c.Check(t.Context(), &healthv1.HealthCheckRequest{Service: "unknown"}); status.Code(err) != codes.NotFound {
		t.Fatal(err)
	}
	for _, g := range []*gateway{east} { // at the edge, gRPC's failures are HTTP's successes
		eventually(t, waits, func() error {
			b, err := os.ReadFile(g.model.Gateway.AccessLog)
			if err != nil {
				return err
			}
			lines := strings.Split(strings.TrimSpace(string(b)), "\n")
			var line struct {
				Authority string
				Code      int
			}
			if err := json.Unmarshal([]byte(lines[0]), &line); err != nil {
				return err
			}
			if len(lines) != 1 || line.Code != 200 || line.Authority != east.host("peering") {
				return fmt.Errorf("%d lines: %s", len(lines), b)
			}
			return nil
		})
	}
}
