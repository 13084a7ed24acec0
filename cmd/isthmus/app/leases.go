package app

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/cmd/isthmus/app/telemetry"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/modules/proxy"
	"github.com/isthmus-mesh/isthmus/modules/proxy/lease"
)

// openLeases makes the book of switched network modes; it is nil where the orchestrator's dialect switches none.
func (g *gateway) openLeases(times manifest.Leases, observer *telemetry.Telemetry) error {
	switcher := g.switcher()
	if switcher == nil {
		return nil
	}
	linger, err := time.ParseDuration(times.Linger)
	if err != nil {
		return fmt.Errorf("spec.leases.linger: %w", err)
	}
	longest, err := time.ParseDuration(times.Longest)
	if err != nil {
		return fmt.Errorf("spec.leases.longest: %w", err)
	}
	g.leases = lease.New(lease.Config{
		Home: g.home, Replica: g.replica, Switcher: switcher, Reach: proxy.Reach(g.target), Linger: linger, Most: longest,
		Happened: observer.Switched, Log: g.log.With("part", "leases"),
	})
	return nil
}

// switcher is what switches network modes; nil where the orchestrator's dialect does not.
func (g *gateway) switcher() lease.Switcher {
	if switcher, ok := g.target.(dialect.Switcher); ok {
		return switcher
	}
	return nil
}

// LeaseState is one lease as the admin interface tells it.
type LeaseState struct {
	ID       string    `json:"id"`
	Target   string    `json:"target"` // <namespace>/<container>
	Object   string    `json:"object"` // that was changed
	From     string    `json:"from"`
	To       string    `json:"to"`
	Peer     string    `json:"peer"`
	Caller   string    `json:"caller,omitempty"`
	Phase    string    `json:"phase"`
	Step     string    `json:"step,omitempty"`
	Since    time.Time `json:"since"`
	Until    time.Time `json:"until"`
	Away     string    `json:"away,omitempty"`
	Failure  string    `json:"failure,omitempty"`
	Replica  string    `json:"replica"`
	Restores bool      `json:"restores"` // it ends with the way back
}

var errNoLeases = fault.New(fault.Unsupported, "this gateway's orchestrator switches no network modes")

// releasePatience is how long an admin waits until a target is back.
const releasePatience = 2 * time.Minute

func (g *gateway) leaseStates() []LeaseState {
	states := []LeaseState{}
	if g.leases == nil {
		return states
	}
	for _, l := range g.leases.List() {
		s := LeaseState{ID: l.ID, Target: l.Target, Object: proxy.Describe(l.Plan.Object), From: string(l.Plan.From), To: string(l.Plan.To), Peer: l.Peer,
			Caller: l.Caller, Phase: string(l.Phase), Step: l.Step, Since: l.Since, Until: l.Until, Failure: l.Failure, Replica: l.Replica, Restores: !l.Plan.Keep}
		if l.Away > 0 {
			s.Away = l.Away.Round(time.Millisecond).String()
		}
		states = append(states, s)
	}
	return states
}

func (a *admin) leases(mux *http.ServeMux) {
	mux.HandleFunc("GET /leases", func(w http.ResponseWriter, _ *http.Request) { a.write(w, http.StatusOK, a.gateway.leaseStates()) })
	mux.HandleFunc("DELETE /leases/{id}", func(w http.ResponseWriter, r *http.Request) {
		if a.gateway.leases == nil {
			a.refuse(w, errNoLeases)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), releasePatience)
		defer cancel()
		if err := a.gateway.leases.Release(ctx, r.PathValue("id")); err != nil {
			a.refuse(w, err)
			return
		}
		a.log.Info("a lease was released", "lease", r.PathValue("id"))
		a.write(w, http.StatusOK, struct{}{})
	})
}

func leasesCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "leases", Short: "Show the containers whose network mode was switched for an access", Args: cobra.NoArgs,
		Long: "A container that no network reaches, or that runs in another network mode than an access asks for, is switched for\n" +
			"it where policy lets that be (networkSwitch), and given back when the access has ended. What is switched now is\n" +
			"shown here: for whom, since when, until when it stays unless the access goes on, and what is done to it.",
		Example: "  isthmus leases\n  isthmus leases release 4k2xw7qf3m",
	}
	admin := adminFlag(c)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		var all []LeaseState
		if err := ask(cmd.Context(), *admin, http.MethodGet, "/leases", nil, &all); err != nil {
			return err
		}
		table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
		fmt.Fprintln(table, "LEASE\tTARGET\tCHANGED\tFROM\tTO\tHOLDER\tPHASE\tSTEP\tSINCE\tUNTIL\tHINDERED BY")
		for _, l := range all {
			holder := l.Peer
			if l.Caller != "" {
				holder += " (" + l.Caller + ")"
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", l.ID, l.Target, l.Object, l.From, l.To, holder, l.Phase, dash(l.Step),
				l.Since.Local().Format(time.TimeOnly), l.Until.Local().Format(time.TimeOnly), dash(l.Failure))
		}
		return table.Flush()
	}
	c.AddCommand(&cobra.Command{
		Use: "release LEASE", Short: "Give a container back now, whoever uses it, and wait until it is back", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := ask(cmd.Context(), *admin, http.MethodDelete, "/leases/"+url.PathEscape(args[0]), nil, nil); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s has ended; isthmus audit tells how\n", args[0])
			return nil
		},
	})
	return c
}
