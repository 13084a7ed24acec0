package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"time"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/modules/state"
	"github.com/isthmus-mesh/isthmus/modules/state/kubernetes"
)

func stateCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "state",
		Short: "Look at a gateway's state and move it to another home",
		Long: "A gateway's state is in files, in etcd or in Kubernetes, as spec.state of its Gateway document says. To move it,\n" +
			"end the gateway, change spec.state, copy, and start it:\n\n" +
			"  isthmus state copy --config west.yaml --from file",
	}
	c.AddCommand(stateListCommand(), stateCopyCommand(), stateRemoveCommand(), &cobra.Command{
		Use: "manifest", Short: "Print what home kubernetes needs in its cluster: a definition and a role", Args: cobra.NoArgs,
		Long: "Prints the definition of StateRecord and a Role for the namespace of the state. The gateway's account needs the\n" +
			"role there:\n\n" +
			"  isthmus state manifest | kubectl apply -n isthmus -f -\n" +
			"  kubectl create rolebinding isthmus-state -n isthmus --role isthmus-state --serviceaccount isthmus:isthmus",
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := io.WriteString(cmd.OutOrStdout(), kubernetes.CRD+"---\n"+kubernetes.Role)
			return err
		},
	})
	return c
}

func stateListCommand() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "List what is kept, and where", Args: cobra.NoArgs}
	config := configFlag(c)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		set, err := manifest.Load(*config...)
		if err != nil {
			return err
		}
		home, err := openHome(set, "")
		if err != nil {
			return err
		}
		defer home.Close()
		return everyRecord(cmd.Context(), home, set.Gateway.Spec.State.Home, set, func(r state.Record) error {
			place := home.Place(r.Key)
			if r.Key == authorityKind.Only() && set.Gateway.Spec.State.Home == manifest.StateFile {
				place = trustDir(set)
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s\t%d bytes\n", place, len(r.Value))
			return err
		})
	}
	return c
}

func stateCopyCommand() *cobra.Command {
	var from string
	var replace bool
	c := &cobra.Command{
		Use: "copy --from HOME", Short: "Copy the state of another home into the one of the documents", Args: cobra.NoArgs,
		Long: "Copies every record of a home (file, etcd, kubernetes; how the last two are reached, the documents given with\n" +
			"--from-config say) into the home of --config. What is there already is kept, and an error unless it is the same;\n" +
			"--replace writes over it. The gateway must not run meanwhile. The records of the old home stay where they are.",
		Example: "  isthmus state copy --config west.yaml --from file\n" +
			"  isthmus state copy --config west.yaml --from-config old/west.yaml",
	}
	config := configFlag(c)
	var fromConfig []string
	c.Flags().StringVar(&from, "from", "", "file: the files in spec.stateDir")
	c.Flags().StringSliceVar(&fromConfig, "from-config", nil, "documents whose home is copied from")
	c.Flags().BoolVar(&replace, "replace", false, "write over what is there already")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		set, err := manifest.Load(*config...)
		if err != nil {
			return err
		}
		source, at := set, manifest.State{Home: manifest.StateFile}
		switch {
		case from == string(manifest.StateFile) && len(fromConfig) == 0:
		case from == "" && len(fromConfig) > 0:
			if source, err = manifest.Load(fromConfig...); err != nil {
				return err
			}
			at = source.Gateway.Spec.State
		default:
			return errors.New("say where from: either --from file or --from-config FILE")
		}
		if source.Gateway.Metadata.Name != set.Gateway.Metadata.Name {
			return fmt.Errorf("%s is another gateway than %s", source.Gateway.Metadata.Name, set.Gateway.Metadata.Name)
		}
		old, err := openHomeAt(source, at, "")
		if err != nil {
			return err
		}
		defer old.Close()
		home, err := openHome(set, "")
		if err != nil {
			return err
		}
		defer home.Close()
		copied := 0
		err = everyRecord(cmd.Context(), old, at.Home, source, func(r state.Record) error {
			copied++
			if r.Key == authorityKind.Only() && set.Gateway.Spec.State.Home == manifest.StateFile {
				return unpackAuthority(trustDir(set), r, replace)
			}
			return copyRecord(cmd.Context(), home, r, replace)
		})
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%d records are in %s\n", copied, home)
		return nil
	}
	return c
}

func stateRemoveCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "remove", Short: "Remove all that a gateway keeps in Kubernetes, once it has ended for good", Args: cobra.NoArgs,
		Long: "Removes the gateway's authority, its peers and all else that it keeps with home kubernetes. It is another gateway\n" +
			"from then on: peers must import its bundle anew. Nothing is removed while a replica of the gateway acts.",
	}
	config := configFlag(c)
	within := c.Flags().Duration("within", 0, "how long to wait for the gateway's end")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		set, err := manifest.Load(*config...)
		if err != nil {
			return err
		}
		home, err := openHome(set, "isthmus state remove")
		if err != nil {
			return err
		}
		defer home.Close()
		owned, ok := home.(interface {
			Remove(ctx context.Context) (objects int, err error)
		})
		if !ok {
			return fmt.Errorf("spec.state.home is %s, and this removes the state of home %s only", set.Gateway.Spec.State.Home, manifest.StateKubernetes)
		}
		if err := awaitEnd(cmd.Context(), home.Lease(actingLease), *within); err != nil {
			return err
		}
		removed, err := owned.Remove(cmd.Context())
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d objects of %s are removed\n", removed, set.Gateway.Metadata.Name)
		return err
	}
	return c
}

// awaitEnd takes the lease of the replica that acts, so that none does from then on.
func awaitEnd(ctx context.Context, lease state.Lease, within time.Duration) error {
	for deadline := time.Now().Add(within); ; {
		_, err := lease.Acquire(ctx)
		var held *state.HeldError
		switch {
		case err == nil:
			return nil
		case !errors.As(err, &held):
			return err
		case time.Now().Add(readyPause).After(deadline):
			return fmt.Errorf("the gateway has not ended: %w", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(readyPause):
		}
	}
}

// copyRecord writes a record of another home, unless there is a different one.
func copyRecord(ctx context.Context, home state.Home, r state.Record, replace bool) error {
	return state.Update(ctx, home, r.Key, func(there []byte) ([]byte, error) {
		if there != nil && string(there) != string(r.Value) && !replace {
			return nil, fmt.Errorf("%s is there already, and another one; --replace writes over it", home.Place(r.Key))
		}
		return r.Value, nil
	})
}

// unpackAuthority writes a home's own authority as the files of the files' home, unless there is a different one.
func unpackAuthority(dir string, r state.Record, replace bool) error {
	var files map[string]string
	if err := json.Unmarshal(r.Value, &files); err != nil {
		return fmt.Errorf("the own authority: %w", err)
	}
	there, err := pack(dir)
	if err != nil {
		return err
	}
	if len(there) > 0 && !maps.Equal(there, files) && !replace {
		return fmt.Errorf("%s holds an authority already, and another one; --replace writes over it", dir)
	}
	return unpack(dir, files)
}

// everyRecord gives each record of a gateway's home. Among files the own authority is a folder; it is given as the
// record that it is elsewhere.
func everyRecord(ctx context.Context, home state.Home, kind manifest.StateHome, set *manifest.Set, do func(state.Record) error) error {
	if kind == manifest.StateFile {
		files, err := pack(trustDir(set))
		if err == nil && len(files) > 0 {
			var text []byte
			if text, err = json.Marshal(files); err == nil {
				err = do(state.Record{Key: authorityKind.Only(), Value: text})
			}
		}
		if err != nil {
			return err
		}
	}
	for _, kind := range stateKinds {
		records, err := home.List(ctx, kind)
		if err != nil {
			return err
		}
		for _, r := range records {
			if err := do(r); err != nil {
				return err
			}
		}
	}
	return nil
}
