package docker

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// catalogue follows an engine and gives what it publishes, as one line a service.
func catalogue(t *testing.T, c *Cluster) <-chan []string {
	t.Helper()
	published := make(chan []string, 100)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- c.Services(ctx, func(services []neutral.Service) { published <- describe(services) })
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Services: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Services does not end with its context")
		}
	})
	return published
}

func describe(services []neutral.Service) []string {
	lines := []string{}
	for _, s := range services {
		var b strings.Builder
		b.WriteString(s.ID())
		for _, p := range s.Ports {
			fmt.Fprintf(&b, " %s=%d/%s/%s%v", p.Name, p.Number, p.Protocol, p.App, p.Endpoints)
		}
		lines = append(lines, b.String())
	}
	return lines
}

func expect(t *testing.T, published <-chan []string, want ...string) {
	t.Helper()
	select {
	case got := <-published:
		if diff := cmp.Diff(append([]string{}, want...), got); diff != "" {
			t.Fatalf("published (-want +got):\n%s", diff)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("nothing was published; want %q", want)
	}
}

func expectNothing(t *testing.T, published <-chan []string, wait time.Duration) {
	t.Helper()
	select {
	case got := <-published:
		t.Fatalf("published %q, want nothing", got)
	case <-time.After(wait):
	}
}

func TestCatalogueOfContainers(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	hostMode := running("h", "Host_App.1", "host", exportLabels(), onNetwork("host", "net-host", ""))
	hostMode["exposed"] = object{"9000/tcp": object{}, "9000/udp": object{}}
	unwell := running("u", "unwell", "default", exportLabels(), onNetwork("bridge", "net-bridge", "172.17.0.6"), listedPort(80))
	unwell["Status"] = "Up 3 seconds (unhealthy)"
	paused := running("p", "paused", "default", exportLabels(), onNetwork("bridge", "net-bridge", "172.17.0.7"), listedPort(80))
	paused["State"], paused["Status"] = "paused", "Up 3 seconds (Paused)"
	e.containers = []object{
		running("w", "web", "default", exportLabels(), onNetwork("bridge", "net-bridge", "172.17.0.2"), listedPort(8080),
			object{"IP": "0.0.0.0", "PrivatePort": 8080, "PublicPort": 80, "Type": "tcp"}),
		hostMode, unwell, paused,
		running("s", "sidecar", "container:w", exportLabels(labelPorts, "dns=53/udp,admin=9901/h2c"), nil),
		running("n", "isolated", "none", exportLabels(labelPorts, "80"), onNetwork("none", "net-none", "")),
		running("a1", "shop-api-1", "shop_net", exportLabels(labelComposeProject, "shop", labelComposeService, "api", "n", "1", "tier", "x"),
			onNetwork("shop_net", "net-bridge", "172.18.0.2"), listedPort(80)),
		running("a2", "shop-api-2", "shop_net", exportLabels(labelComposeProject, "shop", labelComposeService, "api", "n", "2", "tier", "x"),
			onNetwork("shop_net", "net-bridge", "172.18.0.3"), listedPort(80)),
		running("a3", "shop-api-run-1", "shop_net", exportLabels(labelComposeProject, "shop", labelComposeService, "api", labelComposeOneOff, "True"),
			onNetwork("shop_net", "net-bridge", "172.18.0.4"), listedPort(80)),
		running("g", "db", "default", exportLabels(labelService, "orders", labelProtocol, "tcp"), onNetwork("bridge", "net-bridge", "172.17.0.9"), listedPort(5432)),
		running("x", "broken", "default", exportLabels(labelPorts, "eighty"), onNetwork("bridge", "net-bridge", "172.17.0.10")),
		running("y", "portless", "default", exportLabels(), onNetwork("bridge", "net-bridge", "172.17.0.11")),
		running("m", "published", "macnet", exportLabels(), onNetwork("macnet", "net-mac", "192.168.1.5"),
			object{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8081, "Type": "tcp"}),
		running("z", "not-exported", "default", map[string]string{}, onNetwork("bridge", "net-bridge", "172.17.0.12"), listedPort(80)),
	}
	e.networks = append(e.networks, object{"Id": "net-mac", "Name": "macnet", "Driver": "macvlan"})
	e.start()
	expect(t, catalogue(t, e.connect()),
		"host-app-1.default 9000=9000/tcp/http[127.0.0.1:9000] 9000-udp=9000/udp/tcp[127.0.0.1:9000]",
		"isolated.default 80=80/tcp/http[]",
		"orders.default 5432=5432/tcp/tcp[172.17.0.9:5432]",
		"paused.default 80=80/tcp/http[]",
		"published.default 80=80/tcp/http[127.0.0.1:8081]",
		"sidecar.default dns=53/udp/tcp[172.17.0.2:53] admin=9901/tcp/h2c[172.17.0.2:9901]",
		"unwell.default 80=80/tcp/http[]",
		"web.default 8080=8080/tcp/http[172.17.0.2:8080]",
		"api.shop 80=80/tcp/http[172.18.0.2:80 172.18.0.3:80]")
}

// A Pod of several containers is one endpoint, its holder's, as long as all of them are ready that are to last.
func TestCatalogueOfPods(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	pod := func(name, member string, more ...string) map[string]string {
		return exportLabels(append(more, labelPod, name, labelMember, member)...)
	}
	of := func(name, holder string, members ...object) []object {
		held := running(holder, name, "default", exportLabels(labelPod, name, labelLasting, "2"), onNetwork("bridge", "net-bridge", "172.17.0.2"), listedPort(80))
		return append([]object{held}, members...)
	}
	member := func(id, pod string, labels map[string]string, holder string) object {
		return running(id, pod, "container:"+holder, labels, nil)
	}
	ill := member("b2", "b.y", pod("b", "y"), "hb")
	ill["Status"] = "Up 3 seconds (unhealthy)"
	e.containers = slices.Concat(
		of("a", "ha", member("a1", "a.x", pod("a", "x"), "ha"), member("a2", "a.y", pod("a", "y"), "ha")),
		of("b", "hb", member("b1", "b.x", pod("b", "x"), "hb"), ill),
		of("c", "hc", member("c1", "c.x", pod("c", "x"), "hc"), member("c2", "c.i", pod("c", "i", labelInitial, "true"), "hc")),
	)
	e.start()
	published := catalogue(t, e.connect())
	expect(t, published, "a.default 80=80/tcp/http[172.17.0.2:80]", "b.default 80=80/tcp/http[]", "c.default 80=80/tcp/http[]")
	e.set(func() { e.containers = slices.Delete(e.containers, 1, 2) })
	e.tell("container", "die", "a1")
	expect(t, published, "a.default 80=80/tcp/http[]", "b.default 80=80/tcp/http[]", "c.default 80=80/tcp/http[]")
}

func TestCatalogueOfSwarm(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	stack := map[string]string{labelExport: "true", labelStack: "shop"}
	e.services = []object{
		{"ID": "s1", "Spec": object{"Name": "shop_web", "Labels": stack},
			"Endpoint": object{"Ports": []object{{"Name": "http", "Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "host"}}}},
		{"ID": "s2", "Spec": object{"Name": "mesh", "Labels": map[string]string{labelExport: "true"}},
			"Endpoint": object{"Ports": []object{{"Protocol": "tcp", "TargetPort": 81, "PublishedPort": 8181, "PublishMode": "ingress"}}}},
		{"ID": "s3", "Spec": object{"Name": "idle", "Labels": map[string]string{labelExport: "true", labelPorts: "9090/grpc"}}},
	}
	host := object{"Ports": []object{{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "host"}}}
	task := func(service, node, container string, status object) object {
		return object{"ID": "t" + container, "ServiceID": service, "NodeID": node, "DesiredState": "running",
			"Status": object{"State": "running", "ContainerStatus": object{"ContainerID": container}, "PortStatus": status}}
	}
	starting := task("s1", "other", "c9", host)
	starting["Status"].(object)["State"] = "starting"
	e.tasks = []object{task("s1", "self", "c1", host), task("s1", "other", "c2", host), task("s1", "self", "c3", host), starting,
		task("s2", "other", "c4", object{})}
	e.nodes = []object{{"ID": "self", "Status": object{"State": "ready", "Addr": "0.0.0.0"}}, {"ID": "other", "Status": object{"State": "ready", "Addr": "10.0.0.2"}}}
	e.networks = append(e.networks, object{"Id": "net-gw", "Name": gatewayBridge, "Driver": "bridge"})
	e.others["/networks/"+gatewayBridge] = object{"Id": "net-gw", "Name": gatewayBridge,
		"Containers": object{"c1": object{"IPv4Address": "172.19.0.5/16", "IPv6Address": ""}}}
	ofService := exportLabels(labelSwarmService, "s1", labelSwarmTaskName, "shop_web.1.t1") // exported twice over
	e.containers = []object{running("c1", "shop_web.1.t1", "default", ofService, onNetwork("ov", "net-overlay", "10.0.9.3"))}
	e.start()
	expect(t, catalogue(t, e.connect()),
		"idle.default 9090=9090/tcp/grpc[]",
		"mesh.default 81=81/tcp/http[127.0.0.1:8181]",
		"web.shop http=80/tcp/http[10.0.0.2:8080 172.19.0.5:80]")
}

func TestCatalogueFollows(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	one := running("c1", "one", "default", exportLabels(labelService, "web"), onNetwork("bridge", "net-bridge", "172.17.0.2"), listedPort(80))
	two := running("c2", "two", "default", exportLabels(labelService, "web"), onNetwork("bridge", "net-bridge", "172.17.0.3"), listedPort(80))
	e.start()
	published := catalogue(t, e.connect())
	expect(t, published) // complete, and empty

	e.set(func() { e.containers = []object{one, two} })
	before := e.listed()
	for range 50 { // a burst is one listing
		e.tell("container", "start", "c1")
	}
	expect(t, published, "web.default 80=80/tcp/http[172.17.0.2:80 172.17.0.3:80]")
	if n := e.listed() - before; n > 10 {
		t.Errorf("a burst of events was %d listings", n)
	}

	// A death is known before the list knows it, and stays known while the list does not.
	stall := make(chan struct{})
	e.set(func() { e.stall = stall })
	e.tell("container", "die", "c1")
	expect(t, published, "web.default 80=80/tcp/http[172.17.0.3:80]")
	before = e.listed()
	e.set(func() { e.stall = nil })
	close(stall)
	e.tell("network", "disconnect", "net-bridge")
	waitFor(t, func() bool { return e.listed() > before })
	expectNothing(t, published, 200*time.Millisecond)

	e.tell("container", "start", "c1")
	expect(t, published, "web.default 80=80/tcp/http[172.17.0.2:80 172.17.0.3:80]")

	e.set(func() { two["Status"] = "Up 9 seconds (unhealthy)" })
	e.tell("container", "health_status: unhealthy", "c2")
	expect(t, published, "web.default 80=80/tcp/http[172.17.0.2:80]")

	e.set(func() { e.containers = nil })
	e.tell("container", "destroy", "c2")
	e.tell("container", "die", "c1")
	expect(t, published)
}

func TestCatalogueOutlivesItsEngine(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	one := running("c1", "one", "default", exportLabels(), onNetwork("bridge", "net-bridge", "172.17.0.2"), listedPort(80))
	e.containers = []object{one}
	published := catalogue(t, e.connect()) // the engine is not there yet
	expectNothing(t, published, 100*time.Millisecond)
	e.start()
	expect(t, published, "one.default 80=80/tcp/http[172.17.0.2:80]")

	e.stop()
	expectNothing(t, published, 300*time.Millisecond)
	e.start() // as it was
	waitFor(t, func() bool { return e.followers() == 1 })
	expectNothing(t, published, 300*time.Millisecond)

	e.stop()
	e.set(func() { one["NetworkSettings"] = object{"Networks": onNetwork("bridge", "net-bridge", "172.17.0.77")} })
	e.start() // with another address, of which no event tells
	expect(t, published, "one.default 80=80/tcp/http[172.17.0.77:80]")
}

// A manager whose swarm has no leader withdraws nothing.
func TestCatalogueOutlivesItsLeader(t *testing.T) {
	t.Parallel()
	e := newFakeEngine(t)
	e.services = []object{{"ID": "s", "Spec": object{"Name": "idle", "Labels": map[string]string{labelExport: "true", labelPorts: "9090/grpc"}}}}
	e.start()
	published := catalogue(t, e.connect())
	expect(t, published, "idle.default 9090=9090/tcp/grpc[]")
	e.set(func() { e.leaderless = true })
	e.tell("service", "update", "s")
	expectNothing(t, published, 300*time.Millisecond)
	e.set(func() { e.leaderless, e.services = false, []object{} })
	expect(t, published)
}

func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not come to be in time")
		}
	}
}

func TestCompileKeepsNamesApart(t *testing.T) {
	t.Parallel()
	ports := []exportPort{exportPort{socket: socket{80, "tcp"}, app: neutral.HTTP1}.complete()}
	at := func(namespace, name, address string) export {
		return export{namespace: namespace, name: name, ports: ports, labels: map[string]string{"name": name, "all": "same"},
			members: []member{{id: name, ready: true, address: netip.MustParseAddr(address)}}}
	}
	var complaints []string
	got := describe(compile([]export{at("default", "a_b", "10.0.0.1"), at("default", "a-b", "10.0.0.2"), at("default", "A.B", "10.0.0.3"),
		at("default", "a-b", "10.0.0.4"), at("default", "...", "10.0.0.5"), at("ns_1", "a_b", "10.0.0.6")},
		func(about, _ string) { complaints = append(complaints, about) }))
	want := []string{"a-b.default 80=80/tcp/http[10.0.0.2:80 10.0.0.4:80]", "a-b.ns-1 80=80/tcp/http[10.0.0.6:80]"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("catalogue (-want +got):\n%s", diff)
	}
	slices.Sort(complaints)
	if want := "default/... default/A.B default/a_b"; strings.Join(complaints, " ") != want {
		t.Errorf("complaints about %q, want %q", complaints, want)
	}
}

func TestCompileKeepsCommonLabels(t *testing.T) {
	t.Parallel()
	ports := []exportPort{exportPort{socket: socket{80, "tcp"}, app: neutral.HTTP1}.complete()}
	first := map[string]string{"tier": "web", "n": "1", "only": "here"}
	services := compile([]export{{namespace: "d", name: "w", ports: ports, labels: first},
		{namespace: "d", name: "w", ports: ports, labels: map[string]string{"tier": "web", "n": "2"}}}, func(string, string) {})
	if diff := cmp.Diff(map[string]string{"tier": "web"}, services[0].Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if len(first) != 3 {
		t.Errorf("a container's own labels were changed: %v", first)
	}
}

func TestParsePorts(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"8080/http,9090/grpc":          "8080=8080/tcp/http 9090=9090/tcp/grpc",
		"80":                           "80=80/tcp/h2c",
		"db=5432/tcp , 53/udp":         "db=5432/tcp/tcp 53-udp=53/udp/tcp",
		"80/tcp/http":                  "80=80/tcp/http",
		"8443/https":                   "8443=8443/tcp/tcp",
		"80,80/udp":                    "80=80/tcp/h2c 80-udp=80/udp/tcp",
		"":                             "error",
		"0":                            "error",
		"65536":                        "error",
		"http":                         "error",
		"80,80":                        "error",
		"a=80,a=81":                    "error",
		"80/smtp":                      "error",
		"80/tcp/http/more":             "error",
		"Bad_Name=80":                  "error",
		"80,":                          "error",
		strings.Repeat("x", 70) + "=1": "error",
	}
	for label, want := range tests {
		ports, err := parsePorts(label, neutral.HTTP2)
		var words []string
		for _, p := range ports {
			words = append(words, fmt.Sprintf("%s=%d/%s/%s", p.name, p.number, p.transport, p.app))
		}
		got := strings.Join(words, " ")
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%q: %s (%v), want %s", label, got, err, want)
		}
	}
}

var dnsPattern = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

func FuzzPorts(f *testing.F) {
	f.Add("8080/http,9090/grpc")
	f.Add("db=5432/tcp,53/udp")
	f.Add("=,/,//")
	f.Fuzz(func(t *testing.T, label string) {
		ports, err := parsePorts(label, neutral.HTTP1)
		if err != nil {
			if ports != nil {
				t.Fatalf("%q gave ports and an error", label)
			}
			return
		}
		for _, p := range ports {
			if p.number == 0 || p.app == "" || !isTransport(p.transport) || !dnsPattern.MatchString(p.name) {
				t.Fatalf("%q gave %+v", label, p)
			}
		}
		if n := len(uniquePorts(slices.Clone(ports))); n != len(ports) {
			t.Fatalf("%q gave %d ports, %d of them apart", label, len(ports), n)
		}
	})
}

func FuzzDNSLabel(f *testing.F) {
	f.Add("My_Db.x")
	f.Add("-")
	f.Fuzz(func(t *testing.T, name string) {
		label := dnsLabel(name)
		if label != "" && !dnsPattern.MatchString(label) {
			t.Fatalf("%q became %q", name, label)
		}
		if dnsLabel(label) != label {
			t.Fatalf("%q is not stable", label)
		}
	})
}
