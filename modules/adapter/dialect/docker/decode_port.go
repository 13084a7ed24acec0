package docker

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// portsFromTree joins ExposedPorts and PortBindings. Of a range of host ports the target chooses.
func portsFromTree(t, host *tree) []neutral.Port {
	var ports []neutral.Port
	all := host.get("PublishAllPorts").boolean()
	if all {
		host.get("PublishAllPorts").note("only the ports that the request exposes", "what ports the image exposes is not known before it is pulled")
	}
	bound := map[neutral.Port]bool{}
	for _, entry := range host.get("PortBindings").entries() {
		port, ok := portKey(entry)
		if !ok {
			continue
		}
		if entry.kind == treeNull {
			continue
		}
		bindings := entry.items()
		if len(bindings) == 0 {
			continue
		}
		bound[port] = true
		for _, binding := range bindings {
			p := port
			p.Publish, p.HostMode = true, true
			p.HostIP = binding.get("HostIp").str()
			if p.HostIP != "" {
				if _, err := netip.ParseAddr(p.HostIP); err != nil {
					binding.get("HostIp").fail(fault.Invalid, "invalid IP address: %s", shorten(p.HostIP))
				}
			}
			p.Published = hostPort(binding.get("HostPort"))
			ports = append(ports, p)
		}
	}
	for _, entry := range t.get("ExposedPorts").entries() {
		entry.understood()
		port, ok := portKey(entry)
		if !ok || bound[port] {
			continue
		}
		bound[port] = true
		port.Publish, port.HostMode = all, all
		ports = append(ports, port)
	}
	slices.SortFunc(ports, func(a, b neutral.Port) int {
		return cmp.Or(cmp.Compare(a.Container, b.Container), strings.Compare(a.Protocol, b.Protocol),
			cmp.Compare(a.Published, b.Published), strings.Compare(a.HostIP, b.HostIP))
	})
	return ports
}

// portKey reads a key as "80/tcp".
func portKey(entry *tree) (neutral.Port, bool) {
	text, protocol, ok := strings.Cut(entry.name, "/")
	if !ok {
		protocol = "tcp"
	}
	protocol = strings.ToLower(protocol)
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 || !slices.Contains(protocols, protocol) {
		entry.fail(fault.Invalid, "invalid port specification: %q", shorten(entry.name))
		return neutral.Port{}, false
	}
	return neutral.Port{Container: uint16(n), Protocol: protocol}, true
}

var protocols = []string{"tcp", "udp", "sctp"}

// hostPort reads a published port; 0 lets the target choose.
func hostPort(t *tree) uint16 {
	if t == nil {
		return 0
	}
	if t.kind != treeString {
		t.wrong("a string")
		return 0
	}
	if first, last, ok := strings.Cut(t.text, "-"); ok {
		a, aErr := strconv.ParseUint(first, 10, 16)
		b, bErr := strconv.ParseUint(last, 10, 16)
		if aErr != nil || bErr != nil || a > b {
			t.fail(fault.Invalid, "invalid port specification: %q", shorten(t.text))
		}
		if a == b {
			t.understood()
			return uint16(a)
		}
		t.understood()
		t.note("published on a port that the target chooses", "a range cannot be handed on")
		return 0
	}
	if t.str() == "" {
		return 0
	}
	n, err := strconv.ParseUint(t.text, 10, 16)
	if err != nil {
		t.fail(fault.Invalid, "invalid port specification: %q", shorten(t.text))
	}
	return uint16(n)
}

// networkFromTree reads the network mode and the networks. Addresses and driver options of an endpoint are left unread.
func networkFromTree(t, host *tree, c *neutral.Container) {
	modeField := host.get("NetworkMode")
	mode := modeField.str()
	endpoints := t.get("NetworkingConfig").get("EndpointsConfig").entries()
	switch {
	case mode == "" || mode == "default":
		c.Network = neutral.NetworkBridge
	case mode == "host", mode == "none", mode == "bridge", strings.HasPrefix(mode, "container:"):
		c.Network = neutral.NetworkMode(mode)
		if mode == "container:" {
			modeField.fail(fault.Invalid, "invalid container format container:<name|id>")
		}
	default:
		c.Network = neutral.NetworkBridge
		c.Networks = append(c.Networks, neutral.NetworkAttachment{Name: mode})
	}
	for _, endpoint := range endpoints {
		endpointFromTree(endpoint, mode, c)
	}
	if t.get("NetworkDisabled").boolean() {
		c.Network, c.Networks = neutral.NetworkNone, nil
	}
	if (c.Network == neutral.NetworkHost || c.Network == neutral.NetworkNone) && len(c.Networks) > 0 {
		modeField.fail(fault.Invalid, "conflicting options: network mode %s and user networks", c.Network)
	}
}

func endpointFromTree(endpoint *tree, mode string, c *neutral.Container) {
	var aliases []string
	if endpoint.kind != treeNull {
		aliases = endpoint.get("Aliases").strs()
		endpoint.get("NetworkID").understood() // the id of the network that its key names
	}
	switch endpoint.name {
	case "default", "bridge", "host", "none":
		if endpoint.name == "default" && (mode == "" || mode == "default" || mode == "bridge") || endpoint.name == mode ||
			endpoint.name == "bridge" && (mode == "" || mode == "default") {
			if len(aliases) > 0 {
				endpoint.fail(fault.Invalid, "invalid endpoint settings: network-scoped aliases are only supported for "+
					"user-defined networks")
			}
			return
		}
	}
	i := slices.IndexFunc(c.Networks, func(n neutral.NetworkAttachment) bool { return n.Name == endpoint.name })
	if i < 0 {
		c.Networks = append(c.Networks, neutral.NetworkAttachment{Name: endpoint.name, Aliases: aliases})
		return
	}
	c.Networks[i].Aliases = aliases
}
