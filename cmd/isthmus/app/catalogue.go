package app

import (
	"fmt"
	"net/http"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// CatalogueEntry is one exported service as the admin interface tells it.
type CatalogueEntry struct {
	Service   string   `json:"service"` // its full name, as peers ask for it
	Ports     []string `json:"ports"`   // "80/http"
	Endpoints int      `json:"endpoints"`
	Peers     []string `json:"peers"` // who may query it
}

func catalogueCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "catalogue", Short: "Show the services that this cluster exports, and to whom", Args: cobra.NoArgs,
	}
	admin := adminFlag(c)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		var entries []CatalogueEntry
		if err := ask(cmd.Context(), *admin, http.MethodGet, "/catalogue", nil, &entries); err != nil {
			return err
		}
		table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
		fmt.Fprintln(table, "SERVICE\tPORTS\tENDPOINTS\tPEERS")
		for _, e := range entries {
			fmt.Fprintf(table, "%s\t%s\t%d\t%s\n", e.Service, strings.Join(e.Ports, ","), e.Endpoints,
				dash(strings.Join(e.Peers, ",")))
		}
		return table.Flush()
	}
	return c
}
