package names

import "hash/fnv"

// TunnelHost is the name by which a gateway that cannot be dialled asks for a peer in TLS, to leave a reverse tunnel
// with it. It ends as LinkHost does.
func TunnelHost(dialler, trustDomain string) string {
	return "tunnel." + LinkHost(dialler, trustDomain)
}

// TunnelCluster is the Envoy cluster by which reverse tunnels to a peer are dialled, and its listener for what comes
// back by them.
func TunnelCluster(peer string) string { return "tunnel/" + peer }

// TunnelNode and TunnelGroup are what a gateway calls itself as it leaves a tunnel; Envoy wants two names that differ.
func TunnelNode(cluster string) string { return cluster }

// TunnelGroup is the second name.
func TunnelGroup(cluster string) string { return "gateway/" + cluster }

// SocketMark is a TCP option of Linux, TCP_NOTSENT_LOWAT, whose value marks the sockets of reverse tunnels in use, since
// their addresses do not tell whose they are. From a gigabyte on the option does nothing.
const SocketMark = 25

// TunnelMark is the mark of the tunnels that a peer left.
func TunnelMark(peer string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(peer)) // never fails
	return 1<<30 | int(h.Sum32()>>2)
}
