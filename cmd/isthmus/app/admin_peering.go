package app

import (
	"errors"
	"net/http"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/xds/peering/join"
)

// peering is the part of the admin interface by which peers come and go.
func (a *admin) peering(mux *http.ServeMux) {
	mux.HandleFunc("GET /invitations", func(w http.ResponseWriter, _ *http.Request) {
		states := []InvitationState{}
		for _, i := range a.gateway.invitations.List() {
			states = append(states, invitationState(i))
		}
		a.write(w, http.StatusOK, states)
	})
	mux.HandleFunc("POST /invitations", func(w http.ResponseWriter, r *http.Request) {
		var q InvitationRequest
		if !a.read(w, r, "an invitation", &q) {
			return
		}
		a.outcome(w)(a.gateway.invite(r.Context(), q))
	})
	mux.HandleFunc("DELETE /invitations/{id}", func(w http.ResponseWriter, r *http.Request) {
		i, err := a.gateway.invitations.Revoke(r.Context(), r.PathValue("id"))
		if errors.Is(err, join.ErrNotFound) {
			err = fault.New(fault.NotFound, "no invitation has the id %q; isthmus peer invitations shows them", r.PathValue("id"))
		}
		a.outcome(w)(invitationState(i), err)
	})
	mux.HandleFunc("POST /join", func(w http.ResponseWriter, r *http.Request) {
		var q JoinRequest
		if !a.read(w, r, "a wish to join", &q) {
			return
		}
		peer, err := a.gateway.join(r.Context(), q)
		a.outcome(w)(PeerState{Name: peer}, err)
	})
	mux.HandleFunc("GET /peers/{name}/api", func(w http.ResponseWriter, r *http.Request) {
		a.outcome(w)(a.gateway.api(r.PathValue("name")))
	})
	mux.HandleFunc("PUT /peers/{name}/api", func(w http.ResponseWriter, r *http.Request) {
		var q APIRequest
		if !a.read(w, r, "where an API is offered", &q) {
			return
		}
		a.outcome(w)(struct{}{}, a.gateway.offer(r.Context(), r.PathValue("name"), q))
	})
	mux.HandleFunc("POST /peers/{name}/suspend", func(w http.ResponseWriter, r *http.Request) {
		a.outcome(w)(struct{}{}, a.gateway.suspend(r.Context(), r.PathValue("name"), true))
	})
	mux.HandleFunc("POST /peers/{name}/resume", func(w http.ResponseWriter, r *http.Request) {
		a.outcome(w)(struct{}{}, a.gateway.suspend(r.Context(), r.PathValue("name"), false))
	})
	mux.HandleFunc("DELETE /peers/{name}", func(w http.ResponseWriter, r *http.Request) {
		a.outcome(w)(struct{}{}, a.gateway.part(r.Context(), r.PathValue("name")))
	})
}
