package docker

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/mask"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// callDeadline bounds one call to an engine that answers from memory.
const callDeadline = 15 * time.Second

// Cluster is the outbound half: one engine, with its swarm where it manages one.
type Cluster struct {
	api       *client.Client
	transport *http.Transport
	upstream  neutral.Upstream
	cluster   string // this cluster's name
	log       *slog.Logger
	networks  networks
	self      atomic.Pointer[node]
}

var (
	_ dialect.Connector = Dialect{}
	_ dialect.Cluster   = (*Cluster)(nil)
)

// Connect opens an engine. It need not be there yet: readiness asks System.
func (Dialect) Connect(_ context.Context, config dialect.Config) (dialect.Cluster, error) {
	upstream, err := upstreamFrom(config.Endpoint)
	if err != nil {
		return nil, err
	}
	log := config.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	log = log.With("orchestrator", neutral.Docker)
	if upstream.Address != "" {
		log.Warn("the engine's API is reached without TLS; whoever reaches it too is root on its host")
	}
	transport := transportTo(upstream)
	// WithHost sets up its own transport, so ours comes after it.
	api, err := client.New(client.WithHost(dockerHost(upstream)), client.WithScheme("http"), client.WithUserAgent("isthmus"),
		client.WithHTTPClient(&http.Client{Transport: transport, CheckRedirect: client.CheckRedirect}))
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "the Docker client could not be made")
	}
	return &Cluster{api: api, transport: transport, upstream: upstream, cluster: config.Cluster, log: log}, nil
}

// Upstream is the engine's API.
func (c *Cluster) Upstream() neutral.Upstream { return c.upstream }

// Transport reaches the API as it is.
func (c *Cluster) Transport() http.RoundTripper { return c.transport }

// Close gives back connections.
func (c *Cluster) Close() error {
	c.transport.CloseIdleConnections()
	return c.api.Close()
}

// System asks the engine who it is.
func (c *Cluster) System(ctx context.Context) (neutral.System, error) {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	version, err := c.api.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return neutral.System{}, faultOf(err)
	}
	info, err := c.api.Info(ctx, client.InfoOptions{})
	if err != nil {
		return neutral.System{}, faultOf(err)
	}
	return c.systemFrom(version, info.Info), nil
}

func (c *Cluster) systemFrom(version client.ServerVersionResult, info system.Info) neutral.System {
	s := neutral.System{
		Name: c.cluster, Version: version.Version, APIVersion: version.APIVersion, Platform: "Docker Engine",
		OS: version.Os, Architecture: version.Arch, Kernel: info.KernelVersion,
		Containers: info.Containers, Running: info.ContainersRunning, Paused: info.ContainersPaused,
		Stopped: info.ContainersStopped, Images: info.Images, Nodes: 1,
		MilliCPU: int64(info.NCPU) * 1000, Memory: info.MemTotal, Warnings: info.Warnings,
	}
	if managesSwarm(info) {
		s.Platform, s.Nodes = "Docker Swarm", max(info.Swarm.Nodes, 1)
	}
	if now, err := time.Parse(time.RFC3339Nano, info.SystemTime); err == nil {
		s.Now = now
	}
	return s
}

func managesSwarm(info system.Info) bool {
	return info.Swarm.LocalNodeState == swarm.LocalNodeStateActive && info.Swarm.ControlAvailable
}

// faultOf reads an error of the client. What an engine says is the caller's to read; that it could not be reached, and
// where it is, is not.
func faultOf(err error) error {
	var known *fault.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		return fault.Wrap(fault.Timeout, err, "the orchestrator did not answer in time")
	case errors.Is(err, context.Canceled):
		return fault.Wrap(fault.Unavailable, err, "the request was cancelled")
	case client.IsErrConnectionFailed(err):
		return fault.Wrap(fault.Unavailable, err, "the orchestrator is not reachable")
	}
	for _, k := range errorKinds {
		if k.is(err) {
			return fault.Wrap(k.kind, err, "%s", plain(engineMessage(err)))
		}
	}
	return fault.Wrap(fault.Internal, err, "the orchestrator gave an answer that cannot be read")
}

var errorKinds = []struct {
	is   func(error) bool
	kind fault.Kind
}{
	{cerrdefs.IsNotFound, fault.NotFound},
	{cerrdefs.IsInvalidArgument, fault.Invalid},
	{cerrdefs.IsConflict, fault.Conflict},
	{cerrdefs.IsUnauthorized, fault.Denied},
	{cerrdefs.IsPermissionDenied, fault.Denied},
	{cerrdefs.IsNotImplemented, fault.Unsupported},
	{cerrdefs.IsUnavailable, fault.Unavailable},
	{cerrdefs.IsNotModified, fault.NotModified},
	{isEngineFailure, fault.Internal},
}

// addresses hides those that an engine tells in words. Nobody reads its stand-ins back, so any key does.
var addresses = sync.OnceValue(func() *mask.Mask {
	key := make([]byte, mask.KeySize)
	_, _ = rand.Read(key) // which never fails
	return mask.New(key)
})

// plain is what an engine says, without the addresses in it.
func plain(text string) string { return addresses().String(strings.TrimSpace(text)) }

// fromEngine is what the client puts before what an engine said.
const fromEngine = "Error response from daemon: "

// engineMessage is what the engine said.
func engineMessage(err error) string {
	return strings.TrimPrefix(strings.TrimSpace(err.Error()), fromEngine)
}

// isEngineFailure tells an error that the engine explains from an answer that nobody understands.
func isEngineFailure(err error) bool { return strings.HasPrefix(err.Error(), fromEngine) }
