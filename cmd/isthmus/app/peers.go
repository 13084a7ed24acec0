package app

import (
	"fmt"
	"net/http"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// PeerState is one peer as the admin interface tells it.
type PeerState struct {
	Name         string    `json:"name"`
	State        string    `json:"state"`
	Step         string    `json:"step"`
	Session      string    `json:"session,omitempty"` // the same at both peers
	Orchestrator string    `json:"orchestrator,omitempty"`
	Version      string    `json:"version,omitempty"`
	Software     string    `json:"software,omitempty"`
	Identity     string    `json:"identity,omitempty"`
	Fingerprint  string    `json:"fingerprint,omitempty"` // of the authority that is trusted
	Declared     string    `json:"declared"`              // the file
	Link         string    `json:"link"`                  // how it is reached
	LastSeen     time.Time `json:"lastSeen,omitzero"`
	LastError    string    `json:"lastError,omitempty"`
}

func peersCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "peers", Short: "Show each peer: state, orchestrator, version, last seen", Args: cobra.NoArgs,
	}
	admin := adminFlag(c)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		var peers []PeerState
		if err := ask(cmd.Context(), *admin, http.MethodGet, "/peers", nil, &peers); err != nil {
			return err
		}
		table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
		fmt.Fprintln(table, "PEER\tSTATE\tORCHESTRATOR\tVERSION\tISTHMUS\tLINK\tLAST SEEN\tLAST ERROR")
		for _, p := range peers {
			seen := "never"
			if !p.LastSeen.IsZero() {
				seen = time.Since(p.LastSeen).Round(time.Second).String() + " ago"
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.Name, p.State, dash(p.Orchestrator), dash(p.Version),
				dash(p.Software), dash(p.Link), seen, dash(p.LastError))
		}
		return table.Flush()
	}
	return c
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
