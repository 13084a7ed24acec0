package relay

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	peeringv1 "github.com/isthmus-mesh/isthmus/proto/gen/isthmus/peering/v1"
)

// counting answers goodbyes, and refuses those whose reason is "no".
type counting struct {
	peeringv1.UnimplementedPeeringServiceServer
	calls  atomic.Int32
	marked atomic.Int32 // calls whose metadata came through
}

func (c *counting) Goodbye(ctx context.Context, r *peeringv1.GoodbyeRequest) (*peeringv1.GoodbyeResponse, error) {
	c.calls.Add(1)
	if md, _ := metadata.FromIncomingContext(ctx); len(md.Get("x-mark")) == 1 {
		c.marked.Add(1)
	}
	if r.GetReason() == "no" {
		return nil, status.Error(codes.FailedPrecondition, "no")
	}
	return &peeringv1.GoodbyeResponse{Sequence: r.GetSequence() + 1}, nil
}

// interposed is a server with a relay before it, and a client.
func interposed(t *testing.T) (*Calls, *counting, func(reason string) (uint64, error)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server, counts := grpc.NewServer(), &counting{}
	peeringv1.RegisterPeeringServiceServer(server, counts)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	c, err := Interpose(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("peering.east.isthmus.internal"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return c, counts, func(reason string) (uint64, error) {
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "x-mark", "1"), 500*time.Millisecond)
		defer cancel()
		answer, err := peeringv1.NewPeeringServiceClient(conn).Goodbye(ctx, &peeringv1.GoodbyeRequest{Sequence: 4, Reason: reason})
		return answer.GetSequence(), err
	}
}

func TestCallsPass(t *testing.T) {
	t.Parallel()
	_, counts, call := interposed(t)
	if n, err := call("yes"); n != 5 || err != nil || counts.marked.Load() != 1 {
		t.Errorf("%d, %v, %d with metadata", n, err, counts.marked.Load())
	}
	if _, err := call("no"); status.Code(err) != codes.FailedPrecondition || status.Convert(err).Message() != "no" {
		t.Error(err)
	}
}

func TestCallsMeetFaults(t *testing.T) {
	t.Parallel()
	c, counts, call := interposed(t)
	for _, x := range []struct {
		what  string
		fault Fault
		code  codes.Code
		asked int32
	}{
		{"silence", func(*Call) Answer { return Answer{} }, codes.DeadlineExceeded, 0},
		{"refusal", func(*Call) Answer { return Refusal() }, codes.Unavailable, 0},
		{"broken", func(*Call) Answer { return Answer{Broken: true} }, codes.Internal, 0},
		{"twice", func(c *Call) Answer { Pass(c); return Pass(c) }, codes.OK, 2},
		{"answer lost", func(c *Call) Answer { Pass(c); return Answer{} }, codes.DeadlineExceeded, 1},
		{"answer cut", func(c *Call) Answer { a := Pass(c); a.Whole = 6; return a }, codes.Internal, 1},
		{"request spoilt", func(c *Call) Answer { return c.Pass(c.Context, []byte{0xff}) }, codes.Internal, 0},
	} {
		c.Set(x.fault)
		before := counts.calls.Load()
		if _, err := call("yes"); status.Code(err) != x.code || counts.calls.Load()-before != x.asked {
			t.Errorf("%s: %v, %d calls", x.what, err, counts.calls.Load()-before)
		}
	}
	c.Set(func(c *Call) Answer {
		var m peeringv1.GoodbyeRequest
		if err := proto.Unmarshal(c.Request, &m); err != nil || c.Method != "Goodbye" {
			t.Error(c.Method, err)
		}
		m.Sequence = 9
		edited, err := proto.Marshal(&m)
		if err != nil {
			t.Error(err)
		}
		return c.Pass(c.Context, edited)
	})
	if n, err := call("yes"); n != 10 || err != nil {
		t.Errorf("an edited call: %d, %v", n, err)
	}
	c.Set(nil)
	if n, err := call("yes"); n != 5 || err != nil {
		t.Errorf("without a fault: %d, %v", n, err)
	}
}

// TestCallsPassOthers asks for what is no call of the peering service.
func TestCallsPassOthers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Protocols: new(http.Protocols), ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		said, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Host", r.Host)
		fmt.Fprintf(w, "%s %s", r.URL, said)
	})}
	server.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	c, err := Interpose(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	c.Set(func(*Call) Answer { return Refusal() })
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	response, err := client.Post("http://api.east.isthmus.internal/a?b=c", "text/plain", io.MultiReader())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	said, err := io.ReadAll(response.Body)
	if err != nil || string(said) != "/a?b=c " || response.Header.Get("X-Host") != "api.east.isthmus.internal" {
		t.Errorf("%q, %v, %v", said, response.Header, err)
	}
}

func TestInterposeNothing(t *testing.T) {
	t.Parallel()
	if _, err := Interpose(filepath.Join(t.TempDir(), "s")); !os.IsNotExist(err) {
		t.Error(err)
	}
}
