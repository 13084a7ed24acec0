package app

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/manifest"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// admin is the admin interface: JSON over HTTP on loopback.
type admin struct {
	gateway  *gateway
	registry *prometheus.Registry
	log      *slog.Logger
}

// health is the part of the admin interface that may be reached from elsewhere: by a node's probes and by Prometheus.
func (a *admin) health() *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		a.write(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.HandleFunc("GET /readyz", a.ready)
	return mux
}

func (a *admin) handler() http.Handler {
	mux := a.health()
	mux.HandleFunc("GET /peers", func(w http.ResponseWriter, _ *http.Request) { a.write(w, http.StatusOK, a.gateway.peerStates()) })
	mux.HandleFunc("GET /catalogue", func(w http.ResponseWriter, _ *http.Request) { a.write(w, http.StatusOK, a.gateway.entries()) })
	mux.HandleFunc("GET /hosts", a.hosts)
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { a.write(w, http.StatusOK, a.gateway.status()) })
	mux.HandleFunc("GET /accesses", func(w http.ResponseWriter, _ *http.Request) {
		a.write(w, http.StatusOK, append([]AccessState{}, a.gateway.accesses.list()...))
	})
	mux.HandleFunc("POST /accesses", a.openAccess)
	mux.HandleFunc("POST /accesses/plan", a.planAccess)
	mux.HandleFunc("DELETE /accesses/{name}", func(w http.ResponseWriter, r *http.Request) {
		if err := a.gateway.accesses.close(r.Context(), r.PathValue("name")); err != nil {
			a.refuse(w, err)
			return
		}
		a.write(w, http.StatusOK, struct{}{})
	})
	mux.HandleFunc("POST /copies", a.copyObject)
	a.leases(mux)
	a.peering(mux)
	a.trust(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		a.refuse(w, fault.New(fault.NotFound, "the admin interface has no %s", r.URL.Path))
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Two guards against pages in a browser on this machine: a name that was made to resolve to loopback, and a
		// request from another page, which cannot carry our header without asking first.
		if !loopbackHost(r.Host) {
			a.refuse(w, fault.New(fault.Denied, "the admin interface answers to IP addresses and localhost only"))
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead && r.Header.Get(adminHeader) == "" {
			a.refuse(w, fault.New(fault.Denied, "header %s is required on what changes something", adminHeader))
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func loopbackHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || host == "localhost"
}

func (a *admin) ready(w http.ResponseWriter, _ *http.Request) {
	if why := a.gateway.unready(); len(why) > 0 {
		a.write(w, http.StatusServiceUnavailable, map[string]any{"ready": false, "message": strings.Join(why, "; ")})
		return
	}
	a.write(w, http.StatusOK, map[string]any{"ready": true})
}

func (a *admin) openAccess(w http.ResponseWriter, r *http.Request) {
	access, ok := a.readAccess(w, r)
	if !ok {
		return
	}
	if address, err := netip.ParseAddrPort(access.Listen); err != nil || address.Port() == 0 {
		a.refuse(w, fault.New(fault.Invalid, "listen %q is not address:port", access.Listen))
		return
	}
	if !a.gateway.knows(access.Peer) {
		a.refuse(w, fault.New(fault.NotFound, "no peer is named %q; isthmus peers shows them", access.Peer))
		return
	}
	if !a.gateway.set.Load().Gateway.Spec.Callers.Open(manifest.CallersOfAccesses) {
		a.refuse(w, fault.New(fault.Denied, "who connects to an access shows no credential, and spec.callers.unauthenticated of the "+
			"Gateway document has no accesses"))
		return
	}
	if what := a.gateway.listens(access.Listen); what != "" {
		a.refuse(w, fault.New(fault.Conflict, "%s is the gateway's own (%s); choose another port with --local", access.Listen, what))
		return
	}
	before, begin := a.gateway.accesses.list(), time.Now()
	opened, err := a.gateway.accesses.open(r.Context(), access)
	if err == nil {
		if err = a.gateway.listening(r.Context(), opened, begin); err != nil && !slices.Contains(before, opened) {
			// What Envoy cannot listen on must not stand in the way of every later change.
			err = errors.Join(err, a.gateway.accesses.close(context.WithoutCancel(r.Context()), opened.Name))
		}
	}
	if err != nil {
		a.refuse(w, err)
		return
	}
	a.write(w, http.StatusOK, opened)
}

// readAccess takes an access from a request's body; it has answered when ok is false.
func (a *admin) readAccess(w http.ResponseWriter, r *http.Request) (access AccessState, ok bool) {
	if !a.read(w, r, "an access", &access) {
		return access, false
	}
	if _, err := accessTarget(access.Peer + "/" + namespaceOf(access.Target) + "/" + containerOf(access.Target) + ":" + strconv.Itoa(int(access.Port))); err != nil {
		a.refuse(w, fault.New(fault.Invalid, "%v", err))
		return access, false
	}
	switch neutral.LayerMode(access.Layer) {
	case neutral.LayerRefuse, neutral.LayerCommit, neutral.LayerDiscard:
		return access, true
	}
	a.refuse(w, fault.New(fault.Invalid, "layer %q is neither commit nor discard", access.Layer))
	return access, false
}

func namespaceOf(target string) string { return target[strings.LastIndexByte(target, '.')+1:] }

func containerOf(target string) string {
	if i := strings.LastIndexByte(target, '.'); i > 0 {
		return target[:i]
	}
	return ""
}

// read takes a request's body, which is to be what the words say; it has answered when it returns false.
func (a *admin) read(w http.ResponseWriter, r *http.Request, what string, into any) bool {
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		a.refuse(w, fault.Wrap(fault.Invalid, err, "the body is not %s: %v", what, err))
		return false
	}
	return true
}

// outcome answers with a value, or with why there is none.
func (a *admin) outcome(w http.ResponseWriter) func(value any, err error) {
	return func(value any, err error) {
		if err != nil {
			a.refuse(w, err)
			return
		}
		a.write(w, http.StatusOK, value)
	}
}

func (a *admin) write(w http.ResponseWriter, status int, value any) {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		a.log.Error("an admin answer could not be written", "err", err)
		status, data = http.StatusInternalServerError, []byte(`{"message":"internal error"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n')) // a client that is gone needs no answer
}

func (a *admin) refuse(w http.ResponseWriter, err error) {
	answer := modules.Refusal(err)
	if answer.Status == http.StatusInternalServerError { // the answer does not say
		a.log.Error("an admin request failed", "err", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(answer.Status)
	_, _ = w.Write(answer.Body)
}
