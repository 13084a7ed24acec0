package resource

import (
	"net"
	"slices"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Names of secrets.
const (
	SecretIdentity           = "identity"
	SecretPeers              = "trust/peers" // who may come in
	SecretOrchestratorCA     = "orchestrator/ca"
	SecretOrchestratorClient = "orchestrator/client"
	SecretOrchestratorToken  = "orchestrator/token"
)

// PeerSecret is the name of the trust in one peer that this gateway dials.
func PeerSecret(peer string) string { return "trust/peer/" + peer }

// Certificate is the secret of a certificate and its key.
func Certificate(name string, certificate, key []byte) *tlsv3.Secret {
	return &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
		CertificateChain: inlineBytes(certificate), PrivateKey: inlineBytes(key),
	}}}
}

// Trust is the secret of the trust in peers: a certificate must be of a trust domain's own CA and carry exactly the
// SPIFFE id of one of the peers. Peers of one trust domain have the same bundle.
func Trust(name string, peers []Peer) *tlsv3.Secret {
	validator := &tlsv3.SPIFFECertValidatorConfig{}
	context := &tlsv3.CertificateValidationContext{}
	seen := make(map[string]bool, len(peers))
	for _, p := range peers {
		if !seen[p.TrustDomain] {
			seen[p.TrustDomain] = true
			validator.TrustDomains = append(validator.TrustDomains, &tlsv3.SPIFFECertValidatorConfig_TrustDomain{
				Name: p.TrustDomain, TrustBundle: inlineBytes(p.Bundle),
			})
		}
		context.MatchTypedSubjectAltNames = append(context.MatchTypedSubjectAltNames, &tlsv3.SubjectAltNameMatcher{
			SanType: tlsv3.SubjectAltNameMatcher_URI, Matcher: exactly(p.ID),
		})
	}
	context.CustomValidatorConfig = extension("envoy.tls.cert_validator.spiffe", validator)
	return &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_ValidationContext{ValidationContext: context}}
}

// OrchestratorSecrets are what the orchestrator's cluster needs.
func OrchestratorSecrets(u neutral.Upstream) []*tlsv3.Secret {
	var secrets []*tlsv3.Secret
	if u.Address != "" && len(u.CA) > 0 {
		san := tlsv3.SubjectAltNameMatcher_DNS
		if net.ParseIP(serverName(u)) != nil {
			san = tlsv3.SubjectAltNameMatcher_IP_ADDRESS
		}
		secrets = append(secrets, &tlsv3.Secret{Name: SecretOrchestratorCA, Type: &tlsv3.Secret_ValidationContext{
			ValidationContext: &tlsv3.CertificateValidationContext{
				TrustedCa: inlineBytes(u.CA),
				MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{{
					SanType: san, Matcher: exactly(serverName(u)),
				}},
			},
		}})
		if len(u.Cert) > 0 {
			secrets = append(secrets, Certificate(SecretOrchestratorClient, u.Cert, u.Key))
		}
	}
	if u.Token != "" {
		secrets = append(secrets, &tlsv3.Secret{Name: SecretOrchestratorToken, Type: &tlsv3.Secret_GenericSecret{
			GenericSecret: &tlsv3.GenericSecret{Secret: inline(u.Token)},
		}})
	}
	return secrets
}

// byName sorts peers.
func byName(peers []Peer) []Peer {
	sorted := slices.Clone(peers)
	slices.SortFunc(sorted, func(a, b Peer) int {
		switch {
		case a.Name < b.Name:
			return -1
		case a.Name > b.Name:
			return 1
		}
		return 0
	})
	return sorted
}
