package join

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"

	"github.com/isthmus-mesh/isthmus/xds/names"
	"github.com/isthmus-mesh/isthmus/xds/peering/trust"
)

// maxMessage bounds a message of the protocol, in bytes; a bundle is the largest part.
const maxMessage = 128 << 10

// request is what the joining gateway sends, after it has made sure of whom it talks to.
type request struct {
	Invitation string   `json:"invitation"`
	Secret     string   `json:"secret"`
	Bundle     string   `json:"bundle"`
	Addresses  []string `json:"addresses,omitempty"` // of its peer listener; none when it cannot be dialled
	BehindNAT  bool     `json:"behindNAT,omitempty"` // it cannot be dialled, and leaves reverse tunnels
}

// response is the inviting gateway's answer: its bundle, or why not.
type response struct {
	Bundle  string `json:"bundle,omitempty"`
	Reason  Reason `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
}

// Joiner is a gateway that redeems an invitation, and how it is reached.
type Joiner struct {
	Invitation string // the invitation's id, at the inviting gateway
	Bundle     trust.Bundle
	Addresses  []string
	BehindNAT  bool
}

// Server redeems invitations.
type Server struct {
	Invitations *Invitations
	Self        func() trust.Bundle // as it is now
	// Accept makes a peer of who redeemed an invitation, which may have ceased to stand meanwhile. It is called again for one
	// whose answer was lost.
	Accept func(ctx context.Context, joiner Joiner) error
	Log    *slog.Logger
}

// ServeHTTP answers one joining gateway.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != names.JoinPath {
		s.answer(w, http.StatusNotFound, response{Message: "only " + names.JoinPath + " is served here"})
		return
	}
	if r.Method != http.MethodPost {
		s.answer(w, http.StatusMethodNotAllowed, response{Message: "only POST is served here"})
		return
	}
	var q request
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxMessage))
	if err := decoder.Decode(&q); err != nil { // a newer minor version may say more
		s.answer(w, http.StatusBadRequest, response{Reason: Rejected, Message: "the body is not a request to join"})
		return
	}
	joiner, err := s.redeem(r.Context(), q)
	var refusal *Refusal
	switch {
	case errors.As(err, &refusal):
		s.Log.Warn("an invitation was not redeemed", "invitation", q.Invitation, "reason", refusal.Reason, "why", refusal.Message)
		s.answer(w, http.StatusForbidden, response{Reason: refusal.Reason, Message: refusal.Message})
		return
	case err != nil:
		s.Log.Error("an invitation could not be redeemed", "invitation", q.Invitation, "err", err)
		s.answer(w, http.StatusInternalServerError, response{Message: "the inviting gateway failed; its log says why"})
		return
	}
	text, err := s.Self().MarshalText()
	if err != nil {
		s.Log.Error("the trust bundle could not be written", "err", err)
		s.answer(w, http.StatusInternalServerError, response{Message: "the inviting gateway failed; its log says why"})
		return
	}
	s.Log.Info("an invitation was redeemed", "invitation", q.Invitation, "peer", joiner.Bundle.Identity.String(), "fingerprint", joiner.Bundle.Fingerprint)
	s.answer(w, http.StatusOK, response{Bundle: string(text)})
}

func (s *Server) redeem(ctx context.Context, q request) (Joiner, error) {
	bundle, err := trust.ParseBundle([]byte(q.Bundle))
	if err != nil {
		return Joiner{}, refuse(Rejected, "%v", err)
	}
	if bundle.Identity == s.Self().Identity {
		return Joiner{}, refuse(Rejected, "a gateway cannot join itself")
	}
	if err := dialable(q.Addresses); err != nil {
		return Joiner{}, refuse(Rejected, "%v", err)
	}
	if q.BehindNAT && len(q.Addresses) > 0 {
		return Joiner{}, refuse(Rejected, "a gateway that cannot be dialled has no addresses")
	}
	if err := s.Invitations.Redeem(ctx, q.Invitation, q.Secret, bundle.Identity, bundle.Fingerprint); err != nil {
		return Joiner{}, err
	}
	joiner := Joiner{Invitation: q.Invitation, Bundle: bundle, Addresses: q.Addresses, BehindNAT: q.BehindNAT}
	return joiner, s.Accept(ctx, joiner)
}

// Reject makes an error of Accept one that the joining gateway is told.
func Reject(err error) error { return refuse(Rejected, "%v", err) }

// maxAddresses is how many a gateway may have.
const maxAddresses = 8

func dialable(addresses []string) error {
	if len(addresses) > maxAddresses {
		return errors.New("there are too many addresses")
	}
	for _, a := range addresses {
		if host, port, err := net.SplitHostPort(a); err != nil || host == "" || port == "" || len(a) > 300 {
			return errors.New("an address is not host:port")
		}
	}
	return nil
}

func (s *Server) answer(w http.ResponseWriter, status int, a response) {
	data, err := json.Marshal(a)
	if err != nil { // of strings
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(data) // a client that is gone needs no answer
}

var _ http.Handler = (*Server)(nil)
