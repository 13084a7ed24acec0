package resource

import (
	"net"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// alpnHTTP2 is all that the peer link speaks, and alpnTunnel what leaves a tunnel.
var (
	alpnHTTP2  = []string{"h2"}
	alpnTunnel = []string{"http/1.1"}
)

// peerLink is the peer link's version of TLS.
func peerLink() *tlsv3.TlsParameters {
	return &tlsv3.TlsParameters{
		TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_3, TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
	}
}

// acceptPeer is the listener's side of the link to a peer. Sessions are not resumed: a resumed one would not be checked
// against the trust in the peer by then.
func acceptPeer(peer Peer) *corev3.TransportSocket { return accept(peer, alpnHTTP2) }

// acceptTunnel is that side of a connection by which a peer leaves a tunnel.
func acceptTunnel(peer Peer) *corev3.TransportSocket { return accept(peer, alpnTunnel) }

func accept(peer Peer, protocols []string) *corev3.TransportSocket {
	return transportSocket(&tlsv3.DownstreamTlsContext{
		RequireClientCertificate: yes(),
		CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsParams: peerLink(), AlpnProtocols: protocols,
			TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{sds(SecretIdentity)},
			ValidationContextType: &tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig{
				ValidationContextSdsSecretConfig: sds(PeerSecret(peer.Name)),
			},
		},
		SessionTicketKeysType:            &tlsv3.DownstreamTlsContext_DisableStatelessSessionResumption{DisableStatelessSessionResumption: true},
		DisableStatefulSessionResumption: true,
	})
}

// fromClients is TLS of a peer's API for plain clients. A certificate is asked for, and who has none may have another
// credential. Sessions are not resumed: a resumed one would not be checked against the authorities known by then.
func fromClients(g Gateway, peer Peer) *corev3.TransportSocket {
	tls := &tlsv3.DownstreamTlsContext{
		CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsParams: &tlsv3.TlsParameters{
				TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2, TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
			},
			AlpnProtocols:                  []string{"h2", "http/1.1"},
			TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{sds(APISecret(peer.Name))},
		},
		SessionTicketKeysType:            &tlsv3.DownstreamTlsContext_DisableStatelessSessionResumption{DisableStatelessSessionResumption: true},
		DisableStatefulSessionResumption: true,
	}
	if g.Callers.Authorities != "" {
		tls.RequireClientCertificate = no()
		tls.CommonTlsContext.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig{
			ValidationContextSdsSecretConfig: sds(SecretCallers),
		}
	}
	return transportSocket(tls)
}

// toPeer is the dialling side of the peer link.
func toPeer(g Gateway, peer Peer) *corev3.TransportSocket {
	return dial(peer, names.LinkHost(g.Cluster, peer.TrustDomain), alpnHTTP2)
}

// toPeerTunnel is that side of a connection by which this gateway leaves a tunnel.
func toPeerTunnel(g Gateway, peer Peer) *corev3.TransportSocket {
	return dial(peer, names.TunnelHost(g.Cluster, peer.TrustDomain), alpnTunnel)
}

func dial(peer Peer, host string, protocols []string) *corev3.TransportSocket {
	return transportSocket(&tlsv3.UpstreamTlsContext{
		Sni:            host,
		MaxSessionKeys: u32(0),
		CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsParams: peerLink(), AlpnProtocols: protocols,
			TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{sds(SecretIdentity)},
			ValidationContextType: &tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig{
				ValidationContextSdsSecretConfig: sds(PeerSecret(peer.Name)),
			},
		},
	})
}

// toOrchestrator is TLS to the orchestrator's API; nil where it is plaintext.
func toOrchestrator(u neutral.Upstream) *corev3.TransportSocket {
	if u.Address == "" || len(u.CA) == 0 {
		return nil
	}
	common := &tlsv3.CommonTlsContext{
		TlsParams:     &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2, TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3},
		AlpnProtocols: []string{"http/1.1"},
		ValidationContextType: &tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig{
			ValidationContextSdsSecretConfig: sds(SecretOrchestratorCA),
		},
	}
	if len(u.Cert) > 0 {
		common.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{sds(SecretOrchestratorClient)}
	}
	tls := &tlsv3.UpstreamTlsContext{CommonTlsContext: common}
	if name := serverName(u); net.ParseIP(name) == nil {
		tls.Sni = name
	}
	return transportSocket(tls)
}

// serverName is the name that the orchestrator's certificate must carry.
func serverName(u neutral.Upstream) string {
	if u.ServerName != "" {
		return u.ServerName
	}
	host, _ := split(u.Address)
	return host
}

func transportSocket(m proto.Message) *corev3.TransportSocket {
	return &corev3.TransportSocket{
		Name: "envoy.transport_sockets.tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: pack(m)},
	}
}

func sds(name string) *tlsv3.SdsSecretConfig {
	return &tlsv3.SdsSecretConfig{Name: name, SdsConfig: ads()}
}
