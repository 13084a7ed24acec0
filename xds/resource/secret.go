package resource

import (
	"net"
	"slices"
	"strings"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Names of secrets.
const (
	SecretIdentity           = "identity"
	SecretCallers            = "trust/callers" // whose certificates name callers of this cluster
	SecretOrchestratorCA     = "orchestrator/ca"
	SecretOrchestratorClient = "orchestrator/client"
	SecretOrchestratorToken  = "orchestrator/token"
)

// PeerSecret is the name of the trust in one peer.
func PeerSecret(peer string) string { return "trust/peer/" + peer }

// APISecret is the name of what the listener of a peer's API shows.
func APISecret(peer string) string { return "api/" + peer }

// CallerTrust is the secret of the authorities of callers' certificates.
func CallerTrust(authorities string) *tlsv3.Secret {
	return &tlsv3.Secret{Name: SecretCallers, Type: &tlsv3.Secret_ValidationContext{
		ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: inline(authorities)},
	}}
}

// Certificate is the secret of a certificate and its key.
func Certificate(name string, certificate, key []byte) *tlsv3.Secret {
	return &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
		CertificateChain: inlineBytes(certificate), PrivateKey: inlineBytes(key),
	}}}
}

// Trust is the secret of the trust in one peer, in either direction: a certificate must be of its trust domain's own CA
// and carry exactly its SPIFFE id.
func Trust(peer Peer) *tlsv3.Secret {
	return &tlsv3.Secret{Name: PeerSecret(peer.Name), Type: &tlsv3.Secret_ValidationContext{
		ValidationContext: &tlsv3.CertificateValidationContext{
			MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{{
				SanType: tlsv3.SubjectAltNameMatcher_URI, Matcher: exactly(peer.ID),
			}},
			CustomValidatorConfig: extension("envoy.tls.cert_validator.spiffe", &tlsv3.SPIFFECertValidatorConfig{
				TrustDomains: []*tlsv3.SPIFFECertValidatorConfig_TrustDomain{{
					Name: peer.TrustDomain, TrustBundle: inlineBytes(peer.Bundle),
				}},
			}),
		},
	}}
}

// trustDomain is the trust domain of a SPIFFE id.
func trustDomain(id string) string {
	domain, _, _ := strings.Cut(strings.TrimPrefix(id, "spiffe://"), "/")
	return domain
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
