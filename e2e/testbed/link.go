package testbed

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
)

// Link joins two clusters by a veth pair, the only way between them. On it
// only the gateways' TCP port passes, and nothing is forwarded: what one
// cluster's containers, node or engine send to the other is dropped and
// counted.
type Link struct {
	linkState
	bed *Bed
}

// Counters are packets at one end of a link since it was made.
type Counters struct {
	// Accepted are those of the peer port, Dropped are all others.
	AcceptedIn, DroppedIn   uint64
	AcceptedOut, DroppedOut uint64
	// DroppedForward are those that came from, or were to go, further.
	DroppedForward uint64
}

// AddLink joins two clusters of the bed.
func (b *Bed) AddLink(ctx context.Context, first, second string) (*Link, error) {
	a, z := b.Cluster(first), b.Cluster(second)
	if a == nil || z == nil || a == z {
		return nil, fmt.Errorf("link %s-%s: want two clusters of the bed", first, second)
	}
	link := &Link{linkState: linkState{A: first, B: second}, bed: b}
	err := b.update(func(st *state) {
		link.Index = len(st.Links)
		st.Links = append(st.Links, link.linkState)
	})
	if err != nil {
		return nil, fmt.Errorf("link %s-%s: %w", first, second, err)
	}
	if link.Index >= 256*64 {
		return nil, fmt.Errorf("link %s-%s: the address plan is exhausted", first, second)
	}
	name := link.Interface()
	_, err = run(ctx, "ip", "link", "add", name, "netns", a.Namespace, "type", "veth", "peer", "name", name, "netns", z.Namespace)
	if err != nil {
		return nil, fmt.Errorf("link %s-%s: %w", first, second, err)
	}
	for _, end := range []*Cluster{a, z} {
		if err := link.attach(ctx, end); err != nil {
			return nil, fmt.Errorf("link %s-%s: %w", first, second, err)
		}
	}
	b.mu.Lock()
	b.links = append(b.links, link)
	b.mu.Unlock()
	return link, nil
}

// Link returns the link between two clusters in either order, nil when there
// is none.
func (b *Bed) Link(first, second string) *Link {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range b.links {
		if (l.A == first && l.B == second) || (l.A == second && l.B == first) {
			return l
		}
	}
	return nil
}

// Links returns all links of the bed.
func (b *Bed) Links() []*Link {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]*Link(nil), b.links...)
}

// Ends returns the names of the joined clusters.
func (l *Link) Ends() (string, string) { return l.A, l.B }

// Interface is the name of the link's device in both namespaces.
func (l *Link) Interface() string { return "link-" + strconv.Itoa(l.Index) }

// Address is the IP address of a cluster's end, "" for a cluster that is not
// on the link.
func (l *Link) Address(cluster string) string {
	var end int
	switch cluster {
	case l.A:
		end = 1
	case l.B:
		end = 2
	default:
		return ""
	}
	return fmt.Sprintf("10.200.%d.%d", l.Index/64, l.Index%64*4+end)
}

// PeerAddress is the address and port of a cluster's gateway, as the other
// side dials it.
func (l *Link) PeerAddress(cluster string) string {
	return net.JoinHostPort(l.Address(cluster), strconv.Itoa(l.bed.PeerPort))
}

func (l *Link) other(cluster string) string {
	if cluster == l.A {
		return l.B
	}
	return l.A
}

func (l *Link) attach(ctx context.Context, end *Cluster) error {
	device := l.Interface()
	commands := [][]string{
		{"ip", "-n", end.Namespace, "address", "add", l.Address(end.Name) + "/30", "dev", device},
		// Its link-local addresses would be a second way across.
		append(end.enter(), "/bin/sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/"+device+"/disable_ipv6"),
	}
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		commands = commands[:1]
	}
	for _, command := range commands {
		if _, err := run(ctx, command...); err != nil {
			return err
		}
	}
	// The rules stand before the device is up.
	if err := l.filter(ctx, end); err != nil {
		return err
	}
	_, err := run(ctx, "ip", "-n", end.Namespace, "link", "set", device, "up")
	return err
}

// filter sets the rules of one end. They are in the mangle table, which is
// passed before the engines' address translation: a published container port
// cannot turn link traffic into the cluster, and masqueraded container traffic
// still shows its own source address.
func (l *Link) filter(ctx context.Context, end *Cluster) error {
	device, port := l.Interface(), strconv.Itoa(l.bed.PeerPort)
	own, peer := l.Address(end.Name), l.Address(l.other(end.Name))
	in, out, forward := device+"-in", device+"-out", device+"-fwd"
	rules := strings.Join([]string{
		"*mangle",
		":" + in + " -",
		":" + out + " -",
		":" + forward + " -",
		"-A PREROUTING -i " + device + " -j " + in,
		"-A POSTROUTING -o " + device + " -j " + out,
		"-A FORWARD -i " + device + " -j " + forward,
		"-A FORWARD -o " + device + " -j " + forward,
		// To our gateway, and the answers to what our gateway dialled. Related is the reset by which a rule of REJECT
		// answers; where it is lost, who dials waits as for a peer that is silent.
		"-A " + in + " -s " + peer + " -d " + own + " -p tcp --dport " + port + " -j ACCEPT",
		"-A " + in + " -s " + peer + " -d " + own + " -p tcp --sport " + port + " -m conntrack --ctstate ESTABLISHED,RELATED --ctdir REPLY -j ACCEPT",
		"-A " + in + " -j DROP",
		"-A " + out + " -s " + own + " -d " + peer + " -p tcp --dport " + port + " -j ACCEPT",
		"-A " + out + " -s " + own + " -d " + peer + " -p tcp --sport " + port + " -m conntrack --ctstate ESTABLISHED,RELATED --ctdir REPLY -j ACCEPT",
		"-A " + out + " -j DROP",
		"-A " + forward + " -j DROP",
		"COMMIT", "",
	}, "\n")
	_, err := runWith(ctx, nil, strings.NewReader(rules), append(end.enter(), "iptables-restore", "--noflush", "--wait")...)
	return err
}

// Counters reads the packet counts of a cluster's end.
func (l *Link) Counters(ctx context.Context, cluster string) (Counters, error) {
	var c Counters
	end := l.bed.Cluster(cluster)
	if end == nil || l.Address(cluster) == "" {
		return c, fmt.Errorf("cluster %s is not on the link %s-%s", cluster, l.A, l.B)
	}
	count := func(chain string) (accepted, dropped uint64, err error) {
		table, err := end.Exec(ctx, "iptables", "--wait", "-t", "mangle", "-nvxL", chain)
		if err != nil {
			return 0, 0, fmt.Errorf("link counters: %w", err)
		}
		accepted, dropped = parseCounters(table)
		return accepted, dropped, nil
	}
	var err error
	if c.AcceptedIn, c.DroppedIn, err = count(l.Interface() + "-in"); err != nil {
		return c, err
	}
	if c.AcceptedOut, c.DroppedOut, err = count(l.Interface() + "-out"); err != nil {
		return c, err
	}
	_, c.DroppedForward, err = count(l.Interface() + "-fwd")
	return c, err
}

// parseCounters sums the packets of a chain by verdict, from what iptables
// -nvxL prints.
func parseCounters(table string) (accepted, dropped uint64) {
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			continue
		}
		packets, err := strconv.ParseUint(fields[0], 10, 64)
		if err != nil {
			continue // a heading
		}
		switch fields[2] {
		case "ACCEPT":
			accepted += packets
		case "DROP":
			dropped += packets
		}
	}
	return accepted, dropped
}

// Cut takes the link down: packets are lost without notice, as when a cable
// is pulled.
func (l *Link) Cut(ctx context.Context) error { return l.set(ctx, "down") }

// Restore takes a cut link up again.
func (l *Link) Restore(ctx context.Context) error { return l.set(ctx, "up") }

func (l *Link) set(ctx context.Context, state string) error {
	for _, end := range []string{l.A, l.B} {
		if _, err := run(ctx, "ip", "-n", l.bed.Cluster(end).Namespace, "link", "set", l.Interface(), state); err != nil {
			return fmt.Errorf("link %s-%s %s: %w", l.A, l.B, state, err)
		}
	}
	return nil
}
