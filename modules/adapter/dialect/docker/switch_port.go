package docker

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// portOf is a port of the host.
type portOf struct {
	port     uint16
	protocol string
}

// hostPorts are those on which something listens in the network that the gateway shares with the engine.
func hostPorts() (map[portOf]bool, error) {
	all := map[portOf]bool{}
	for _, protocol := range []string{"tcp", "udp"} {
		for _, family := range []string{"", "6"} {
			table, err := os.ReadFile("/proc/net/" + protocol + family)
			if errors.Is(err, fs.ErrNotExist) { // a kernel without IPv6
				continue
			}
			if err != nil {
				return nil, err
			}
			ports, err := listeningPorts(table, protocol)
			if err != nil {
				return nil, err
			}
			for _, port := range ports {
				all[portOf{port, protocol}] = true
			}
		}
	}
	return all, nil
}

// States of sockets in /proc/net: one that listens, and one of UDP that is connected to nobody.
const (
	socketListens = "0A"
	socketBound   = "07"
)

// listeningPorts reads a table of /proc/net.
func listeningPorts(table []byte, protocol string) ([]uint16, error) {
	state := socketListens
	if protocol == "udp" {
		state = socketBound
	}
	var ports []uint16
	for i, line := range bytes.Split(table, []byte("\n")) {
		fields := strings.Fields(string(line))
		if i == 0 || len(fields) == 0 {
			continue
		}
		if len(fields) < 4 {
			return nil, fmt.Errorf("a line of the table of sockets has %d fields", len(fields))
		}
		if fields[3] != state {
			continue
		}
		_, text, _ := strings.Cut(fields[1], ":")
		port, err := strconv.ParseUint(text, 16, 16)
		if err != nil {
			return nil, fmt.Errorf("a port in the table of sockets: %w", err)
		}
		ports = append(ports, uint16(port))
	}
	return ports, nil
}

// wantedPorts are those that a container listens on, as far as anybody says: its exposed ones and the one that is needed.
func wantedPorts(found container.InspectResponse, needed uint16) []portOf {
	var wanted []portOf
	if needed != 0 {
		wanted = append(wanted, portOf{needed, "tcp"})
	}
	for port := range found.Config.ExposedPorts {
		wanted = append(wanted, portOf{port.Num(), string(port.Proto())})
	}
	slices.SortFunc(wanted, func(x, y portOf) int {
		return strings.Compare(fmt.Sprintf("%05d%s", x.port, x.protocol), fmt.Sprintf("%05d%s", y.port, y.protocol))
	})
	return slices.Compact(wanted)
}

// publishes tells whether it is the container itself for which the engine holds a port of the host.
func publishes(found container.InspectResponse, of portOf) bool {
	for port, bindings := range found.NetworkSettings.Ports {
		if string(port.Proto()) != of.protocol {
			continue
		}
		if slices.ContainsFunc(bindings, func(b network.PortBinding) bool { return b.HostPort == strconv.Itoa(int(of.port)) }) {
			return true
		}
	}
	return false
}
