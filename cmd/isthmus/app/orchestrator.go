package app

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/isthmus-mesh/isthmus/modules/adapter"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// connect opens the orchestrator. It need not answer yet.
func (g *gateway) connect(ctx context.Context, set *manifest.Set) error {
	config := connection(set, g.log.With("part", "orchestrator"))
	var err error
	if config.Seal, err = openKey(ctx, g.home, sealKind); err != nil {
		return err
	}
	g.dialect, g.target, err = connect(ctx, neutral.Orchestrator(set.Gateway.Spec.Orchestrator.Type), config)
	if err == nil {
		err = g.emulate(config)
	}
	return err
}

// emulate puts an API of its own before the orchestrator for callers whose dialect needs one.
func (g *gateway) emulate(config dialect.Config) error {
	var err error
	g.emulation, g.emulated, err = emulate(g.dialect.Orchestrator(), dialect.Emulation{Cluster: config.Cluster,
		Over: adapter.NewExecutor(g.target), Socket: g.socket(names.EmulationSocket), Seal: config.Seal, Log: config.Log})
	return err
}

// emulate makes the API that stands before an orchestrator of a type, and says for whose callers; nil where there is none.
func emulate(before neutral.Orchestrator, config dialect.Emulation) (neutral.Orchestrator, dialect.Emulated, error) {
	for _, d := range adapter.Dialects {
		emulator, ok := d.(dialect.Emulator)
		if !ok || d.Orchestrator() == before {
			continue
		}
		emulated, err := emulator.Emulate(config)
		if err != nil {
			return "", nil, fmt.Errorf("the API for %s callers: %w", d.Orchestrator(), err)
		}
		return d.Orchestrator(), emulated, nil
	}
	return "", nil, nil
}

// emulations are the APIs before the orchestrator, by whose callers they are for.
func (g *gateway) emulations() map[neutral.Orchestrator]dialect.Emulated {
	if g.emulated == nil {
		return nil
	}
	return map[neutral.Orchestrator]dialect.Emulated{g.emulation: g.emulated}
}

// connection is how the documents say that the orchestrator is reached.
func connection(set *manifest.Set, log *slog.Logger) dialect.Config {
	orchestrator := set.Gateway.Spec.Orchestrator
	return dialect.Config{
		Cluster: set.Gateway.Metadata.Name, Endpoint: orchestrator.Docker.Endpoint,
		Kubeconfig: orchestrator.Kubernetes.Kubeconfig, Context: orchestrator.Kubernetes.Context,
		Namespace: namespaceFor(set), Impersonate: orchestrator.Kubernetes.Impersonate, Log: log,
		AgentNamespace: orchestrator.Kubernetes.AgentNamespace,
		ReviewTokens:   set.Gateway.Spec.Callers.TokenReview != nil,
	}
}

// connect opens an orchestrator by the dialect of its type.
func connect(ctx context.Context, of neutral.Orchestrator, config dialect.Config) (dialect.Dialect, dialect.Cluster, error) {
	for _, d := range adapter.Dialects {
		connector, ok := d.(dialect.Connector)
		if d.Orchestrator() != of || !ok {
			continue
		}
		target, err := connector.Connect(ctx, config)
		if err != nil {
			return nil, nil, fmt.Errorf("orchestrator %s: %w", of, err)
		}
		return d, target, nil
	}
	return nil, nil, fmt.Errorf("orchestrator %q cannot be connected", of)
}

// namespaceFor is where callers of another orchestrator act.
func namespaceFor(set *manifest.Set) string {
	if set.Gateway.Spec.Orchestrator.Type == manifest.Kubernetes {
		return set.Gateway.Spec.Orchestrator.Kubernetes.Namespace
	}
	return "default"
}
