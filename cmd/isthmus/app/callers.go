package app

import (
	"fmt"
	"log/slog"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/caller"
	"github.com/isthmus-mesh/isthmus/modules/manifest"
)

// newCallers makes what knows this cluster's callers.
func newCallers(spec manifest.GatewaySpec, target dialect.Cluster, log *slog.Logger) (*caller.Authenticator, error) {
	config := caller.Config{Tokens: spec.Callers.Tokens.File, ClientCA: spec.Callers.ClientCA, Log: log}
	if review := spec.Callers.TokenReview; review != nil {
		reviewer, ok := target.(dialect.TokenReviewer)
		if !ok {
			return nil, fmt.Errorf("spec.callers.tokenReview: an orchestrator of type %s has no tokens to review", spec.Orchestrator.Type)
		}
		config.Reviewer, config.Audiences = reviewer, review.Audiences
	}
	for _, place := range spec.Callers.Unauthenticated {
		config.Open = append(config.Open, classOf[place])
	}
	return caller.New(config)
}

var classOf = map[manifest.CallerPlace]modules.Class{
	manifest.CallersOfAPI: modules.ContainerOperation, manifest.CallersOfServices: modules.ServiceQuery,
	manifest.CallersOfAccesses: modules.ContainerAccess,
}

// refuseNative renders a refusal for this cluster's own clients of a peer's API.
func (g *gateway) refuseNative(req *modules.Request, err error) modules.Answer {
	r := g.dialect.Refuse(dialect.Request{Method: req.Method, Path: req.Path, Header: req.Header}, err)
	return modules.Answer{Status: r.Status, Header: r.Header, Body: r.Body}
}
