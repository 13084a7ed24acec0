package join

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/isthmus-mesh/isthmus/xds/names"
	"github.com/isthmus-mesh/isthmus/xds/peering/trust"
)

// joinTimeout bounds the whole exchange.
const joinTimeout = 20 * time.Second

// Redeem uses a token: it makes sure that the gateway at the token's address is the one that made it, and only then
// shows the secret, and what it is to know of this gateway. It returns that gateway's bundle.
func Redeem(ctx context.Context, t Token, self Joiner) (trust.Bundle, error) {
	if !time.Now().Before(t.Expires) {
		return trust.Bundle{}, refuse(Expired, "the token expired at %s; ask for another", t.Expires.Format(time.RFC3339))
	}
	text, err := self.Bundle.MarshalText()
	if err != nil {
		return trust.Bundle{}, err
	}
	body, err := json.Marshal(request{Invitation: t.Invitation, Secret: t.Secret, Bundle: string(text),
		Addresses: self.Addresses, BehindNAT: self.BehindNAT})
	if err != nil {
		return trust.Bundle{}, fmt.Errorf("join: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	host := names.JoinHost(t.Identity.Cluster, t.Suffix)
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+t.Address+names.JoinPath, bytes.NewReader(body))
	if err != nil {
		return trust.Bundle{}, fmt.Errorf("join: %w", err)
	}
	q.Host = host
	q.Header.Set("Content-Type", "application/json")
	transport := &http.Transport{TLSClientConfig: pinned(t, host), DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	a, err := (&http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}).Do(q)
	if err != nil {
		return trust.Bundle{}, fmt.Errorf("join: the gateway at %s: %w", t.Address, errors.Unwrap(err)) // the URL says no more
	}
	defer a.Body.Close()
	data, err := io.ReadAll(io.LimitReader(a.Body, maxMessage))
	if err != nil {
		return trust.Bundle{}, fmt.Errorf("join: the gateway at %s: %w", t.Address, err)
	}
	var answer response
	if err := json.Unmarshal(data, &answer); err != nil {
		return trust.Bundle{}, fmt.Errorf("join: the gateway at %s gave no answer that makes sense (status %d)", t.Address, a.StatusCode)
	}
	if a.StatusCode != http.StatusOK {
		if answer.Reason == "" {
			return trust.Bundle{}, fmt.Errorf("join: the gateway at %s: status %d: %.300s", t.Address, a.StatusCode, answer.Message)
		}
		return trust.Bundle{}, refuse(answer.Reason, "%.300s", answer.Message)
	}
	bundle, err := trust.ParseBundle([]byte(answer.Bundle))
	if err != nil {
		return trust.Bundle{}, fmt.Errorf("join: the gateway at %s: %w", t.Address, err)
	}
	if bundle.Identity != t.Identity || !slices.Contains(bundle.Fingerprints(), t.Fingerprint) {
		return trust.Bundle{}, fmt.Errorf("join: the gateway at %s sent a bundle that is not the token's", t.Address)
	}
	return bundle, nil
}

// pinned trusts one certificate authority: the one whose fingerprint is in the token. The gateway sends it along.
func pinned(t Token, host string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: host, NextProtos: []string{"http/1.1"},
		InsecureSkipVerify: true, // names and authorities of the web mean nothing here; VerifyConnection checks
		VerifyConnection: func(c tls.ConnectionState) error {
			roots, between := x509.NewCertPool(), x509.NewCertPool()
			found := false
			for _, certificate := range c.PeerCertificates[1:] {
				if sum := sha256.Sum256(certificate.Raw); hex.EncodeToString(sum[:]) == t.Fingerprint {
					roots.AddCert(certificate)
					found = true
				} else {
					between.AddCert(certificate)
				}
			}
			if !found {
				return errors.New("it is not the one that made the token: its certificate authority has another fingerprint " +
					"(or was rotated since; then ask for another token)")
			}
			leaf := c.PeerCertificates[0]
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
				return fmt.Errorf("its certificate is not of the token's authority: %w", err)
			}
			if len(leaf.URIs) != 1 || leaf.URIs[0].String() != t.Identity.String() {
				return fmt.Errorf("its certificate is not of %s", t.Identity)
			}
			return nil
		},
	}
}
