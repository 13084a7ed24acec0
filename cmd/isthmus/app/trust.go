package app

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/xds/peering"
	"github.com/isthmus-mesh/isthmus/xds/peering/join"
	"github.com/isthmus-mesh/isthmus/xds/peering/trust"
)

// trustDir is where a gateway keeps its certificate authority and its peers' bundles.
func trustDir(set *manifest.Set) string { return filepath.Join(set.Gateway.Spec.StateDir, "trust") }

func identity(set *manifest.Set) (peering.Identity, error) {
	return peering.NewIdentity(set.Gateway.Spec.TrustDomain, set.Gateway.Metadata.Name)
}

func trustCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "trust",
		Short: "Make this gateway's certificate authority, and exchange trust bundles with peers",
		Long: "Two gateways trust each other once each has imported the other's bundle:\n\n" +
			"  west$ isthmus trust init   --config west.yaml\n" +
			"  west$ isthmus trust export --config west.yaml > west.bundle\n" +
			"  east$ isthmus trust import --config east.yaml --peer west west.bundle\n\n" +
			"and the same the other way round. A bundle holds no secret, yet whoever can change it on its way can become\n" +
			"the peer: compare the fingerprints that both commands print.\n\n" +
			"show, renew and rotate ask the running gateway.",
	}
	config := configFlag(c)
	c.AddCommand(&cobra.Command{
		Use: "init", Short: "Make the certificate authority; does nothing when there is one", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			set, err := manifest.Load(*config...)
			if err != nil {
				return err
			}
			if source := set.Gateway.Spec.Trust.Authority; source != manifest.AuthorityOwn {
				return fmt.Errorf("spec.trust.authority is %s: the gateway makes no authority of its own", source)
			}
			return withVault(cmd.Context(), set, func(own *vault) error {
				var authority *trust.Authority
				err := own.change(cmd.Context(), func() (err error) {
					authority, err = trust.Init(own.dir, set.Gateway.Spec.TrustDomain, set.Gateway.Metadata.Name)
					return err
				})
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s\nfingerprint %s\n", authority.Identity(), authority.Fingerprint())
				return nil
			})
		},
	}, &cobra.Command{
		Use: "export", Short: "Print this gateway's trust bundle, for its peers", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			set, err := manifest.Load(*config...)
			if err != nil {
				return err
			}
			self, err := identity(set)
			if err != nil {
				return err
			}
			authority, err := storedAuthority(cmd.Context(), set, self)
			if err != nil {
				return err
			}
			text, err := authority.Export().MarshalText()
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}, trustImportCommand(config), trustShowCommand(), trustRenewCommand(), trustRotateCommand(), &cobra.Command{
		Use: "list", Short: "List the peers whose bundles are trusted", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			peers, done, err := openPeers(*config)
			if err != nil {
				return err
			}
			defer done()
			bundles, err := peers.List()
			if err != nil {
				return err
			}
			table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
			fmt.Fprintln(table, "PEER\tIDENTITY\tFINGERPRINT\tENDS")
			for _, p := range bundles {
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", p.Peer, p.Bundle.Identity, p.Bundle.Fingerprint,
					p.Bundle.NotAfter.Format(time.DateOnly))
			}
			return table.Flush()
		},
	}, &cobra.Command{
		Use: "remove PEER", Short: "Trust a peer's bundle no longer", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			set, self, err := identified(*config)
			if err != nil {
				return err
			}
			home, err := openHome(set, "")
			if err != nil {
				return err
			}
			defer func() { _ = home.Close() }()
			// First the token that it may have come by, which would bring it back.
			invitations, err := join.OpenInvitations(cmd.Context(), home, func() {})
			if err != nil {
				return err
			}
			if err := invitations.Forget(cmd.Context(), args[0]); err != nil {
				return err
			}
			return trust.OpenPeers(home, self).Remove(args[0])
		},
	})
	return c
}

func trustImportCommand(config *[]string) *cobra.Command {
	var peer string
	var replace bool
	c := &cobra.Command{
		Use: "import FILE", Short: "Trust a peer's bundle (FILE, or - for standard input)", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			peers, done, err := openPeers(*config)
			if err != nil {
				return err
			}
			defer done()
			in := cmd.InOrStdin()
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			text, err := io.ReadAll(io.LimitReader(in, 1<<20))
			if err != nil {
				return fmt.Errorf("read the bundle: %w", err)
			}
			bundle, err := trust.ParseBundle(text)
			if err != nil {
				return err
			}
			if err := peers.Import(peer, bundle, trust.Replace(replace)); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is trusted as %s\nfingerprint %s\n", peer, bundle.Identity, bundle.Fingerprint)
			return nil
		},
	}
	c.Flags().StringVar(&peer, "peer", "", "the peer's name, as in its Peer document (required)")
	c.Flags().BoolVar(&replace, "replace", false, "take the place of another bundle of this peer")
	if err := c.MarkFlagRequired("peer"); err != nil {
		panic(err) // the flag stands two lines above
	}
	return c
}

// openPeers opens the bundles of a gateway; done closes what they are kept in.
func openPeers(config []string) (peers *trust.Peers, done func(), err error) {
	set, self, err := identified(config)
	if err != nil {
		return nil, nil, err
	}
	home, err := openHome(set, "")
	if err != nil {
		return nil, nil, err
	}
	return trust.OpenPeers(home, self), func() { _ = home.Close() }, nil
}

// identified reads a gateway's documents, and who it is by them.
func identified(config []string) (*manifest.Set, peering.Identity, error) {
	set, err := manifest.Load(config...)
	if err != nil {
		return nil, peering.Identity{}, err
	}
	self, err := identity(set)
	return set, self, err
}

// configFlag is the flag of every command that reads documents.
func configFlag(c *cobra.Command) *[]string {
	var paths []string
	c.PersistentFlags().StringSliceVar(&paths, "config", nil, "file or folder of documents; may be given several times (required)")
	c.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if len(paths) == 0 && !cmd.HasSubCommands() {
			return errors.New("--config FILE is required: the gateway's documents")
		}
		return nil
	}
	return &paths
}
