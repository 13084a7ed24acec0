package app

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// AccessState is one access listener as the admin interface tells and takes it.
type AccessState struct {
	Name        string `json:"name"`
	Listen      string `json:"listen"`
	Peer        string `json:"peer"`
	Target      string `json:"target"` // <container>.<namespace>
	Port        uint16 `json:"port"`
	Node        string `json:"node,omitempty"`
	NetworkMode string `json:"networkMode,omitempty"`
}

// accessTarget reads <peer>/<namespace>/<container>:<port>.
func accessTarget(text string) (AccessState, error) {
	for _, protocol := range []string{"udp", "sctp"} {
		if strings.HasSuffix(text, "/"+protocol) {
			return AccessState{}, fmt.Errorf("%s does not cross between gateways, whose link carries TCP alone: what is published by %s is "+
				"reached at the nodes of its own cluster", protocol, protocol)
		}
	}
	text = strings.TrimSuffix(text, "/tcp")
	form := errors.New("a target reads <peer>/<namespace>/<container>:<port>, such as east/shop/db-0:5432")
	parts := strings.Split(text, "/")
	if len(parts) != 3 {
		return AccessState{}, form
	}
	name, port, ok := strings.Cut(parts[2], ":")
	if !ok || parts[0] == "" || parts[1] == "" || name == "" || strings.Contains(parts[1], ".") {
		return AccessState{}, form
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return AccessState{}, fmt.Errorf("port %q is not a number between 1 and 65535", port)
	}
	return AccessState{Peer: parts[0], Target: name + "." + parts[1], Port: uint16(number)}, nil
}

func accessCommand() *cobra.Command {
	var local, node, mode string
	c := &cobra.Command{
		Use:   "access TARGET",
		Short: "Open a local TCP port that leads to a port of one container of a peer",
		Long: "Opens a listener in this cluster's gateway and prints its address. What connects to it reaches\n" +
			"<peer>/<namespace>/<container>:<port>, if the peer's policy allows it; the peer never learns who connects, and\n" +
			"no address of the peer is known here. The listener stays, also when isthmus restarts, until it is closed.",
		Example: "  isthmus access east/shop/db-0:5432 --local 15432\n  isthmus access list\n  isthmus access close 15432",
		Args:    cobra.ExactArgs(1),
	}
	admin := adminFlag(c)
	c.Flags().StringVar(&local, "local", "", "port or address:port to listen on; on loopback unless an address is given (default: the target's port)")
	c.Flags().StringVar(&node, "node", "", "the host that runs the container, when it is known; a wrong one is an error")
	c.Flags().StringVar(&mode, "network-mode", "", "the network mode that the container must run in (host, bridge, pod)")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		access, err := accessTarget(args[0])
		if err != nil {
			return err
		}
		access.Node, access.NetworkMode = node, mode
		if access.Listen, err = listenAddress(local, access.Port); err != nil {
			return err
		}
		if err := ask(cmd.Context(), *admin, http.MethodPost, "/accesses", access, &access); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s leads to %s port %d of %s\n", access.Listen, access.Target, access.Port, access.Peer)
		return nil
	}
	c.AddCommand(&cobra.Command{
		Use: "list", Short: "List the open accesses", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var all []AccessState
			if err := ask(cmd.Context(), *admin, http.MethodGet, "/accesses", nil, &all); err != nil {
				return err
			}
			table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
			fmt.Fprintln(table, "NAME\tLISTEN\tPEER\tTARGET\tPORT")
			for _, a := range all {
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\n", a.Name, a.Listen, a.Peer, a.Target, a.Port)
			}
			return table.Flush()
		},
	}, &cobra.Command{
		Use: "close NAME", Short: "Close an access; connections through it end", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return ask(cmd.Context(), *admin, http.MethodDelete, "/accesses/"+url.PathEscape(args[0]), nil, nil)
		},
	})
	return c
}

// listenAddress completes a port to a loopback address.
func listenAddress(local string, port uint16) (string, error) {
	if local == "" {
		local = strconv.Itoa(int(port))
	}
	if !strings.Contains(local, ":") {
		local = "127.0.0.1:" + local
	}
	address, err := netip.ParseAddrPort(local)
	if err != nil || address.Port() == 0 {
		return "", fmt.Errorf("--local %q is neither a port nor address:port", local)
	}
	return address.String(), nil
}
