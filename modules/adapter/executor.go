package adapter

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// executor carries out what an emulated API is made of. What that API is asked for was judged before; the operations that
// it comes to are not judged again.
type executor struct{ target dialect.Cluster }

// NewExecutor carries out operations on a cluster, without asking a policy.
func NewExecutor(target dialect.Cluster) dialect.Executor { return executor{target} }

func judgedBefore(neutral.Object) (dialect.Terms, error) { return dialect.Terms{}, nil }

func (e executor) Do(ctx context.Context, op neutral.Operation) (neutral.Result, error) {
	plan, err := e.target.Plan(op, judgedBefore)
	if err != nil {
		return neutral.Result{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, planDeadline)
	defer cancel()
	return run(ctx, e.target, plan)
}

func (e executor) Stream(ctx context.Context, op neutral.Operation, session neutral.Session) (neutral.Result, error) {
	plan, err := e.target.Plan(op, judgedBefore)
	if err != nil {
		return neutral.Result{}, err
	}
	if plan.Stream == nil {
		return neutral.Result{}, errNoPlan
	}
	return plan.Stream(ctx, session)
}

// dialDeadline bounds how long a connection to a container takes to open.
const dialDeadline = 10 * time.Second

// Dial connects to a port of a container over whatever network this gateway reaches it by.
func (e executor) Dial(ctx context.Context, container string, port uint16) (net.Conn, error) {
	target, err := e.target.Locate(ctx, neutral.TargetRef{Container: container})
	if err != nil {
		return nil, err
	}
	if target.Network == neutral.NetworkHost {
		return nil, fault.New(fault.Denied, "no permission: the container is on its host's network, and its ports are the host's")
	}
	if !target.Address.IsValid() {
		return nil, fault.New(fault.Unsupported, "no network of the container can be reached from its cluster's gateway")
	}
	ctx, cancel := context.WithTimeout(ctx, dialDeadline)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", netip.AddrPortFrom(target.Address, port).String())
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "nothing in the container takes connections at port %d", port)
	}
	return conn, nil
}
