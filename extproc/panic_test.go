package extproc

import (
	"context"
	"log/slog"
	"net/http"
	"testing"
	"time"

	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// fragile is a module and an observer that panic where a test says.
type fragile struct{ at string }

func (f fragile) breaks(at string) {
	if f.at == at {
		panic("a bug in " + at)
	}
}

func (fragile) Class() modules.Class { return modules.ContainerOperation }
func (f fragile) Decide(context.Context, *modules.Request) (modules.Verdict, error) {
	f.breaks("decide")
	if f.at == "refuse" {
		return modules.Verdict{}, fault.New(fault.Denied, "no")
	}
	return modules.Verdict{Exchange: fragileExchange{doubling{}, f}}, nil
}

func (f fragile) Refuse(_ *modules.Request, err error) modules.Answer {
	f.breaks("refuse")
	return modules.Answer{Status: fault.Of(err).Kind.Status(), Header: http.Header{"X-Dialect": {"own"}}, Body: []byte("own words")}
}

func (f fragile) Begin(ctx context.Context, _ *modules.Request) context.Context {
	f.breaks("begin")
	return ctx
}

func (f fragile) Decided(context.Context, *modules.Request, modules.Record, string, int) {
	f.breaks("decided")
}

func (f fragile) peer(string) modules.Peer {
	f.breaks("peer")
	return modules.Peer{Name: "west"}
}

type fragileExchange struct {
	doubling
	f fragile
}

func (e fragileExchange) NeedBody() bool {
	e.f.breaks("need body")
	return false
}

func (e fragileExchange) Record() modules.Record {
	e.f.breaks("record")
	return modules.Record{}
}

func (e fragileExchange) Response(ctx context.Context, native modules.Answer) (modules.Answer, error) {
	e.f.breaks("response")
	return e.doubling.Response(ctx, native)
}

// TestPanics holds that a bug anywhere behind the stream is one refused request, in the caller's words where they can
// still be found, and is counted.
func TestPanics(t *testing.T) {
	t.Parallel()
	for at, own := range map[string]bool{"peer": false, "begin": true, "decide": true, "refuse": false, "need body": true,
		"record": true, "decided": true, "response": true} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			f := fragile{at: at}
			server := New(Config{Zone: NewZone("east", "isthmus.internal"), Modules: []modules.Module{f}, Fallback: f,
				Peer: f.peer, Deadline: time.Second, Observer: f, Log: slog.New(slog.DiscardHandler)})
			s := &stream{server: server, ctx: t.Context()}
			messages := []*extprocv3.ProcessingRequest{requestHeaders(true)}
			if at == "response" {
				messages = append(messages, responseHeaders(true, ":status", "200"))
			}
			var last *extprocv3.ProcessingResponse
			for _, m := range messages {
				last = s.step(m)
			}
			answer := last.GetImmediateResponse()
			if answer.GetStatus().GetCode() != http.StatusInternalServerError || (string(answer.GetBody()) == "own words") != own {
				t.Errorf("the answer is %v", last)
			}
			if server.Panics() == 0 {
				t.Error("the panic is not counted")
			}
		})
	}
}
