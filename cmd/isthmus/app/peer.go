package app

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

func peerCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "peer",
		Short: "Join this gateway to another by invitation, suspend a peer, remove it",
		Long: "Two gateways that have never met become peers by two commands:\n\n" +
			"  east$ isthmus peer invite --for west --address east.example:15443 > token\n" +
			"  west$ isthmus peer join - < token\n\n" +
			"The token is good for one gateway and a short time. Whoever holds it can become the peer west: hand it over as\n" +
			"you would a password.",
	}
	admin := adminFlag(c)
	c.AddCommand(peerInviteCommand(admin), peerInvitationsCommand(admin), peerJoinCommand(admin), peerShowCommand(admin), peerAPICommand(admin),
		peerActionCommand(admin, "revoke INVITATION", "Void an invitation; who used it already stays a peer", http.MethodDelete, "/invitations/%s", "revoked"),
		peerActionCommand(admin, "suspend PEER", "Let nothing of a peer pass, in either direction", http.MethodPost, "/peers/%s/suspend", "suspended"),
		peerActionCommand(admin, "resume PEER", "End a suspension", http.MethodPost, "/peers/%s/resume", "resumed"),
		peerActionCommand(admin, "remove PEER", "End the trust in a peer and forget it", http.MethodDelete, "/peers/%s", "removed"))
	return c
}

func peerInviteCommand(admin *string) *cobra.Command {
	var q InvitationRequest
	c := &cobra.Command{
		Use: "invite --for CLUSTER", Short: "Print a token by which one other gateway can join", Args: cobra.NoArgs,
		Example: "  isthmus peer invite --for west --expires 15m --address east.example:15443",
	}
	c.Flags().StringVar(&q.For, "for", "", "the name of the cluster that is invited (required)")
	c.Flags().StringVar(&q.Expires, "expires", "15m", "how long the token is good")
	c.Flags().StringVar(&q.Address, "address", "", "host:port by which that cluster reaches this gateway (default: the peer listener's address)")
	if err := c.MarkFlagRequired("for"); err != nil {
		panic(err) // the flag stands above
	}
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		var invitation InvitationState
		if err := ask(cmd.Context(), *admin, http.MethodPost, "/invitations", q, &invitation); err != nil {
			return err
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "invitation %s for %s, good for one use until %s; over there: isthmus peer join TOKEN\n",
			invitation.ID, invitation.For, invitation.Expires.Local().Format(time.DateTime))
		fmt.Fprintln(cmd.OutOrStdout(), invitation.Token)
		return nil
	}
	return c
}

func peerInvitationsCommand(admin *string) *cobra.Command {
	return &cobra.Command{
		Use: "invitations", Short: "List invitations: for whom, whether they are open", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var all []InvitationState
			if err := ask(cmd.Context(), *admin, http.MethodGet, "/invitations", nil, &all); err != nil {
				return err
			}
			table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
			fmt.Fprintln(table, "INVITATION\tFOR\tSTATE\tEXPIRES")
			for _, i := range all {
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", i.ID, i.For, i.State, i.Expires.Local().Format(time.DateTime))
			}
			return table.Flush()
		},
	}
}

// joinPatience is how long a joined peer may take to shake hands before the command says so.
const joinPatience = 30 * time.Second

func peerJoinCommand(admin *string) *cobra.Command {
	var q JoinRequest
	c := &cobra.Command{
		Use: "join TOKEN", Short: "Become a peer of the gateway that made the token (TOKEN, or - for standard input)", Args: cobra.ExactArgs(1),
		Long: "Becomes a peer of the gateway that made the token, and waits until both have shaken hands.\n\n" +
			"With - the token is read from standard input: on a machine that others use, a word of the command line is seen by\n" +
			"them. Where the other side can dial this one, say how with --address. Where nobody can, say --behind-nat: this gateway\n" +
			"dials the other, and requests in both directions use what it dialled. With neither, the other side can ask nothing of\n" +
			"this cluster.",
	}
	c.Flags().BoolVar(&q.BehindNAT, "behind-nat", false, "nobody can dial this gateway: leave reverse tunnels with the other, by which its requests come")
	c.Flags().StringSliceVar(&q.Addresses, "address", nil, "host:port by which the other cluster reaches this gateway; may be given several times")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		begin := time.Now()
		q.Token = args[0]
		if q.Token == "-" {
			line, err := bufio.NewReader(io.LimitReader(cmd.InOrStdin(), 64<<10)).ReadString('\n')
			if err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("read the token: %w", err)
			}
			q.Token = strings.TrimSpace(line)
		}
		var peer PeerState
		if err := ask(cmd.Context(), *admin, http.MethodPost, "/join", q, &peer); err != nil {
			return err
		}
		name := peer.Name
		fmt.Fprintf(cmd.ErrOrStderr(), "%s and this gateway trust each other; shaking hands\n", name)
		for {
			var peers []PeerState
			if err := ask(cmd.Context(), *admin, http.MethodGet, "/peers", nil, &peers); err != nil {
				return err
			}
			for _, p := range peers {
				if peer = p; p.Name == name && p.State == "ready" {
					if len(q.Addresses) == 0 && !q.BehindNAT {
						fmt.Fprintf(cmd.ErrOrStderr(), "%s can ask nothing of this cluster: it has no address of this gateway (--address), and no tunnels (--behind-nat)\n", name)
					}
					fmt.Fprintf(cmd.OutOrStdout(), "%s is ready: %s %s (%s)\n", name, p.Orchestrator, p.Version, time.Since(begin).Round(100*time.Millisecond))
					return nil
				}
			}
			if time.Since(begin) > joinPatience {
				return fmt.Errorf("%s is a peer now, but the two have not shaken hands in %s (state %s: %s); isthmus peers tells when they have",
					name, joinPatience, dash(peer.State), dash(peer.LastError))
			}
			select {
			case <-cmd.Context().Done():
				return cmd.Context().Err()
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	return c
}

func peerShowCommand(admin *string) *cobra.Command {
	return &cobra.Command{
		Use: "show PEER", Short: "Show all that is known of a peer", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var peers []PeerState
			if err := ask(cmd.Context(), *admin, http.MethodGet, "/peers", nil, &peers); err != nil {
				return err
			}
			for _, p := range peers {
				if p.Name != args[0] {
					continue
				}
				table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
				seen := "never"
				if !p.LastSeen.IsZero() {
					seen = p.LastSeen.Local().Format(time.DateTime)
				}
				for _, line := range [][2]string{
					{"name", p.Name}, {"state", p.State}, {"step", p.Step}, {"session", p.Session}, {"identity", p.Identity}, {"authority", p.Fingerprint},
					{"declared in", p.Declared}, {"link", p.Link}, {"orchestrator", strings.TrimSpace(p.Orchestrator + " " + p.Version)},
					{"isthmus", p.Software}, {"last seen", seen}, {"last error", p.LastError},
				} {
					fmt.Fprintf(table, "%s\t%s\n", line[0], dash(line[1]))
				}
				return table.Flush()
			}
			return fmt.Errorf("no peer is named %q; isthmus peers shows them", args[0])
		},
	}
}

func peerAPICommand(admin *string) *cobra.Command {
	var q APIRequest
	c := &cobra.Command{
		Use: "api PEER --listen IP:PORT", Short: "Offer the API of a peer that joined to this cluster's callers", Args: cobra.ExactArgs(1),
		Long: "Offers the orchestrator API of a peer that joined by invitation at an address, with TLS; --listen \"\" ends that. A\n" +
			"Docker cluster has it at the Unix socket <runDir>/PEER.sock anyway. isthmus kubeconfig PEER tells clients of it; who\n" +
			"may come is said by spec.callers of the Gateway document.",
		Example: "  isthmus peer api east --listen 127.0.0.1:16443\n  isthmus kubeconfig east > east.kubeconfig",
	}
	c.Flags().StringVar(&q.Listen, "listen", "", "ip:port to listen on (required)")
	if err := c.MarkFlagRequired("listen"); err != nil {
		panic(err) // the flag stands above
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if err := ask(cmd.Context(), *admin, http.MethodPut, "/peers/"+url.PathEscape(args[0])+"/api", q, nil); err != nil {
			return err
		}
		where := "only at its Unix socket, where this cluster is Docker's"
		if q.Listen != "" {
			where = "at https://" + q.Listen
		}
		fmt.Fprintf(cmd.OutOrStdout(), "the API of %s is offered %s\n", args[0], where)
		return nil
	}
	return c
}

// peerActionCommand is one that names one thing and changes it.
func peerActionCommand(admin *string, use, short, method, path, done string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := ask(cmd.Context(), *admin, method, fmt.Sprintf(path, url.PathEscape(args[0])), nil, nil); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is %s\n", args[0], done)
			return nil
		},
	}
}
