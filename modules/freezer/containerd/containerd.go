// Package containerd freezes containers by containerd's task API, on its Unix socket.
package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	containers "github.com/containerd/containerd/api/services/containers/v1"
	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	task "github.com/containerd/containerd/api/types/task"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/isthmus-mesh/isthmus/modules/freezer"
)

const (
	// kubeletNamespace is where the kubelet's containers are.
	kubeletNamespace = "k8s.io"
	// labelMark keeps a mark with a container: "<phase>/<wish>".
	labelMark = "isthmus.io/freeze"

	// What the kubelet's side of containerd writes on containers.
	labelKind         = "io.cri-containerd.kind"
	kindContainer     = "container"
	labelPod          = "io.kubernetes.pod.uid"
	labelPodName      = "io.kubernetes.pod.name"
	labelPodNamespace = "io.kubernetes.pod.namespace"

	callTimeout = 10 * time.Second
	// pauseTimeout is well above the 10 seconds that runc itself takes to freeze or to give up: containerd kills a runc
	// whose caller has gone, and one that is killed between the two leaves the cgroup freezing.
	pauseTimeout = 30 * time.Second
)

// Runtime is a node's containerd.
type Runtime struct {
	connection *grpc.ClientConn
	containers containers.ContainersClient
	tasks      tasks.TasksClient
	socket     string
}

var _ freezer.Runtime = (*Runtime)(nil)

// Open connects to the socket. containerd need not answer yet.
func Open(socket string) (*Runtime, error) {
	if !filepath.IsAbs(socket) {
		return nil, fmt.Errorf("containerd's socket %q: not an absolute path", socket)
	}
	connection, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("containerd: %w", err)
	}
	return &Runtime{connection: connection, containers: containers.NewContainersClient(connection),
		tasks: tasks.NewTasksClient(connection), socket: socket}, nil
}

// Close ends the connection.
func (r *Runtime) Close() error { return r.connection.Close() }

// Alone waits until no other agent acts on this containerd, and keeps others from it until the file is closed or the
// process has ended, however it does.
func (r *Runtime) Alone(ctx context.Context, waiting func()) (*os.File, error) {
	folder, err := os.Open(filepath.Dir(r.socket))
	if err != nil {
		return nil, err
	}
	for told := false; ; {
		err := syscall.Flock(int(folder.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return folder, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", folder.Name(), err), folder.Close())
		}
		if !told {
			told = true
			waiting()
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), folder.Close())
		case <-time.After(time.Second):
		}
	}
}

func scope(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "containerd-namespace", kubeletNamespace)
}

func call(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(scope(ctx), callTimeout)
}

// Look tells how a container of the kubelet's is.
func (r *Runtime) Look(ctx context.Context, id string) (freezer.Sight, error) {
	ctx, cancel := call(ctx)
	defer cancel()
	found, err := r.containers.Get(ctx, &containers.GetContainerRequest{ID: id})
	if status.Code(err) == codes.NotFound {
		return freezer.Sight{}, nil
	}
	if err != nil {
		return freezer.Sight{}, fmt.Errorf("containerd: %w", err)
	}
	labels := found.GetContainer().GetLabels()
	if labels[labelKind] != kindContainer {
		return freezer.Sight{}, fmt.Errorf("containerd: %s is not a container of the kubelet's", id)
	}
	sight := freezer.Sight{Mark: markFromLabel(labels[labelMark]), Pod: labels[labelPod]}
	got, err := r.tasks.Get(ctx, &tasks.GetRequest{ContainerID: id})
	if status.Code(err) == codes.NotFound {
		return freezer.Sight{}, nil
	}
	if err != nil {
		return freezer.Sight{}, fmt.Errorf("containerd: %w", err)
	}
	switch got.GetProcess().GetStatus() {
	case task.Status_RUNNING:
		sight.Task = freezer.Running
	case task.Status_PAUSED:
		sight.Task = freezer.Paused
	case task.Status_CREATED, task.Status_PAUSING:
		sight.Task = freezer.Changing
	case task.Status_STOPPED:
		return freezer.Sight{}, nil
	default:
		return freezer.Sight{}, fmt.Errorf("containerd: the task of %s is in no known state", id)
	}
	return sight, nil
}

// Marked lists the containers that carry a mark.
func (r *Runtime) Marked(ctx context.Context) ([]freezer.Marked, error) {
	ctx, cancel := call(ctx)
	defer cancel()
	list, err := r.containers.List(ctx, &containers.ListContainersRequest{Filters: []string{`labels."` + labelMark + `"`}})
	if err != nil {
		return nil, fmt.Errorf("containerd: %w", err)
	}
	var all []freezer.Marked
	for _, c := range list.GetContainers() {
		if labels := c.GetLabels(); labels[labelKind] == kindContainer {
			all = append(all, freezer.Marked{ID: c.GetID(), Pod: labels[labelPod], Namespace: labels[labelPodNamespace], Name: labels[labelPodName]})
		}
	}
	return all, nil
}

// Note keeps a mark with a container.
func (r *Runtime) Note(ctx context.Context, id string, mark freezer.Mark) error {
	return r.label(ctx, id, string(mark.Phase)+"/"+mark.Wish)
}

// Erase drops it.
func (r *Runtime) Erase(ctx context.Context, id string) error { return r.label(ctx, id, "") }

// label sets the one label, and leaves all else of the container as it is.
func (r *Runtime) label(ctx context.Context, id, value string) error {
	ctx, cancel := call(ctx)
	defer cancel()
	_, err := r.containers.Update(ctx, &containers.UpdateContainerRequest{
		Container:  &containers.Container{ID: id, Labels: map[string]string{labelMark: value}},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"labels." + labelMark}}})
	if err != nil && status.Code(err) != codes.NotFound {
		return fmt.Errorf("containerd: %w", err)
	}
	return nil
}

// Pause freezes the processes of a container.
func (r *Runtime) Pause(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(scope(ctx), pauseTimeout)
	defer cancel()
	_, err := r.tasks.Pause(ctx, &tasks.PauseTaskRequest{ContainerID: id})
	return outcome(err)
}

// Resume lets them go on.
func (r *Runtime) Resume(ctx context.Context, id string) error {
	ctx, cancel := call(ctx)
	defer cancel()
	_, err := r.tasks.Resume(ctx, &tasks.ResumeTaskRequest{ContainerID: id})
	return outcome(err)
}

// outcome tells a refusal, after which nothing has changed, from silence, after which nobody knows: runc thaws what it
// could not freeze whole.
func outcome(err error) error {
	switch status.Code(err) {
	case codes.OK:
		return nil
	case codes.DeadlineExceeded, codes.Canceled, codes.Unavailable:
		return fmt.Errorf("containerd: %w", err)
	}
	return fmt.Errorf("%w: containerd: %w", freezer.ErrUnchanged, err)
}

func markFromLabel(label string) freezer.Mark {
	phase, wish, _ := strings.Cut(label, "/")
	switch phase := freezer.Phase(phase); phase {
	case freezer.Begun, freezer.Held, freezer.Released:
		return freezer.Mark{Phase: phase, Wish: wish}
	}
	return freezer.Mark{}
}
