package app

import (
	"time"

	"github.com/isthmus-mesh/isthmus/xds/peering/trust"
)

// TrustState is who vouches for a gateway, as the admin interface tells it.
type TrustState struct {
	Identity    string           `json:"identity"`
	Source      string           `json:"source"` // own, files or secret
	Problem     string           `json:"problem,omitempty"`
	Phase       string           `json:"phase"` // of the rotation: steady, announced or issuing
	Began       time.Time        `json:"began,omitzero"`
	SwitchBy    time.Time        `json:"switchBy,omitzero"`
	Switched    time.Time        `json:"switched,omitzero"`
	DropAt      time.Time        `json:"dropAt,omitzero"`
	Authorities []AuthorityState `json:"authorities"`
	Certificate CertificateState `json:"certificate"`
	Peers       []PeerTrust      `json:"peers"`
	Serial      uint64           `json:"serial,omitempty"` // of the bundle
	Bundle      string           `json:"bundle,omitempty"` // for peers to import
}

// AuthorityState is one authority that peers are to trust.
type AuthorityState struct {
	Fingerprint string    `json:"fingerprint"`
	Role        string    `json:"role"` // issues, next, former, or trusted (another root of the admin's)
	NotAfter    time.Time `json:"notAfter"`
}

// CertificateState is the gateway's certificate.
type CertificateState struct {
	NotBefore time.Time `json:"notBefore,omitzero"`
	NotAfter  time.Time `json:"notAfter,omitzero"`
	RenewAt   time.Time `json:"renewAt,omitzero"` // zero where the admin renews it
}

// PeerTrust is whether a peer trusts this gateway's authority.
type PeerTrust struct {
	Name         string   `json:"name"`
	Acknowledged bool     `json:"acknowledged"`
	Why          string   `json:"why,omitempty"`    // it has not
	Trusts       []string `json:"trusts,omitempty"` // fingerprints
	OverLink     bool     `json:"overLink"`         // it takes bundles over the link
	Refused      string   `json:"refused,omitempty"`
}

// RotationRequest asks for another authority.
type RotationRequest struct {
	Within string `json:"within"` // a duration; 0s waits for every peer
	Keep   string `json:"keep"`   // a duration
}

// NextRequest asks for the phase after the one that the admin saw.
type NextRequest struct {
	After string `json:"after"`
}

// trustState is how it is with the gateway's authority.
func (g *gateway) trustState() (TrustState, error) {
	pair := g.certificate()
	state := TrustState{
		Identity: g.self.String(), Source: string(g.started.Gateway.Spec.Trust.Authority), Phase: "steady", Authorities: []AuthorityState{},
		Certificate: CertificateState{NotBefore: pair.NotBefore, NotAfter: pair.NotAfter, RenewAt: g.renewer.RenewAt()},
		Peers:       g.acknowledgements(),
	}
	if problem := g.material.Load(); problem != nil {
		state.Problem = *problem
	}
	authority := g.authority.Load()
	if authority == nil {
		return state, nil
	}
	role := "trusted"
	if g.rotator != nil {
		rotation := g.rotator.Rotation()
		if rotation.Phase != trust.Steady {
			state.Phase = string(rotation.Phase)
		}
		state.Began, state.Switched, state.SwitchBy, state.DropAt = rotation.Began, rotation.Switched, rotation.SwitchBy(), rotation.DropAt()
		role = map[trust.Phase]string{trust.Announced: "next", trust.Issuing: "former"}[rotation.Phase]
	}
	bundle := authority.Export()
	for i, root := range bundle.Roots() {
		a := AuthorityState{Fingerprint: root.Fingerprint, NotAfter: root.NotAfter, Role: role}
		if i == 0 {
			a.Role = "issues"
		}
		state.Authorities = append(state.Authorities, a)
	}
	text, err := bundle.MarshalText()
	state.Serial, state.Bundle = bundle.Serial, string(text)
	return state, err
}
