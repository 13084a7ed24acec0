package app

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"sync"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/adapter/front"
	"github.com/isthmus-mesh/isthmus/modules/caller"
	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// fronts are the docker edges of a gateway whose cluster is of Docker: one Unix socket a peer, and a TCP port where
// the peer's document asks for one, with TLS.
type fronts struct {
	gateway *gateway
	running map[string]*runningFront // by listen address
	wake    chan struct{}
	wait    sync.WaitGroup
}

type runningFront struct{ cancel context.CancelFunc }

func newFronts(g *gateway) *fronts {
	return &fronts{gateway: g, running: map[string]*runningFront{}, wake: make(chan struct{}, 1)}
}

// changed tells of new documents.
func (f *fronts) changed() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// run keeps the fronts as the documents have them, until ctx ends, and then drains them.
func (f *fronts) run(ctx context.Context) error {
	defer f.wait.Wait()
	for {
		f.reconcile(ctx, f.gateway.set.Load())
		select {
		case <-ctx.Done():
			return nil
		case <-f.wake:
		}
	}
}

func (f *fronts) reconcile(ctx context.Context, set *manifest.Set) {
	wanted := map[string]string{} // listen address -> peer
	if f.gateway.dialect.Orchestrator() == neutral.Docker {
		for _, p := range set.Peers {
			if p.Spec.Suspended {
				continue
			}
			wanted["unix:"+f.gateway.socket(p.Metadata.Name+".sock")] = p.Metadata.Name
			if p.Spec.API.Listen.IsValid() {
				wanted["tcp:"+p.Spec.API.Listen.String()] = p.Metadata.Name
			}
		}
	}
	for address, running := range f.running {
		if _, ok := wanted[address]; !ok {
			running.cancel()
			delete(f.running, address)
		}
	}
	for address, peer := range wanted {
		if f.running[address] != nil {
			continue
		}
		if err := f.start(ctx, address, peer); err != nil {
			f.gateway.log.Error("the docker edge of a peer cannot listen", "peer", peer, "listen", address, "err", err)
		}
	}
}

func (f *fronts) start(ctx context.Context, address, peer string) error {
	network, rest, _ := strings.Cut(address, ":")
	var listener net.Listener
	var err error
	if network == "unix" {
		listener, err = front.Listen(ctx, rest)
	} else {
		listener, err = (&net.ListenConfig{}).Listen(ctx, network, rest)
	}
	if err != nil {
		return err
	}
	if network != "unix" {
		listener = tls.NewListener(listener, f.gateway.apiTLS(peer))
	}
	server := front.New(front.Config{
		Peer: peer, Authority: names.APIHost(peer, f.gateway.started.Gateway.Spec.Suffix),
		Edge: f.gateway.socket(names.EdgeSocket), Log: f.gateway.log.With("part", "front"),
		Admit: func(ctx context.Context, c caller.Credentials) (caller.Identity, error) {
			who, err := f.gateway.callers.Load().Admit(ctx, modules.ContainerOperation, c)
			if err == nil {
				f.gateway.settle(ctx, peer)
			}
			return who, err
		},
	})
	ctx, cancel := context.WithCancel(ctx)
	f.running[address] = &runningFront{cancel: cancel}
	f.wait.Add(1)
	go func() {
		defer f.wait.Done()
		defer cancel()
		if err := server.Serve(ctx, listener); err != nil {
			f.gateway.log.Error("the docker edge of a peer ended", "peer", peer, "err", err)
		}
	}()
	return nil
}
