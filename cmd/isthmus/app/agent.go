package app

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/modules/freezer"
	"github.com/isthmus-mesh/isthmus/modules/freezer/agent"
	"github.com/isthmus-mesh/isthmus/modules/freezer/containerd"
)

// agentOptions are the flags of isthmus agent.
type agentOptions struct {
	node, socket, kubeconfig, leases string
	namespaces                       []string
	logLevel                         slog.LevelVar
}

func agentCommand() *cobra.Command {
	o := &agentOptions{}
	c := &cobra.Command{
		Use:   "agent",
		Short: "Freeze containers on a node of a Kubernetes cluster, for docker pause",
		Long: "Runs the agent of one node: it freezes and thaws containers of Pods as gateways wish, which Kubernetes has no\n" +
			"call for, by containerd on the node. It listens nowhere. Only Pods of the namespaces that are named are followed.\n" +
			"SIGTERM ends it; what is frozen stays so until an agent runs again.",
		Example: "  isthmus agent --node $NODE_NAME --namespace default",
		Args:    cobra.NoArgs,
	}
	level := "info"
	c.Flags().StringVar(&o.node, "node", os.Getenv("NODE_NAME"), "the node's name in Kubernetes (or NODE_NAME)")
	c.Flags().StringArrayVar(&o.namespaces, "namespace", nil, "namespace whose Pods may be frozen; may be given again")
	c.Flags().StringVar(&o.leases, "lease-namespace", freezer.Namespace, "namespace of the lease by which gateways know that the agent is there")
	c.Flags().StringVar(&o.socket, "containerd", "/run/containerd/containerd.sock", "containerd's socket")
	c.Flags().StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file (default: the Pod's own service account)")
	c.Flags().StringVar(&level, "log-level", level, "debug, info, warn or error")
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := o.logLevel.UnmarshalText([]byte(level)); err != nil {
			return fmt.Errorf("--log-level: %w", err)
		}
		if o.node == "" {
			return fmt.Errorf("--node is missing: the node's name in Kubernetes")
		}
		if len(o.namespaces) == 0 {
			return fmt.Errorf("--namespace is missing: nothing is frozen in a namespace that is not named")
		}
		log := slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: &o.logLevel})).With("node", o.node)
		return runAgent(cmd.Context(), o, log)
	}
	return c
}

func runAgent(ctx context.Context, o *agentOptions, log *slog.Logger) error {
	client, err := agent.Client(o.kubeconfig)
	if err != nil {
		return err
	}
	runtime, err := containerd.Open(o.socket)
	if err != nil {
		return err
	}
	defer func() { _ = runtime.Close() }() // nothing is under way by then
	alone, err := runtime.Alone(ctx, func() { log.Warn("another agent acts on this node; waiting until it has ended") })
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer alone.Close()
	a, err := agent.New(agent.Config{Client: client, Runtime: runtime, Node: o.node, Namespaces: o.namespaces, LeaseNamespace: o.leases, Log: log})
	if err != nil {
		return err
	}
	log.Info("starting", "version", version)
	err = a.Run(ctx)
	log.Info("ended; what is frozen stays frozen")
	return err
}
