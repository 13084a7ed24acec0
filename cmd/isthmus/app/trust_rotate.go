package app

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// asking makes a command one that asks a running gateway and reads no documents.
func asking(c *cobra.Command) *string {
	c.PersistentPreRunE = func(*cobra.Command, []string) error { return nil } // its parent wants --config
	return adminFlag(c)
}

func trustShowCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "show", Short: "Show who vouches for the running gateway, until when, and which peers know", Args: cobra.NoArgs,
	}
	admin := asking(c)
	bundle := c.Flags().Bool("bundle", false, "print the trust bundle instead, for peers to import")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		var state TrustState
		if err := ask(cmd.Context(), *admin, http.MethodGet, "/trust", nil, &state); err != nil {
			return err
		}
		if *bundle {
			_, err := io.WriteString(cmd.OutOrStdout(), state.Bundle)
			return err
		}
		return state.print(cmd.OutOrStdout())
	}
	return c
}

func trustRenewCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "renew", Short: "Issue the running gateway's certificate anew, before it is due", Args: cobra.NoArgs,
	}
	admin := asking(c)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		return ask(cmd.Context(), *admin, http.MethodPost, "/trust/renewal", struct{}{}, nil)
	}
	return c
}

func trustRotateCommand() *cobra.Command {
	var q RotationRequest
	var within, keep time.Duration
	var next, abort bool
	c := &cobra.Command{
		Use: "rotate", Short: "Replace the running gateway's certificate authority, with an overlap", Args: cobra.NoArgs,
		Long: "Replaces the gateway's own certificate authority in three steps, none of which closes a connection:\n\n" +
			"  announced  a next authority is made, and peers are told to trust both\n" +
			"  issuing    once all peers have acknowledged it, or --within is over, the next one issues\n" +
			"  steady     after --keep, the former one is trusted no longer\n\n" +
			"The gateway goes on by itself; isthmus trust show tells how it stands. Where a peer cannot take the bundle over\n" +
			"the link, the bundle is printed, to be imported there (isthmus trust import --replace). --next enters the next\n" +
			"step at once: a peer that has not acknowledged is lost until it imports the bundle. --abort takes an announced\n" +
			"authority back.",
		Example: "  isthmus trust rotate\n  isthmus trust rotate --within 168h --keep 24h\n  isthmus trust rotate --next",
	}
	admin := asking(c)
	c.Flags().DurationVar(&within, "within", 0, "how long acknowledgements are waited for; 0 is until all peers have given one")
	c.Flags().DurationVar(&keep, "keep", time.Hour, "how long peers trust the former authority after the next one issues")
	c.Flags().BoolVar(&next, "next", false, "enter the next step of the rotation at once")
	c.Flags().BoolVar(&abort, "abort", false, "take an announced authority back")
	c.MarkFlagsMutuallyExclusive("next", "abort")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		var state TrustState
		var err error
		q.Within, q.Keep = within.String(), keep.String()
		switch {
		case next:
			var before TrustState
			if err = ask(cmd.Context(), *admin, http.MethodGet, "/trust", nil, &before); err == nil {
				err = ask(cmd.Context(), *admin, http.MethodPost, "/trust/rotation/next", NextRequest{After: before.Phase}, &state)
			}
		case abort:
			err = ask(cmd.Context(), *admin, http.MethodDelete, "/trust/rotation", nil, &state)
		default:
			err = ask(cmd.Context(), *admin, http.MethodPost, "/trust/rotation", q, &state)
		}
		if err != nil {
			return err
		}
		if err := state.print(cmd.ErrOrStderr()); err != nil {
			return err
		}
		var byHand []string
		for _, p := range state.Peers {
			if !p.Acknowledged && !p.OverLink {
				byHand = append(byHand, p.Name)
			}
		}
		if len(byHand) == 0 {
			return nil
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "\nto be imported by hand at %s (isthmus trust import --replace --peer NAME):\n", strings.Join(byHand, ", "))
		_, err = io.WriteString(cmd.OutOrStdout(), state.Bundle)
		return err
	}
	return c
}

// print writes the state for a reader.
func (s TrustState) print(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(table, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	line("identity", "%s", s.Identity)
	line("source", "%s", s.Source)
	if s.Problem != "" {
		line("problem", "%s", s.Problem)
	}
	switch s.Phase {
	case "announced":
		by := "when all peers have acknowledged it"
		if !s.SwitchBy.IsZero() {
			by += ", at the latest " + stamp(s.SwitchBy)
		}
		line("phase", "announced since %s; the next authority issues %s", stamp(s.Began), by)
	case "issuing":
		line("phase", "issuing since %s; the former authority is dropped %s", stamp(s.Switched), stamp(s.DropAt))
	default:
		line("phase", "%s", s.Phase)
	}
	for _, a := range s.Authorities {
		line(a.Role, "%s until %s", a.Fingerprint, stamp(a.NotAfter))
	}
	switch c := s.Certificate; {
	case c.NotAfter.IsZero():
		line("certificate", "none yet")
	case c.RenewAt.IsZero():
		line("certificate", "until %s, renewed where it comes from", stamp(c.NotAfter))
	default:
		line("certificate", "until %s, renewed %s", stamp(c.NotAfter), stamp(c.RenewAt))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	table = tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(table, "PEER\tACKNOWLEDGED\tDETAIL")
	for _, p := range s.Peers {
		acknowledged, detail := "no", p.Why
		if p.Acknowledged {
			acknowledged, detail = "yes", s.others(p)
		}
		if p.Refused != "" {
			detail = strings.TrimPrefix(detail+"; its own new bundle is refused here: "+p.Refused, "; ")
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", p.Name, acknowledged, dash(detail))
	}
	return table.Flush()
}

// others says what a peer trusts beside what this gateway says.
func (s TrustState) others(p PeerTrust) string {
	for _, fingerprint := range p.Trusts {
		known := false
		for _, a := range s.Authorities {
			known = known || a.Fingerprint == fingerprint
		}
		if !known {
			return fmt.Sprintf("trusts %.16s… still, which is dropped here", fingerprint)
		}
	}
	return ""
}

func stamp(t time.Time) string { return t.Local().Format(time.DateTime) }
