package stream_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
	peeringv1 "github.com/isthmus-mesh/isthmus/proto/gen/isthmus/peering/v1"
	"github.com/isthmus-mesh/isthmus/xds/names"
	"github.com/isthmus-mesh/isthmus/xds/peering"
	"github.com/isthmus-mesh/isthmus/xds/peering/store"
	"github.com/isthmus-mesh/isthmus/xds/peering/stream"
	"github.com/isthmus-mesh/isthmus/xds/peering/tracker"
)

func TestBothStart(t *testing.T) {
	t.Parallel()
	west, east := pairOf(t)
	w := west.start(neutral.Docker, east.as())
	e := east.start(neutral.Kubernetes, west.as())
	s := w.await("east", "ready", readyAs(neutral.Kubernetes))
	e.await("west", "ready", readyAs(neutral.Docker))

	want := east.configuration(neutral.Kubernetes)
	want.Protocol = peering.Protocol
	if !s.Configuration.Same(want) {
		t.Errorf("west holds %+v, want %+v", s.Configuration, want)
	}
	if s.Protocol != peering.Protocol.Current || s.Step < 9 {
		t.Errorf("status %+v", s)
	}
	w.await("east", "measured", func(s tracker.Status) bool { return s.RTT > 0 })
}

// Only one side can dial: the other is passive, and both are ready, hear of changes, and notice silence.
func TestOneSideDials(t *testing.T) {
	t.Parallel()
	west, east := pairOf(t)
	passive := west.as()
	passive.Passive = true
	e := east.start(neutral.Kubernetes, passive)
	w := west.start(neutral.Docker, east.as())
	w.await("east", "ready", readyAs(neutral.Kubernetes))
	e.await("west", "ready", readyAs(neutral.Docker))
	if err := e.node.SetLocal(east.configuration(neutral.Rancher)); err != nil {
		t.Fatal(err)
	}
	w.await("east", "rancher", readyAs(neutral.Rancher))
	west.setWeather(func(*http.Request) fate { return fate{lostGoing: true} })
	e.await("west", "stale", is(peering.Stale))
	e.await("west", "down", is(peering.Down))
	west.setWeather(nil)
	e.await("west", "ready", readyAs(neutral.Docker))
}

func TestChangesAreTold(t *testing.T) {
	t.Parallel()
	west, east := pairOf(t)
	w := west.start(neutral.Docker, east.as())
	e := east.start(neutral.Kubernetes, west.as())
	w.await("east", "ready", readyAs(neutral.Kubernetes))
	e.await("west", "ready", readyAs(neutral.Docker))

	sub := w.tracker.Subscribe()
	defer sub.Close()
	for i := range 30 {
		c := east.configuration(neutral.Kubernetes)
		c.CatalogueVersion = fmt.Sprint("v", i)
		if err := e.node.SetLocal(c); err != nil {
			t.Fatal(err)
		}
	}
	w.await("east", "at v29", func(s tracker.Status) bool { return s.Configuration.CatalogueVersion == "v29" })
	select {
	case <-sub.Changes():
	case <-time.After(5 * time.Second):
		t.Error("a subscriber was not told")
	}
	if s, _ := w.tracker.Peer("east"); s.Condition != peering.Ready {
		t.Errorf("a change ended the session: %+v", s)
	}
}

// A peer that comes back as another type is known as that, and what was known before is gone.
func TestRestartAsAnotherType(t *testing.T) {
	t.Parallel()
	west, east := pairOf(t)
	w := west.start(neutral.Docker, east.as())
	e := east.start(neutral.Kubernetes, west.as())
	w.await("east", "ready", readyAs(neutral.Kubernetes))
	e.await("west", "ready", readyAs(neutral.Docker))
	e.stop()
	w.await("east", "departed", is(peering.Departed))
	e = east.start(neutral.Rancher, west.as())
	w.await("east", "ready", readyAs(neutral.Rancher))
	e.await("west", "ready", readyAs(neutral.Docker))
}

// A side that vanishes without a goodbye and is back before it is missed: the session is another one at once.
func TestCrash(t *testing.T) {
	t.Parallel()
	west, east := pairOf(t)
	w := west.start(neutral.Docker, east.as())
	e := east.start(neutral.Kubernetes, west.as())
	w.await("east", "ready", readyAs(neutral.Kubernetes))
	e.await("west", "ready", readyAs(neutral.Docker))
	east.setWeather(func(*http.Request) fate { return fate{lostGoing: true} }) // no goodbye gets out
	e.stop()
	east.setWeather(nil)
	e = east.start(neutral.Rancher, west.as())
	w.await("east", "rancher", readyAs(neutral.Rancher))
	e.await("west", "ready", readyAs(neutral.Docker))
}

// What the peer said is there after a restart, marked as remembered, even while the peer is silent.
func TestRemembers(t *testing.T) {
	t.Parallel()
	west, east := pairOf(t)
	w := west.start(neutral.Docker, east.as())
	e := east.start(neutral.Kubernetes, west.as())
	seen := w.await("east", "ready", readyAs(neutral.Kubernetes)).LastSeen
	e.stop()
	w.stop()
	w = west.start(neutral.Docker, east.as())
	s, _ := w.tracker.Peer("east")
	if s.Configuration == nil || s.Configuration.Orchestrator.Type != neutral.Kubernetes || !s.Remembered || s.InSession() {
		t.Fatalf("after a restart: %+v", s)
	}
	if s.LastSeen.Before(seen.Add(-time.Minute)) || s.LastSeen.After(time.Now()) {
		t.Errorf("last seen %s, was %s", s.LastSeen, seen)
	}
	w.await("east", "unreachable", func(s tracker.Status) bool { return strings.Contains(s.LastError, "hello:") })

	// What was said under another identity was said by somebody else.
	w.stop()
	stranger := east.as()
	stranger.Identity.TrustDomain = "elsewhere.example"
	w = west.start(neutral.Docker, stranger)
	if s, _ := w.tracker.Peer("east"); s.Configuration != nil {
		t.Errorf("remembered of another identity: %+v", s.Configuration)
	}
}

func TestPeersComeAndGo(t *testing.T) {
	t.Parallel()
	west, east := pairOf(t)
	north := newGateway(t, "north")
	west.knows(north)
	north.knows(west)
	w := west.start(neutral.Docker)
	e := east.start(neutral.Kubernetes, west.as())
	n := north.start(neutral.Rancher, west.as())
	e.await("west", "turned away", func(s tracker.Status) bool { return strings.Contains(s.LastError, "PermissionDenied") })

	if err := w.node.SetPeers([]stream.Peer{east.as(), north.as()}); err != nil {
		t.Fatal(err)
	}
	w.await("east", "ready", readyAs(neutral.Kubernetes))
	w.await("north", "ready", readyAs(neutral.Rancher))
	n.await("west", "ready", readyAs(neutral.Docker))
	before, _ := w.tracker.Peer("east")

	if err := w.node.SetPeers([]stream.Peer{east.as()}); err != nil {
		t.Fatal(err)
	}
	n.await("west", "departed", is(peering.Departed))
	if _, known := w.tracker.Peer("north"); known {
		t.Error("a removed peer is tracked")
	}
	deadline := time.Now().Add(5 * time.Second)
	for {
		records, err := w.store.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(records) == 1 && records[0].Peer == "east" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("records %+v", records)
		}
		time.Sleep(10 * time.Millisecond)
	}
	// A heartbeat may be late on a busy machine; the session outlives that.
	w.await("east", "ready in the session that it had before another peer was removed", func(s tracker.Status) bool {
		return s.Condition == peering.Ready && s.Session == before.Session
	})
}

func TestContradictingPeers(t *testing.T) {
	t.Parallel()
	west, east := pairOf(t)
	w := west.start(neutral.Docker, east.as())
	w2 := east.as()
	w2.Name = "other"
	bad := east.as()
	bad.Name = "East"
	for name, peers := range map[string][]stream.Peer{
		"two of one name":     {east.as(), east.as()},
		"two of one identity": {east.as(), w2},
		"itself":              {west.as()},
		"no name":             {bad},
		"no identity":         {{Name: "east"}},
	} {
		if err := w.node.SetPeers(peers); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if len(w.tracker.Peers()) != 1 {
		t.Errorf("a refused list changed the peers: %+v", w.tracker.Peers())
	}
}

// One side's certificate proves one cluster and its configuration claims another: neither side is ever ready.
func TestLiar(t *testing.T) {
	t.Parallel()
	west, east := pairOf(t)
	w := west.start(neutral.Docker, east.as())
	c := east.configuration(neutral.Kubernetes)
	c.Identity.Cluster = "north"
	e := east.startWith(stream.Config{Local: c}, west.as())
	e.await("west", "refused", is(peering.Refused))
	s := w.await("east", "found out", func(s tracker.Status) bool { return strings.Contains(s.LastError, "north") })
	if s.InSession() || s.Configuration != nil {
		t.Errorf("status %+v", s)
	}
}

func TestOwnConfigurationIsChecked(t *testing.T) {
	t.Parallel()
	west := newGateway(t, "west")
	w := west.start(neutral.Docker)
	for name, edit := range map[string]func(*peering.Configuration){
		"type":     func(c *peering.Configuration) { c.Orchestrator.Type = "Docker Swarm" },
		"software": func(c *peering.Configuration) { c.Software = "" },
		"features": func(c *peering.Configuration) { c.Features = []string{"a", "a"} },
		"address":  func(c *peering.Configuration) { c.GatewayAddresses = []string{"no-port"} },
		"identity": func(c *peering.Configuration) { c.Identity.Cluster = "south" },
	} {
		c := west.configuration(neutral.Docker)
		edit(&c)
		if err := w.node.SetLocal(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := stream.NewNode(stream.Config{}); err == nil {
		t.Error("a node of nothing was made")
	}
}

// The network loses, delays, doubles and reorders calls and answers, in both directions, while both sides are
// restarted and change their types. When it is good again both are ready, and each knows the other's last type.
func TestLossyLink(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			west, east := pairOf(t)
			var calls, harmed atomic.Int64
			for i, g := range []*gateway{west, east} {
				g.setWeather(storm(seed*2+uint64(i), &calls, &harmed))
			}
			quiet := stream.Config{Logger: slog.New(slog.DiscardHandler)}
			start := func(g *gateway, o neutral.Orchestrator, peer *gateway) *run {
				c := quiet
				c.Local = g.configuration(o)
				return g.startWith(c, peer.as())
			}
			types := []neutral.Orchestrator{neutral.Docker, neutral.Kubernetes, neutral.Rancher}
			r := rand.New(rand.NewPCG(seed, 9))
			wt, et := types[0], types[1]
			w, e := start(west, wt, east), start(east, et, west)
			for range 6 {
				time.Sleep(time.Duration(r.IntN(400)) * time.Millisecond)
				wt, et = types[r.IntN(3)], types[r.IntN(3)]
				switch r.IntN(3) {
				case 0:
					w.stop()
					w = start(west, wt, east)
				case 1:
					e.stop()
					e = start(east, et, west)
				}
				// Who was not restarted changes its type while it runs.
				if err := w.node.SetLocal(west.configuration(wt)); err != nil {
					t.Fatal(err)
				}
				if err := e.node.SetLocal(east.configuration(et)); err != nil {
					t.Fatal(err)
				}
			}
			west.setWeather(nil)
			east.setWeather(nil)
			w.await("east", string("ready as "+et), readyAs(et))
			e.await("west", string("ready as "+wt), readyAs(wt))
			if harmed.Load() == 0 || harmed.Load() == calls.Load() {
				t.Errorf("%d of %d calls were harmed: this was no test", harmed.Load(), calls.Load())
			}
			t.Logf("%d of %d calls harmed", harmed.Load(), calls.Load())
		})
	}
}

// storm harms about half of the calls.
func storm(seed uint64, calls, harmed *atomic.Int64) func(*http.Request) fate {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(seed, seed))
	return func(*http.Request) fate {
		mu.Lock()
		defer mu.Unlock()
		calls.Add(1)
		f := fate{delay: time.Duration(r.IntN(60)) * time.Millisecond}
		switch r.IntN(8) {
		case 0:
			f.lostGoing = true
		case 1, 2:
			f.lostComing = true
		case 3:
			f.twice = true
		default:
			return f
		}
		harmed.Add(1)
		return f
	}
}

// dial reaches a gateway's peering socket as Envoy does, with whatever identity the test wants.
func (g *gateway) dial(t *testing.T, identity ...string) (peeringv1.PeeringServiceClient, context.Context) {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+g.peeringSocket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	t.Cleanup(cancel)
	for _, id := range identity {
		ctx = metadata.AppendToOutgoingContext(ctx, names.HeaderPeer, id)
	}
	return peeringv1.NewPeeringServiceClient(conn), ctx
}

func hello(cluster string) *peeringv1.HelloRequest {
	version := &peeringv1.ProtocolVersion{Major: 1}
	return &peeringv1.HelloRequest{
		From: &peeringv1.Epoch{Boot: strings.Repeat("0", 32), Number: 1}, Sequence: 1, Cluster: cluster,
		Protocol: &peeringv1.ProtocolRange{Current: version, Oldest: version},
	}
}

func TestStrangers(t *testing.T) {
	t.Parallel()
	west, east := pairOf(t)
	east.start(neutral.Kubernetes, west.as())
	proven := west.identity().String()
	for name, c := range map[string]struct {
		identities []string
		code       codes.Code
	}{
		"proven":         {[]string{proven}, codes.OK},
		"nobody":         {nil, codes.Unauthenticated},
		"two":            {[]string{proven, proven}, codes.Unauthenticated},
		"a list":         {[]string{proven + ",spiffe://other/cluster/x"}, codes.Unauthenticated},
		"empty":          {[]string{""}, codes.Unauthenticated},
		"no SPIFFE id":   {[]string{"west"}, codes.Unauthenticated},
		"another path":   {[]string{"spiffe://west.isthmus.internal/ns/west"}, codes.Unauthenticated},
		"a stranger":     {[]string{"spiffe://north.isthmus.internal/cluster/north"}, codes.PermissionDenied},
		"another domain": {[]string{"spiffe://north.isthmus.internal/cluster/west"}, codes.PermissionDenied},
		"itself":         {[]string{east.identity().String()}, codes.PermissionDenied},
	} {
		client, ctx := east.dial(t, c.identities...)
		_, err := client.Hello(ctx, hello("west"))
		if status.Code(err) != c.code {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
	}
}

func TestMalformedCalls(t *testing.T) {
	t.Parallel()
	west, east := pairOf(t)
	east.start(neutral.Kubernetes, west.as())
	client, ctx := east.dial(t, west.identity().String())
	for name, edit := range map[string]func(*peeringv1.HelloRequest){
		"no epoch":     func(r *peeringv1.HelloRequest) { r.From = nil },
		"short boot":   func(r *peeringv1.HelloRequest) { r.From.Boot = "00" },
		"no sequence":  func(r *peeringv1.HelloRequest) { r.Sequence = 0 },
		"cluster":      func(r *peeringv1.HelloRequest) { r.Cluster = "West\n" },
		"long cluster": func(r *peeringv1.HelloRequest) { r.Cluster = strings.Repeat("w", 64) },
		"no protocol":  func(r *peeringv1.HelloRequest) { r.Protocol = nil },
		"no version":   func(r *peeringv1.HelloRequest) { r.Protocol.Oldest = &peeringv1.ProtocolVersion{} },
	} {
		r := hello("west")
		edit(r)
		if _, err := client.Hello(ctx, r); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	huge := hello("west")
	huge.ProtoReflect().SetUnknown(append([]byte{0xfa, 0x3f, 0x80, 0x80, 0x40}, make([]byte, 1<<20)...)) // field 1023
	if _, err := client.Hello(ctx, huge); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a megabyte: %v", err)
	}
	// A field that a newer minor version has added is no fault.
	newer := hello("west")
	newer.ProtoReflect().SetUnknown([]byte{0xf8, 0x3f, 0x01})
	if r, err := client.Hello(ctx, newer); err != nil || r.GetOutcome() != peeringv1.Outcome_OUTCOME_ACCEPTED {
		t.Errorf("an unknown field: %v %v", r, err)
	}
}

// The peer's certificate is not what was imported: a stranger's authority with the very same name.
func TestImpostor(t *testing.T) {
	t.Parallel()
	west, east := pairOf(t)
	impostor := newGateway(t, "east")
	impostor.knows(west)
	west.leads(east, impostor)
	w := west.start(neutral.Docker, east.as())
	i := impostor.start(neutral.Kubernetes, west.as())
	w.await("east", "unreachable", func(s tracker.Status) bool { return strings.Contains(s.LastError, "hello:") })
	i.await("west", "unreachable", func(s tracker.Status) bool { return strings.Contains(s.LastError, "hello:") })
	time.Sleep(200 * time.Millisecond)
	for _, s := range slices.Concat(w.tracker.Peers(), i.tracker.Peers()) {
		if s.Configuration != nil || s.Condition != peering.Connecting {
			t.Errorf("status %+v", s)
		}
	}
}

// leads makes the name of one gateway lead to another one's address.
func (g *gateway) leads(victim, impostor *gateway) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.routes[names.PeeringHost(victim.name, suffix)] = impostor.address
}

func TestRunsOnce(t *testing.T) {
	t.Parallel()
	west := newGateway(t, "west")
	w := west.start(neutral.Docker)
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "second.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	w.stop()
	if err := w.node.Run(t.Context(), listener); err == nil {
		t.Error("it ran twice")
	}
	if err := w.node.SetPeers(nil); err == nil {
		t.Error("peers were set after the end")
	}
}

// A store that fails, or hangs, disturbs no session, and gets everything once it works again.
func TestBrokenStore(t *testing.T) {
	t.Parallel()
	s := &brokenStore{}
	west, east := pairOf(t)
	track := tracker.New()
	node, err := stream.NewNode(stream.Config{
		Local: west.configuration(neutral.Docker), Tracker: track, Store: s, EdgeSocket: west.edge, Suffix: suffix,
		Timing: timing(), Logger: slog.New(slog.DiscardHandler), Jitter: func() float64 { return 0 },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := node.SetPeers([]stream.Peer{east.as()}); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("unix", west.peeringSocket())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- node.Run(ctx, listener) }()
	e := east.start(neutral.Kubernetes, west.as())
	e.await("west", "ready", readyAs(neutral.Docker))
	w := &run{gateway: west, tracker: track}
	w.await("east", "ready", readyAs(neutral.Kubernetes))
	s.works.Store(true)
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := s.saved.Load(); got == nil || got.Configuration.Orchestrator.Type != neutral.Kubernetes {
		t.Errorf("after the end the store holds %+v", got)
	}
}

type brokenStore struct {
	works atomic.Bool
	saved atomic.Pointer[store.Record]
}

func (s *brokenStore) Load(context.Context) ([]store.Record, error) {
	return nil, fmt.Errorf("disk on fire")
}

func (s *brokenStore) Save(_ context.Context, r store.Record) error {
	if !s.works.Load() {
		return fmt.Errorf("disk on fire")
	}
	s.saved.Store(&r)
	return nil
}

func (s *brokenStore) Delete(context.Context, string) error { return fmt.Errorf("disk on fire") }
