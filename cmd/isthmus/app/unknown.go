package app

import (
	"context"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// unknown refuses requests whose name is of no kind.
type unknown struct{ zone string }

var _ modules.Module = unknown{}

func (unknown) Class() modules.Class { return modules.Unknown }

func (u unknown) Decide(_ context.Context, req *modules.Request) (modules.Verdict, error) {
	return modules.Verdict{}, fault.New(fault.NotFound, "%q is no name of this gateway; it answers to "+
		"<service>.<namespace>.svc.%[2]s, <container>.<namespace>.ctr.%[2]s:<port> and api.%[2]s", req.Authority, u.zone)
}

func (unknown) Refuse(_ *modules.Request, err error) modules.Answer { return modules.Refusal(err) }
