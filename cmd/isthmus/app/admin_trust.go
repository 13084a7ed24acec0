package app

import "net/http"

// trust is the part of the admin interface that tells and changes who vouches for this gateway.
func (a *admin) trust(mux *http.ServeMux) {
	state := func(w http.ResponseWriter, err error) {
		if err != nil {
			a.refuse(w, err)
			return
		}
		a.outcome(w)(a.gateway.trustState())
	}
	mux.HandleFunc("GET /trust", func(w http.ResponseWriter, _ *http.Request) { state(w, nil) })
	mux.HandleFunc("POST /trust/renewal", func(w http.ResponseWriter, _ *http.Request) { state(w, a.gateway.renewCertificate()) })
	mux.HandleFunc("POST /trust/rotation", func(w http.ResponseWriter, r *http.Request) {
		var q RotationRequest
		if a.read(w, r, "a wish to rotate", &q) {
			state(w, a.gateway.beginRotation(r.Context(), q))
		}
	})
	mux.HandleFunc("POST /trust/rotation/next", func(w http.ResponseWriter, r *http.Request) {
		var q NextRequest
		if a.read(w, r, "a wish for the next phase", &q) {
			state(w, a.gateway.nextPhase(r.Context(), q))
		}
	})
	mux.HandleFunc("DELETE /trust/rotation", func(w http.ResponseWriter, r *http.Request) { state(w, a.gateway.abortRotation(r.Context())) })
}
