package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/proxy"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// planAccess says what an access would take; the error is why it would be refused.
func planAccess(ctx context.Context, address string, access AccessState, w io.Writer) error {
	var plan proxy.Plan
	if err := ask(ctx, address, http.MethodPost, "/accesses/plan", access, &plan); err != nil {
		return err
	}
	return printPlan(w, plan, access)
}

// printPlan writes a plan for people. What is in it is the peer's word.
func printPlan(w io.Writer, plan proxy.Plan, access AccessState) error {
	say := func(what, format string, args ...any) {
		fmt.Fprintf(w, "%-10s %s\n", what, printable(fmt.Sprintf(format, args...)))
	}
	say("target", "%s port %d of %s", plan.Target, access.Port, access.Peer)
	say("mode", "%s", plan.Mode)
	if plan.Needs != "" {
		say("needs", "%s", plan.Needs)
	} else {
		say("needs", "any in which the port is reached")
	}
	s := plan.Switch
	if plan.Serves || s == nil {
		say("switch", "none: the present mode serves, and nothing is touched")
		return nil
	}
	if s.Object != "" {
		end := "and is left so"
		if s.Restore {
			end = "and back when it is no longer used"
		}
		say("switch", "%s from %s to %s, %s", s.Object, s.From, s.To, end)
	}
	switch {
	case s.Live:
		say("away", "not at all: nothing is restarted")
	case s.Away != "":
		say("away", "about %s, each way", s.Away)
	}
	for _, list := range []struct {
		what string
		each []string
	}{{"recreated", s.Recreated}, {"lost", s.Lost}, {"refused", s.Refusals}} {
		for _, text := range list.each {
			say(list.what, "%s", text)
		}
	}
	if len(s.Refusals) > 0 {
		return errors.New("the access would be refused")
	}
	return nil
}

// planAccess asks the peer what an access would take.
func (a *admin) planAccess(w http.ResponseWriter, r *http.Request) {
	access, ok := a.readAccess(w, r)
	if !ok {
		return
	}
	a.outcome(w)(a.gateway.accessPlan(r.Context(), access))
}

func (g *gateway) accessPlan(ctx context.Context, access AccessState) (proxy.Plan, error) {
	header := http.Header{}
	header.Set(names.HeaderPlan, "1")
	for key, value := range map[string]string{
		names.HeaderNode: access.Node, names.HeaderNetworkMode: access.NetworkMode, names.HeaderLayer: access.Layer,
	} {
		if value != "" {
			header.Set(key, value)
		}
	}
	var plan proxy.Plan
	body, err := g.askAccess(ctx, access.Peer, accessAuthority(access, g.started.Gateway.Spec.Suffix), dialect.Request{Method: http.MethodGet, Path: "/", Header: header})
	if err != nil {
		return plan, err
	}
	if err := json.Unmarshal(body, &plan); err != nil || plan.Target == "" {
		return plan, fault.New(fault.Unavailable, "peer %s does not say what an access would take; its isthmus may be too old", access.Peer)
	}
	return plan, nil
}

// accessAuthority is the name and port by which an access asks its peer.
func accessAuthority(a AccessState, suffix string) string {
	return names.AccessHost(containerOf(a.Target), namespaceOf(a.Target), a.Peer, suffix) + ":" + portText(a.Port)
}
