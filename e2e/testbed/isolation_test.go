package testbed

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// target is an address that one cluster must not reach in another, though it
// answers at home.
type target struct {
	name         string
	from, at     *Cluster
	home, across string
}

// testIsolation tries every way across the link. For the ways that routing
// alone would close, routes over the link are set up first: the rules must
// hold without that.
func testIsolation(t *testing.T, bed *Bed) {
	ctx := testContext(t, time.Minute)
	west, east, link := bed.Docker("west"), bed.Kubernetes("east"), bed.Link("west", "east")
	westLink, eastLink := link.Address("west"), link.Address("east")
	for _, route := range [][]string{
		{"ip", "-n", west.Namespace, "route", "add", east.address("0.0") + "/16", "via", eastLink},
		{"ip", "-n", east.Namespace, "route", "add", "172." + strings.Split(west.Bridge(), ".")[1] + ".0.0/16", "via", westLink},
	} {
		if _, err := run(ctx, route...); err != nil {
			t.Fatal(err)
		}
	}
	kubectl := func(kind, path string) string {
		out, err := east.Kubectl(ctx, "get", kind, "web", "-o", "jsonpath="+path)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	podIP, serviceIP := kubectl("pod", "{.status.podIP}"), kubectl("service", "{.spec.clusterIP}")
	container := containerIP(t, bed, "web")
	targets := []target{
		{"API server by the link", &west.Cluster, &east.Cluster, eastLink + ":6443", eastLink + ":6443"},
		{"API server by the node", &west.Cluster, &east.Cluster, east.Server(), east.Server()},
		{"kubelet by the link", &west.Cluster, &east.Cluster, eastLink + ":10250", eastLink + ":10250"},
		{"kubelet by the node", &west.Cluster, &east.Cluster, east.NodeAddress() + ":10250", east.NodeAddress() + ":10250"},
		{"pod", &west.Cluster, &east.Cluster, podIP + ":80", podIP + ":80"},
		{"service", &west.Cluster, &east.Cluster, serviceIP + ":80", serviceIP + ":80"},
		{"published port by the link", &east.Cluster, &west.Cluster, westLink + ":8088", westLink + ":8088"},
		{"published port by the bridge", &east.Cluster, &west.Cluster, west.Bridge() + ":8088", west.Bridge() + ":8088"},
		{"container", &east.Cluster, &west.Cluster, container + ":80", container + ":80"},
	}
	before, err := link.Counters(ctx, "east")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for _, target := range targets {
		group.Go(func() {
			if err := target.at.canDial(ctx, target.home); err != nil {
				t.Errorf("%s does not answer at home, so the proof shows nothing: %v", target.name, err)
			}
			if err := target.from.canDial(ctx, target.across); err == nil {
				t.Errorf("%s at %s of %s answers %s", target.name, target.across, target.at.Name, target.from.Name)
			}
		})
	}
	// The peer port is no key to others when it is the source.
	group.Go(func() {
		if conn, err := dialFrom(ctx, &west.Cluster, westLink, bed.PeerPort, eastLink+":6443"); err == nil {
			_ = conn.Close()
			t.Error("the API server answers a connection that comes from the peer port")
		}
	})
	// Containers do not get to the peer's gateway, not even masqueraded.
	gateway, err := east.ListenIn(ctx, "tcp", link.PeerAddress("east"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = gateway.Close() }()
	group.Go(func() {
		host, port, _ := net.SplitHostPort(link.PeerAddress("east"))
		if _, err := west.Run(ctx, "exec", "web", "nc", "-w", "1", host, port); err == nil {
			t.Error("a container reaches the peer's gateway past its own")
		}
	})
	group.Go(func() {
		if _, err := west.Exec(ctx, "busybox", "ping", "-c", "1", "-W", "1", eastLink); err == nil {
			t.Error("the link answers ping")
		}
	})
	group.Wait()

	if err := west.canDial(ctx, link.PeerAddress("east")); err != nil {
		t.Errorf("the peer port does not answer: %v", err)
	}
	after, err := link.Counters(ctx, "east")
	if err != nil {
		t.Fatal(err)
	}
	// What west's own rules drop never gets to east; east's own attempts are
	// dropped as they leave.
	if after.AcceptedIn <= before.AcceptedIn || after.AcceptedOut <= before.AcceptedOut || after.DroppedOut <= before.DroppedOut {
		t.Errorf("counters of east: %+v, then %+v", before, after)
	}
	atWest, err := link.Counters(ctx, "west")
	if err != nil {
		t.Fatal(err)
	}
	if atWest.DroppedForward == 0 || atWest.DroppedOut == 0 {
		t.Errorf("counters of west: %+v", atWest)
	}
	testInboundRules(ctx, t, bed)
}

// testInboundRules opens west's own rules: those of east must hold against a
// peer that has none.
func testInboundRules(ctx context.Context, t *testing.T, bed *Bed) {
	west, east, link := bed.Docker("west"), bed.Kubernetes("east"), bed.Link("west", "east")
	for _, chain := range []string{"-out", "-fwd", "-in"} {
		if _, err := west.Exec(ctx, "iptables", "--wait", "-t", "mangle", "-I", link.Interface()+chain, "-j", "ACCEPT"); err != nil {
			t.Fatal(err)
		}
	}
	var group sync.WaitGroup
	for _, address := range []string{link.Address("east") + ":6443", east.Server(), link.Address("east") + ":10250"} {
		group.Go(func() {
			if err := west.canDial(ctx, address); err == nil {
				t.Errorf("%s answers a peer without rules of its own", address)
			}
		})
	}
	group.Go(func() {
		if conn, err := dialFrom(ctx, &west.Cluster, link.Address("west"), bed.PeerPort, link.Address("east")+":6443"); err == nil {
			_ = conn.Close()
			t.Error("the API server answers a peer without rules that comes from the peer port")
		}
	})
	group.Wait()
	counters, err := link.Counters(ctx, "east")
	if err != nil {
		t.Fatal(err)
	}
	if counters.DroppedIn == 0 {
		t.Errorf("counters of east: %+v", counters)
	}
}

func dialFrom(ctx context.Context, cluster *Cluster, host string, port int, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return inNamespace(cluster.Namespace, func() (net.Conn, error) {
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(host), Port: port}}
		return dialer.DialContext(ctx, "tcp", address)
	})
}

func testCut(t *testing.T, bed *Bed) {
	ctx := testContext(t, 30*time.Second)
	west, east, link := bed.Docker("west"), bed.Kubernetes("east"), bed.Link("west", "east")
	gateway, err := east.ListenIn(ctx, "tcp", link.PeerAddress("east"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = gateway.Close() }()
	if err := link.Cut(ctx); err != nil {
		t.Fatal(err)
	}
	if err := west.canDial(ctx, link.PeerAddress("east")); err == nil {
		t.Error("a cut link passes the peer port")
	}
	if err := link.Restore(ctx); err != nil {
		t.Fatal(err)
	}
	err = waitReady(ctx, "the restored link", 10*time.Second, func(ctx context.Context) error {
		return west.canDial(ctx, link.PeerAddress("east"))
	})
	if err != nil {
		t.Error(err)
	}
}
