package app

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
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
	Layer       string `json:"layer,omitempty"` // of neutral.LayerMode
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
	var commit, discard, dryRun bool
	c := &cobra.Command{
		Use:   "access TARGET",
		Short: "Open a local TCP port that leads to a port of one container of a peer",
		Long: "Opens a listener in this cluster's gateway and prints its address. What connects to it reaches\n" +
			"<peer>/<namespace>/<container>:<port>, if the peer's policy allows it; the peer never learns who connects, and\n" +
			"no address of the peer is known here. The listener stays, also when isthmus restarts, until it is closed.\n\n" +
			"Where the container's network mode does not serve, the peer may switch it while the access is used: if its policy\n" +
			"lets this cluster, and at nobody's loss. A container that keeps files beside its volumes is not made anew for that\n" +
			"unless --commit carries them over or --discard does without them. --dry-run asks what it would take, and opens\n" +
			"nothing; its exit status is 1 where the access would be refused.",
		Example: "  isthmus access east/shop/db-0:5432 --local 15432\n  isthmus access east/shop/db-0:5432 --network-mode bridge --dry-run\n" +
			"  isthmus access list\n  isthmus access close 15432",
		Args: cobra.ExactArgs(1),
	}
	admin := adminFlag(c)
	c.Flags().StringVar(&local, "local", "", "port or address:port to listen on; on loopback unless an address is given (default: the target's port)")
	c.Flags().StringVar(&node, "node", "", "the host that runs the container, when it is known; a wrong one is an error")
	c.Flags().StringVar(&mode, "network-mode", "", "the network mode that the container must run in (host, bridge, pod)")
	c.Flags().BoolVar(&commit, "commit", false, "files that a container keeps beside its volumes come along where it is made anew")
	c.Flags().BoolVar(&discard, "discard", false, "a container that is made anew begins without such files, and has them again afterwards")
	c.MarkFlagsMutuallyExclusive("commit", "discard")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say what the access would take, and open nothing")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		access, err := accessTarget(args[0])
		if err != nil {
			return err
		}
		access.Node, access.NetworkMode = node, mode
		switch {
		case commit:
			access.Layer = string(neutral.LayerCommit)
		case discard:
			access.Layer = string(neutral.LayerDiscard)
		}
		if dryRun {
			return planAccess(cmd.Context(), *admin, access, cmd.OutOrStdout())
		}
		if access.Listen, err = listenAddress(local, access.Port); err != nil {
			return err
		}
		if err := ask(cmd.Context(), *admin, http.MethodPost, "/accesses", access, &access); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s leads to %s port %d of %s\n", access.Listen, access.Target, access.Port, access.Peer)
		if line := clientLine(access); line != "" {
			fmt.Fprintln(cmd.OutOrStdout(), line)
		}
		return nil
	}
	c.AddCommand(&cobra.Command{
		Use: "list", Short: "List the open accesses", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var all []AccessState
			if err := ask(cmd.Context(), *admin, http.MethodGet, "/accesses", nil, &all); err != nil {
				return err
			}
			return printAccesses(cmd.OutOrStdout(), all)
		},
	}, &cobra.Command{
		Use: "close NAME", Short: "Close an access; connections through it end", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return ask(cmd.Context(), *admin, http.MethodDelete, "/accesses/"+url.PathEscape(args[0]), nil, nil)
		},
	})
	return c
}

// printAccesses lists accesses, with what some of them say of their targets.
func printAccesses(w io.Writer, all []AccessState) error {
	wishes := []struct {
		title string
		of    func(AccessState) string
	}{
		{"NODE", func(a AccessState) string { return a.Node }},
		{"NETWORK MODE", func(a AccessState) string { return a.NetworkMode }},
		{"LAYER", func(a AccessState) string { return a.Layer }},
	}
	table := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	head := "NAME\tLISTEN\tPEER\tTARGET\tPORT"
	rows := make([]string, len(all))
	for i, a := range all {
		rows[i] = fmt.Sprintf("%s\t%s\t%s\t%s\t%d", a.Name, a.Listen, a.Peer, a.Target, a.Port)
	}
	for _, wish := range wishes {
		if !slices.ContainsFunc(all, func(a AccessState) bool { return wish.of(a) != "" }) {
			continue
		}
		head += "\t" + wish.title
		for i, a := range all {
			rows[i] += "\t" + dash(wish.of(a))
		}
	}
	fmt.Fprintln(table, head)
	for _, row := range rows {
		fmt.Fprintln(table, row)
	}
	return table.Flush()
}

// clientLine runs the client of what is usual at a port; "" for others.
func clientLine(a AccessState) string {
	at, err := netip.ParseAddrPort(a.Listen)
	if err != nil {
		return ""
	}
	host, port := at.Addr(), at.Port()
	if host.IsUnspecified() {
		host = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	switch a.Port {
	case 22:
		return fmt.Sprintf("ssh -p %d root@%s", port, host)
	case 80, 8080:
		return fmt.Sprintf("curl http://%s/", netip.AddrPortFrom(host, port))
	case 443: // its certificate is for another name
		return fmt.Sprintf("curl --insecure https://%s/", netip.AddrPortFrom(host, port))
	case 3306:
		return fmt.Sprintf("mysql -h %s -P %d -u root -p", host, port)
	case 5432:
		return fmt.Sprintf("psql -h %s -p %d -U postgres", host, port)
	case 6379:
		return fmt.Sprintf("redis-cli -h %s -p %d", host, port)
	case 27017:
		return fmt.Sprintf("mongosh --host %s --port %d", host, port)
	}
	return ""
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
