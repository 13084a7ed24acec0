package containerd

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
)

// fakeTasks notes how long it may take to pause. The real one is in the end-to-end tests.
type fakeTasks struct {
	tasks.UnimplementedTasksServer
	left chan time.Duration
}

func (f *fakeTasks) Pause(ctx context.Context, _ *tasks.PauseTaskRequest) (*emptypb.Empty, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now()
	}
	f.left <- time.Until(deadline)
	return &emptypb.Empty{}, nil
}

// A pause takes as long as runc takes to give up, which is 10 seconds, and more.
func TestPauseHasTime(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "containerd.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	fake, server := &fakeTasks{left: make(chan time.Duration, 1)}, grpc.NewServer()
	tasks.RegisterTasksServer(server, fake)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	r, err := Open(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	if err := r.Pause(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	if left := <-fake.left; left < 20*time.Second {
		t.Errorf("it has %v", left)
	}
}
