package manifest

import "slices"

// Callers says who of this cluster may use the gateway, and how they are known. Who the caller is crosses to the peer,
// where policies and the audit log use it.
type Callers struct {
	Tokens      Tokens       `yaml:"tokens" doc:"Bearer tokens that are kept in a file."`
	ClientCA    string       `yaml:"clientCA" format:"path" doc:"A PEM file with the certificate authorities of callers. The certificate's SPIFFE ID is the caller's name, else its common name, else its one DNS name; its organizations are the caller's groups. Read again when it changes."`
	TokenReview *TokenReview `yaml:"tokenReview" doc:"Tokens of this cluster's service accounts and users, {} for the API server's own audiences. Only with orchestrator type kubernetes."`
	// Unauthenticated are parts of the gateway that need no credential.
	Unauthenticated []CallerPlace `yaml:"unauthenticated" values:"api|services|accesses" doc:"Where callers without a credential may come: the TCP listeners of peers' APIs (spec.api.listen), services of peers by the edge, and containers of peers by the edge and by isthmus access. Left out, nowhere. Who comes over a Unix socket is known by its user."`
}

// Tokens are bearer tokens that are kept in a file.
type Tokens struct {
	File string `yaml:"file" format:"path" doc:"Lines of token,name or token,name,group,group ..., where the token may be sha256: and the hexadecimal SHA-256 of it. Others than its owner and a group must not be able to read it. Read again when it changes."`
}

// TokenReview asks the cluster's API server whose a token is.
type TokenReview struct {
	Audiences []string `yaml:"audiences" doc:"The audiences that a token must be for, any of these. Left out, those of the API server."`
}

// CallerPlace is a part of the gateway that callers come in by.
type CallerPlace string

// The places.
const (
	CallersOfAPI      CallerPlace = "api"
	CallersOfServices CallerPlace = "services"
	CallersOfAccesses CallerPlace = "accesses"
)

// Open tells whether callers without a credential may come in there.
func (c Callers) Open(place CallerPlace) bool { return slices.Contains(c.Unauthenticated, place) }

// Known tells whether any credential is looked at.
func (c Callers) Known() bool { return c.Tokens.File != "" || c.ClientCA != "" || c.TokenReview != nil }
