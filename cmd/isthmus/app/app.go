// Package app is the command line of isthmus, and the one place where configuration becomes wiring: the only package
// that may import everything.
package app

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

// version is set when a release is built.
var version = "dev"

// Main runs one command line and gives its exit status: 0 done, 1 failed, 2 not understood.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := command()
	root.SetArgs(append([]string{}, args...)) // cobra takes nil for the process's own
	root.SetOut(stdout)
	root.SetErr(stderr)
	understood := false
	complete(root, &understood)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintf(stderr, "isthmus: %v\n", err)
		if !understood {
			return 2
		}
		return 1
	}
	return 0
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "isthmus",
		Short: "The gateway between two container clusters",
		Long: "isthmus joins two container clusters, of Docker, Swarm or Kubernetes on either side: each uses the other's\n" +
			"services and containers through two gateways, with its own unmodified clients, and no address is exposed.",
		Version: version, SilenceUsage: true, SilenceErrors: true,
	}
	root.AddCommand(gatewayCommand(), trustCommand(), peerCommand(), peersCommand(), catalogueCommand(), accessCommand(), hostsCommand(), leasesCommand(), copyCommand(),
		kubeconfigCommand(), policyCommand(), explainCommand(), auditCommand(), stateCommand(), agentCommand(), readyCommand())
	return root
}

// complete makes each command tell that its line was understood, flags and all, and a group of commands refuse a word
// that is none of them.
func complete(c *cobra.Command, understood *bool) {
	for _, sub := range c.Commands() {
		complete(sub, understood)
	}
	if run := c.RunE; run != nil {
		c.RunE = func(cmd *cobra.Command, args []string) error {
			*understood = true
			return run(cmd, args)
		}
		return
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())
		}
		return cmd.Help()
	}
}

// adminFlag is the flag of every command that asks a running gateway.
func adminFlag(c *cobra.Command) *string {
	address := os.Getenv("ISTHMUS_ADMIN")
	if address == "" {
		address = "127.0.0.1:15000"
	}
	return c.PersistentFlags().String("admin", address, "admin address of the running gateway (or ISTHMUS_ADMIN)")
}
