// Command testbed installs, starts and ends beds of real clusters.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/e2e/testbed"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "testbed:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "testbed",
		Short:         "Install, start and end beds of real clusters on this machine",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(install(), up(), down(), status(), forward(), image())
	return root
}

func install() *cobra.Command {
	return &cobra.Command{
		Use:   "install",
		Short: "Install what beds need: packages, Envoy, Kubernetes, images",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			tools, err := testbed.Install(cmd.Context(), testbed.Progress(cmd.ErrOrStderr()))
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "kubernetes", tools.Kubernetes)
			fmt.Fprintln(cmd.OutOrStdout(), "envoy", tools.Envoy)
			return nil
		},
	}
}

func image() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Write an archive of the gateway's image, isthmus and Envoy, for this machine's architecture",
		Args:  cobra.NoArgs,
	}
	isthmus := cmd.Flags().String("isthmus", "bin/isthmus", "the isthmus to put in")
	reference := cmd.Flags().String("reference", "isthmus.local/isthmus:dev", "the image's name")
	output := cmd.Flags().String("output", "bin/isthmus-image.tar", "the archive")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		envoy, err := testbed.Envoy()
		if err != nil {
			return err
		}
		if err := testbed.WriteGatewayImage(*output, *reference, *isthmus, envoy); err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), *reference, "is in", *output)
		return nil
	}
	return cmd
}

// rootFlag adds the flag that says which bed is meant.
func rootFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("root", filepath.Join(os.TempDir(), "testbed"), "folder of the bed")
}

func up() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start a bed and leave it running",
		Args:  cobra.NoArgs,
		Example: `  testbed up --docker west --kubernetes east --link west-east
  testbed up --docker west,south --kubernetes east --control-plane north --link west-east,north-east`,
	}
	root := rootFlag(cmd)
	name := cmd.Flags().String("name", "bed", "start of the names of namespaces")
	docker := cmd.Flags().StringSlice("docker", nil, "names of Docker clusters")
	plain := cmd.Flags().StringSlice("plain", nil, "those of the Docker clusters that are engines without a Swarm")
	kubernetes := cmd.Flags().StringSlice("kubernetes", nil, "names of Kubernetes clusters with a node")
	controlPlane := cmd.Flags().StringSlice("control-plane", nil, "names of Kubernetes clusters without a node")
	links := cmd.Flags().StringSlice("link", nil, "pairs of clusters to join, as A-B")
	port := cmd.Flags().Int("peer-port", testbed.PeerPort, "the TCP port that links let through")
	keep := cmd.Flags().Bool("keep", false, "leave a bed that fails to start as it is, to be looked at")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		options := testbed.Options{
			Root: *root, Name: *name, Docker: *docker, Plain: *plain, PeerPort: *port, Keep: *keep,
			Log: testbed.Progress(cmd.ErrOrStderr()),
		}
		for _, name := range *kubernetes {
			options.Kubernetes = append(options.Kubernetes, testbed.KubernetesOptions{Name: name})
		}
		for _, name := range *controlPlane {
			options.Kubernetes = append(options.Kubernetes, testbed.KubernetesOptions{Name: name, ControlPlaneOnly: true})
		}
		for _, link := range *links {
			a, b, ok := strings.Cut(link, "-")
			if !ok {
				return fmt.Errorf("link %q: want A-B", link)
			}
			options.Links = append(options.Links, [2]string{a, b})
		}
		bed, err := testbed.Up(cmd.Context(), options)
		if err != nil {
			return err
		}
		return describe(cmd, bed)
	}
	return cmd
}

func down() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "down",
		Short: "End a bed and remove all it left, even after a crash",
		Args:  cobra.NoArgs,
	}
	root := rootFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return testbed.Down(cmd.Context(), *root, testbed.Progress(cmd.ErrOrStderr()))
	}
	return cmd
}

func status() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the clusters, links and processes of a bed",
		Args:  cobra.NoArgs,
	}
	root := rootFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		bed, err := testbed.Open(*root)
		if err != nil {
			return err
		}
		if err := describe(cmd, bed); err != nil {
			return err
		}
		table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "\nPROCESS\tCLUSTER\tPID\tSTATE\tLOG")
		ended := 0
		for _, p := range bed.Processes() {
			state := "running"
			if !p.Running() {
				state = "ended"
				ended++
			}
			fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%s\n", p.Name, p.Cluster, p.PID, state, p.Log)
		}
		if err := table.Flush(); err != nil {
			return err
		}
		if ended > 0 {
			return fmt.Errorf("%d processes have ended", ended)
		}
		return nil
	}
	return cmd
}

func forward() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "forward CLUSTER TARGET",
		Short:   "Make an address within a cluster's namespace reachable on this machine",
		Example: "  testbed forward east 10.101.0.1:6443 --listen 127.0.0.1:16443",
		Args:    cobra.ExactArgs(2),
	}
	root := rootFlag(cmd)
	listen := cmd.Flags().String("listen", "127.0.0.1:0", "address on this machine; port 0 picks one")
	stay := cmd.Flags().Bool("stay", false, "end the forward with this command")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		bed, err := testbed.Open(*root)
		if err != nil {
			return err
		}
		cluster := bed.Cluster(args[0])
		if cluster == nil {
			return fmt.Errorf("no cluster %q; there are %s", args[0], strings.Join(bed.Clusters(), ", "))
		}
		forward, err := cluster.Forward(cmd.Context(), *listen, args[1])
		if err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), forward.Listen)
		if !*stay {
			return nil
		}
		err = forward.Process.Wait(cmd.Context())
		if errors.Is(err, context.Canceled) {
			// The context is over; closing needs one that is not.
			closing, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			return forward.Close(closing)
		}
		return err
	}
	return cmd
}

// describe prints how to reach the clusters.
func describe(cmd *cobra.Command, bed *testbed.Bed) error {
	table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "BED\t%s at %s\n", bed.ID, bed.Root)
	fmt.Fprintf(table, "IMAGE\t%s\n", testbed.Image)
	for _, name := range bed.Clusters() {
		if d := bed.Docker(name); d != nil {
			fmt.Fprintf(table, "\nDOCKER\t%s\n", name)
			fmt.Fprintf(table, "  namespace\t%s\n", d.Namespace)
			fmt.Fprintf(table, "  DOCKER_HOST\t%s\n", d.Host())
		}
		if k := bed.Kubernetes(name); k != nil {
			kind := "KUBERNETES"
			if k.ControlPlaneOnly {
				kind = "CONTROL PLANE"
			}
			fmt.Fprintf(table, "\n%s\t%s\n", kind, name)
			fmt.Fprintf(table, "  namespace\t%s\n", k.Namespace)
			fmt.Fprintf(table, "  KUBECONFIG on this machine\t%s\n", k.HostKubeconfig)
			fmt.Fprintf(table, "  KUBECONFIG in the namespace\t%s\n", k.Kubeconfig)
		}
	}
	for _, link := range bed.Links() {
		a, b := link.Ends()
		fmt.Fprintf(table, "\nLINK\t%s-%s\n", a, b)
		fmt.Fprintf(table, "  gateway of %s\t%s\n", a, link.PeerAddress(a))
		fmt.Fprintf(table, "  gateway of %s\t%s\n", b, link.PeerAddress(b))
	}
	return table.Flush()
}
