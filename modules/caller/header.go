package caller

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"net/url"
	"strings"
)

// Bearer is the token of a header Authorization; "" where it has another credential, or none.
func Bearer(header string) string {
	scheme, token, ok := strings.Cut(header, " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// Proxy are the credentials of a header Proxy-Authorization: a bearer token, or a name with its token as the password,
// which is all that most clients of proxies can send.
func Proxy(header string) Credentials {
	if token := Bearer(header); token != "" {
		return Credentials{Token: token}
	}
	scheme, encoded, ok := strings.Cut(header, " ")
	if !ok || !strings.EqualFold(scheme, "Basic") {
		return Credentials{}
	}
	decoded, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
	if err != nil {
		return Credentials{}
	}
	name, token, _ := strings.Cut(string(decoded), ":")
	return Credentials{User: name, Token: token}
}

// bearerProtocol begins the protocol of a WebSocket in which pages, which cannot set headers, send a token.
// See https://kubernetes.io/docs/reference/access-authn-authz/authentication/
const bearerProtocol = "base64url.bearer.authorization.k8s.io."

// WebSocket is the token among the protocols of a WebSocket, and the protocols without it.
func WebSocket(protocols string) (token, rest string) {
	var kept []string
	for protocol := range strings.SplitSeq(protocols, ",") {
		protocol = strings.TrimSpace(protocol)
		encoded, ok := strings.CutPrefix(protocol, bearerProtocol)
		if !ok {
			kept = append(kept, protocol)
			continue
		}
		if decoded, err := base64.RawURLEncoding.DecodeString(encoded); err == nil {
			token = string(decoded)
		}
	}
	return token, strings.Join(kept, ", ")
}

// maxChain bounds the certificates of a client.
const maxChain = 8

// Forwarded are a client's certificates as Envoy forwards them, its own first; none where the header has none.
// See https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers#x-forwarded-client-cert
func Forwarded(header string) ([]*x509.Certificate, error) {
	if header == "" {
		return nil, nil
	}
	_, rest, ok := strings.Cut(header, `Chain="`)
	if !ok {
		return nil, errors.New("the client's certificates were not forwarded")
	}
	encoded, _, ok := strings.Cut(rest, `"`)
	if !ok {
		return nil, errors.New("the client's certificates were cut")
	}
	text, err := url.PathUnescape(encoded)
	if err != nil {
		return nil, err
	}
	var chain []*x509.Certificate
	for data := []byte(text); ; {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if len(chain) == maxChain {
			return nil, errors.New("the client has too many certificates")
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		chain = append(chain, certificate)
	}
	if len(chain) == 0 {
		return nil, errors.New("the client's certificates are not PEM")
	}
	return chain, nil
}
