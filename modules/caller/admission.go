package caller

import (
	"context"
	"net/http"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// Admission lets callers of this cluster in to peers, at the edges that Envoy serves, and names them to the peer. What
// they showed stays here.
type Admission struct {
	Callers func() *Authenticator
	// Native renders a refusal for clients of an orchestrator's API, who are of this cluster's type.
	Native func(*modules.Request, error) modules.Answer
	// Settle waits while a handshake with a peer has just begun; nil waits for nothing.
	Settle func(ctx context.Context, peer string)
}

var _ modules.Module = Admission{}

// Class is every class: the edge tells.
func (Admission) Class() modules.Class { return modules.Unknown }

// Headers of requests that can hold a credential.
const (
	headerAuthorization      = "authorization"
	headerProxyAuthorization = "proxy-authorization"
	headerWebSocketProtocol  = "sec-websocket-protocol"
)

// Decide names the caller. The verdict is about who asks; what may be asked is the peer's to decide.
func (a Admission) Decide(ctx context.Context, req *modules.Request) (modules.Verdict, error) {
	if req.To == "" || req.Class == modules.Unknown {
		return modules.Verdict{}, fault.New(fault.NotFound, "no peer has this name")
	}
	route := &modules.Route{
		Upstream: names.PeerCluster(req.To), Set: http.Header{},
		Remove: []string{headerProxyAuthorization, names.HeaderCertificate, names.HeaderCaller, names.HeaderGroups},
	}
	verdict := modules.Verdict{Route: route, Record: modules.Record{Upstream: route.Upstream}}
	credentials, err := shown(req, route)
	if err != nil {
		return verdict, err
	}
	// From here on the request is that caller's, also in the logs.
	who, err := a.Callers().Admit(ctx, req.Class, credentials)
	if err != nil {
		return verdict, err
	}
	req.Caller, req.Groups = who.Name, who.Groups
	if a.Settle != nil && req.Class == modules.ContainerOperation {
		a.Settle(ctx, req.To)
	}
	who.Tell(route.Set)
	return verdict, nil
}

// shown are the credentials of a request, which the route removes. A service has credentials of its own, so for the
// gateway there are those of a proxy.
func shown(req *modules.Request, route *modules.Route) (Credentials, error) {
	if req.Class != modules.ContainerOperation {
		return Proxy(req.Header.Get(headerProxyAuthorization)), nil
	}
	route.Remove = append(route.Remove, headerAuthorization)
	certificates, err := Forwarded(req.Header.Get(names.HeaderCertificate))
	if err != nil {
		return Credentials{}, fault.Wrap(fault.Unauthenticated, err, "the client certificate cannot be read")
	}
	c := Credentials{Token: Bearer(req.Header.Get(headerAuthorization)), Certificates: certificates}
	if protocols := req.Header.Get(headerWebSocketProtocol); protocols != "" {
		token, rest := WebSocket(protocols)
		if token != "" {
			if c.Token == "" {
				c.Token = token
			}
			route.Set.Set(headerWebSocketProtocol, rest)
		}
	}
	return c, nil
}

// Refuse speaks as this cluster's orchestrator to clients of its API, and as a proxy to all others.
func (a Admission) Refuse(req *modules.Request, err error) modules.Answer {
	if req.Class == modules.ContainerOperation {
		answer := a.Native(req, err)
		if answer.Status == http.StatusUnauthorized {
			answer.Header.Set("WWW-Authenticate", `Bearer realm="isthmus"`)
		}
		return answer
	}
	if !fault.Is(err, fault.Unauthenticated) {
		return modules.Refusal(err)
	}
	answer := modules.RefusalAs(http.StatusProxyAuthRequired, err)
	answer.Header.Set("Proxy-Authenticate", `Basic realm="isthmus"`)
	return answer
}
