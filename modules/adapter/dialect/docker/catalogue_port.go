package docker

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// exportPort is a port that an exported container or service offers.
type exportPort struct {
	name string
	socket
	app neutral.AppProtocol
}

// socket is a transport's port inside a container.
type socket struct {
	number    uint16
	transport string // tcp, udp, sctp
}

// parsePorts reads the label isthmus.io/ports: [name=]number[/tcp|udp|sctp][/http|h2c|grpc|tcp], separated by commas.
// App is what a port speaks that does not say.
func parsePorts(label string, app neutral.AppProtocol) ([]exportPort, error) {
	var ports []exportPort
	for _, entry := range strings.Split(label, ",") {
		port, err := parsePort(strings.TrimSpace(entry), app)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(ports, func(p exportPort) bool { return p.socket == port.socket || p.name == port.name }) {
			return nil, fmt.Errorf("port %q is named twice", entry)
		}
		ports = append(ports, port)
	}
	return ports, nil
}

func parsePort(entry string, app neutral.AppProtocol) (exportPort, error) {
	name, rest, named := strings.Cut(entry, "=")
	if !named {
		name, rest = "", entry
	} else if dnsLabel(name) != name {
		return exportPort{}, fmt.Errorf("port name %q is no DNS label", name)
	}
	words := strings.Split(rest, "/")
	number, err := strconv.ParseUint(words[0], 10, 16)
	if err != nil || number == 0 {
		return exportPort{}, fmt.Errorf("port %q has no number from 1 to 65535", entry)
	}
	port := exportPort{name: name, socket: socket{number: uint16(number), transport: "tcp"}}
	words = words[1:]
	if len(words) > 0 && isTransport(words[0]) {
		port.transport = words[0]
		if len(words) == 1 {
			port.app = neutral.TCP // said to be no more than that
		}
		words = words[1:]
	}
	switch {
	case len(words) > 1:
		return exportPort{}, fmt.Errorf("port %q says too much", entry)
	case len(words) == 1:
		if port.app, err = parseProtocol(words[0]); err != nil {
			return exportPort{}, err
		}
	case port.app == "":
		port.app = app
	}
	return port.complete(), nil
}

// complete names a port and gives it a protocol that its transport can carry.
func (p exportPort) complete() exportPort {
	if p.transport != "tcp" {
		p.app = neutral.TCP
	}
	if p.name == "" {
		p.name = strconv.Itoa(int(p.number))
		if p.transport != "tcp" {
			p.name += "-" + p.transport
		}
	}
	return p
}

func isTransport(word string) bool { return word == "tcp" || word == "udp" || word == "sctp" }

// parseProtocol reads an application protocol as a label has it; "" is HTTP.
func parseProtocol(word string) (neutral.AppProtocol, error) {
	switch strings.ToLower(word) {
	case "", "http", "http1", "ws", "websocket":
		return neutral.HTTP1, nil
	case "h2c", "http2", "kubernetes.io/h2c":
		return neutral.HTTP2, nil
	case "grpc":
		return neutral.GRPC, nil
	case "tcp", "https", "tls":
		return neutral.TCP, nil
	}
	return "", fmt.Errorf("protocol %q is not one of http, h2c, grpc, tcp", word)
}

// portsFromLabels reads what the labels say of ports. None is nil: what is exposed counts then.
func portsFromLabels(labels map[string]string) (ports []exportPort, app neutral.AppProtocol, err error) {
	if app, err = parseProtocol(labels[labelProtocol]); err != nil {
		return nil, "", err
	}
	if label := strings.TrimSpace(labels[labelPorts]); label != "" {
		ports, err = parsePorts(label, app)
	}
	return ports, app, err
}

// portsFromSummary are the exposed ports as the list of containers shows them.
func portsFromSummary(ports []container.PortSummary, app neutral.AppProtocol) []exportPort {
	var all []exportPort
	for _, p := range ports {
		all = append(all, exportPort{socket: socket{p.PrivatePort, p.Type}, app: app}.complete())
	}
	return uniquePorts(all)
}

// portsFromImage are the exposed ports of a container whose network mode keeps them off the list.
func portsFromImage(exposed network.PortSet, app neutral.AppProtocol) []exportPort {
	var all []exportPort
	for p := range exposed {
		all = append(all, exportPort{socket: socket{p.Num(), string(p.Proto())}, app: app}.complete())
	}
	return uniquePorts(all)
}

// portsFromService are the ports that a swarm service publishes.
func portsFromService(ports []swarm.PortConfig, app neutral.AppProtocol) []exportPort {
	var all []exportPort
	for _, p := range ports {
		if p.TargetPort == 0 || p.TargetPort > 65535 {
			continue
		}
		port := exportPort{socket: socketOf(p), app: app}
		if dnsLabel(p.Name) == p.Name {
			port.name = p.Name
		}
		all = append(all, port.complete())
	}
	return uniquePorts(all)
}

func socketOf(p swarm.PortConfig) socket {
	transport := string(p.Protocol)
	if transport == "" {
		transport = "tcp"
	}
	return socket{uint16(p.TargetPort), transport}
}

// uniquePorts sorts ports; the first of a kind stays.
func uniquePorts(ports []exportPort) []exportPort {
	slices.SortStableFunc(ports, func(a, b exportPort) int {
		return cmp.Or(cmp.Compare(a.number, b.number), cmp.Compare(a.transport, b.transport))
	})
	return slices.CompactFunc(ports, func(a, b exportPort) bool { return a.socket == b.socket })
}

// dnsLabel is the nearest name that can stand in a host name; "" when there is none.
func dnsLabel(name string) string {
	label := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, name)
	label = strings.Trim(label, "-")
	if len(label) > 63 {
		return ""
	}
	return label
}
