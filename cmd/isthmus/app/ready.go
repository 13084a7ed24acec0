package app

import (
	"context"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

// readyPause is between two questions of isthmus ready --within.
const readyPause = 250 * time.Millisecond

func readyCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "ready", Short: "Tell whether the gateway is ready, and if not, what it waits for", Args: cobra.NoArgs,
		Long: "Asks /readyz, at the admin interface or at spec.listeners.health. The exit status is 0 when the gateway is ready.",
		Example: "  isthmus ready --within 30s\n" +
			"  isthmus ready --admin gateway.example:15021",
	}
	admin := adminFlag(c)
	within := c.Flags().Duration("within", 0, "how long to wait until it is")
	c.RunE = func(cmd *cobra.Command, _ []string) error { return awaitReady(cmd.Context(), *admin, *within) }
	return c
}

// awaitReady asks until the gateway is ready, or the time is up; the error says what is waited for.
func awaitReady(ctx context.Context, address string, within time.Duration) error {
	for deadline := time.Now().Add(within); ; {
		err := ask(ctx, address, http.MethodGet, "/readyz", nil, nil)
		if err == nil || time.Now().Add(readyPause).After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(readyPause):
		}
	}
}
