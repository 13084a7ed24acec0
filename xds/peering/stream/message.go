package stream

import (
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
	peeringv1 "github.com/isthmus-mesh/isthmus/proto/gen/isthmus/peering/v1"
	"github.com/isthmus-mesh/isthmus/xds/peering"
	"github.com/isthmus-mesh/isthmus/xds/peering/session"
)

// Messages as the machine has them, to and from those on the wire. What comes from the wire has passed the protocol's
// own rules, so required parts are there.

func epochToWire(e session.Epoch) *peeringv1.Epoch {
	return &peeringv1.Epoch{Boot: e.Boot, Number: e.Number}
}

func epochFromWire(e *peeringv1.Epoch) session.Epoch {
	return session.Epoch{Boot: e.GetBoot(), Number: e.GetNumber()}
}

func protocolToWire(r peering.ProtocolRange) *peeringv1.ProtocolRange {
	return &peeringv1.ProtocolRange{
		Current: &peeringv1.ProtocolVersion{Major: r.Current.Major, Minor: r.Current.Minor},
		Oldest:  &peeringv1.ProtocolVersion{Major: r.Oldest.Major, Minor: r.Oldest.Minor},
	}
}

func protocolFromWire(r *peeringv1.ProtocolRange) peering.ProtocolRange {
	return peering.ProtocolRange{
		Current: peering.ProtocolVersion{Major: r.GetCurrent().GetMajor(), Minor: r.GetCurrent().GetMinor()},
		Oldest:  peering.ProtocolVersion{Major: r.GetOldest().GetMajor(), Minor: r.GetOldest().GetMinor()},
	}
}

func outcomeToWire(o session.Outcome) peeringv1.Outcome {
	switch o {
	case session.Accepted:
		return peeringv1.Outcome_OUTCOME_ACCEPTED
	case session.Stale:
		return peeringv1.Outcome_OUTCOME_STALE
	}
	return peeringv1.Outcome_OUTCOME_REFUSED
}

// outcomeFromWire takes what a newer minor version may have added for a refusal.
func outcomeFromWire(o peeringv1.Outcome) session.Outcome {
	switch o {
	case peeringv1.Outcome_OUTCOME_ACCEPTED:
		return session.Accepted
	case peeringv1.Outcome_OUTCOME_STALE:
		return session.Stale
	}
	return session.Refused
}

// maxReason is the protocol's own limit.
const maxReason = 512

// reasonToWire keeps a reason within what the protocol allows: printable ASCII, limited.
func reasonToWire(reason string) string {
	reason = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, reason)
	return reason[:min(len(reason), maxReason)]
}

func bundleToWire(b peering.SignedBundle) *peeringv1.TrustBundle {
	if b.Text == "" {
		return nil
	}
	return &peeringv1.TrustBundle{Text: b.Text, Signature: b.Signature, Signers: b.Signers}
}

func bundleFromWire(b *peeringv1.TrustBundle) peering.SignedBundle {
	return peering.SignedBundle{Text: b.GetText(), Signature: b.GetSignature(), Signers: b.GetSigners()}
}

func configurationToWire(c peering.Configuration) *peeringv1.Configuration {
	return &peeringv1.Configuration{
		Revision:    c.Revision,
		Cluster:     c.Identity.Cluster,
		TrustDomain: c.Identity.TrustDomain,
		SpiffeId:    c.Identity.String(),
		Orchestrator: &peeringv1.Orchestrator{
			Type:        string(c.Orchestrator.Type),
			Version:     c.Orchestrator.Version,
			ApiVersions: c.Orchestrator.APIVersions,
		},
		Software:           c.Software,
		Protocol:           protocolToWire(c.Protocol),
		Features:           c.Features,
		CatalogueVersion:   c.CatalogueVersion,
		GatewayAddresses:   c.GatewayAddresses,
		TrustBundle:        bundleToWire(c.Bundle),
		TrustedAuthorities: c.Trusts,
	}
}

// configurationFromWire takes the SPIFFE id for the identity. Where the id, the cluster and the trust domain do not
// agree there is none, so that nothing that holds the identity against the certificate's can pass.
func configurationFromWire(c *peeringv1.Configuration) peering.Configuration {
	identity, err := peering.ParseIdentity(c.GetSpiffeId())
	if err != nil || identity != (peering.Identity{TrustDomain: c.GetTrustDomain(), Cluster: c.GetCluster()}) {
		identity = peering.Identity{}
	}
	return peering.Configuration{
		Revision: c.GetRevision(),
		Identity: identity,
		Orchestrator: peering.Orchestrator{
			Type:        neutral.Orchestrator(c.GetOrchestrator().GetType()),
			Version:     c.GetOrchestrator().GetVersion(),
			APIVersions: c.GetOrchestrator().GetApiVersions(),
		},
		Software:         c.GetSoftware(),
		Protocol:         protocolFromWire(c.GetProtocol()),
		Features:         c.GetFeatures(),
		CatalogueVersion: c.GetCatalogueVersion(),
		GatewayAddresses: c.GetGatewayAddresses(),
		Bundle:           bundleFromWire(c.GetTrustBundle()),
		Trusts:           c.GetTrustedAuthorities(),
	}
}

func helloToWire(m session.Hello) *peeringv1.HelloRequest {
	return &peeringv1.HelloRequest{
		From: epochToWire(m.From), Sequence: m.Sequence, Cluster: m.Cluster, Protocol: protocolToWire(m.Protocol),
	}
}

func helloFromWire(m *peeringv1.HelloRequest) session.Hello {
	return session.Hello{
		From: epochFromWire(m.GetFrom()), Sequence: m.GetSequence(), Cluster: m.GetCluster(),
		Protocol: protocolFromWire(m.GetProtocol()),
	}
}

func helloAnswerToWire(m session.HelloAnswer) *peeringv1.HelloResponse {
	return &peeringv1.HelloResponse{
		Sequence: m.Sequence, Outcome: outcomeToWire(m.Outcome), Reason: reasonToWire(m.Reason),
		From: epochToWire(m.From), Cluster: m.Cluster, Protocol: protocolToWire(m.Protocol),
	}
}

func helloAnswerFromWire(m *peeringv1.HelloResponse) session.HelloAnswer {
	return session.HelloAnswer{
		Sequence: m.GetSequence(), Outcome: outcomeFromWire(m.GetOutcome()), Reason: m.GetReason(),
		From: epochFromWire(m.GetFrom()), Cluster: m.GetCluster(), Protocol: protocolFromWire(m.GetProtocol()),
	}
}

func configureToWire(m session.Configure) *peeringv1.ConfigureRequest {
	return &peeringv1.ConfigureRequest{
		From: epochToWire(m.From), To: epochToWire(m.To), Sequence: m.Sequence,
		Configuration: configurationToWire(m.Configuration),
	}
}

func configureFromWire(m *peeringv1.ConfigureRequest) session.Configure {
	return session.Configure{
		From: epochFromWire(m.GetFrom()), To: epochFromWire(m.GetTo()), Sequence: m.GetSequence(),
		Configuration: configurationFromWire(m.GetConfiguration()),
	}
}

func configureAnswerToWire(m session.ConfigureAnswer) *peeringv1.ConfigureResponse {
	r := &peeringv1.ConfigureResponse{
		Sequence: m.Sequence, Outcome: outcomeToWire(m.Outcome), Reason: reasonToWire(m.Reason),
		From: epochToWire(m.From), To: epochToWire(m.To),
	}
	if m.Outcome == session.Accepted {
		r.Configuration = configurationToWire(m.Configuration)
	}
	return r
}

func configureAnswerFromWire(m *peeringv1.ConfigureResponse) session.ConfigureAnswer {
	a := session.ConfigureAnswer{
		Sequence: m.GetSequence(), Outcome: outcomeFromWire(m.GetOutcome()), Reason: m.GetReason(),
		From: epochFromWire(m.GetFrom()), To: epochFromWire(m.GetTo()),
	}
	if m.GetConfiguration() != nil {
		a.Configuration = configurationFromWire(m.GetConfiguration())
	}
	return a
}

func heartbeatToWire(m session.Heartbeat) *peeringv1.HeartbeatRequest {
	return &peeringv1.HeartbeatRequest{
		From: epochToWire(m.From), To: epochToWire(m.To), Sequence: m.Sequence, Revision: m.Revision, Holds: m.Holds,
	}
}

func heartbeatFromWire(m *peeringv1.HeartbeatRequest) session.Heartbeat {
	return session.Heartbeat{
		From: epochFromWire(m.GetFrom()), To: epochFromWire(m.GetTo()), Sequence: m.GetSequence(),
		Revision: m.GetRevision(), Holds: m.GetHolds(),
	}
}

func heartbeatAnswerToWire(m session.HeartbeatAnswer) *peeringv1.HeartbeatResponse {
	return &peeringv1.HeartbeatResponse{
		Sequence: m.Sequence, Outcome: outcomeToWire(m.Outcome), Revision: m.Revision, Holds: m.Holds,
	}
}

func heartbeatAnswerFromWire(m *peeringv1.HeartbeatResponse) session.HeartbeatAnswer {
	return session.HeartbeatAnswer{
		Sequence: m.GetSequence(), Outcome: outcomeFromWire(m.GetOutcome()), Revision: m.GetRevision(), Holds: m.GetHolds(),
	}
}

func goodbyeToWire(m session.Goodbye) *peeringv1.GoodbyeRequest {
	return &peeringv1.GoodbyeRequest{
		From: epochToWire(m.From), To: epochToWire(m.To), Sequence: m.Sequence, Reason: reasonToWire(m.Reason),
	}
}

func goodbyeFromWire(m *peeringv1.GoodbyeRequest) session.Goodbye {
	return session.Goodbye{
		From: epochFromWire(m.GetFrom()), To: epochFromWire(m.GetTo()), Sequence: m.GetSequence(), Reason: m.GetReason(),
	}
}
