package hijack

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

const dialDeadline = 10 * time.Second

// Dial connects to an orchestrator's API as its Upstream says: a Unix socket, TCP, or TLS where a CA is given.
func Dial(ctx context.Context, upstream neutral.Upstream) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialDeadline)
	defer cancel()
	var dialer net.Dialer
	if upstream.Socket != "" {
		return dialer.DialContext(ctx, "unix", upstream.Socket)
	}
	if len(upstream.CA) == 0 {
		return dialer.DialContext(ctx, "tcp", upstream.Address)
	}
	config, err := tlsConfig(upstream)
	if err != nil {
		return nil, err
	}
	return (&tls.Dialer{NetDialer: &dialer, Config: config}).DialContext(ctx, "tcp", upstream.Address)
}

func tlsConfig(upstream neutral.Upstream) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: upstream.ServerName, RootCAs: x509.NewCertPool()}
	if !config.RootCAs.AppendCertsFromPEM(upstream.CA) {
		return nil, errors.New("the orchestrator's CA holds no certificate")
	}
	if len(upstream.Cert) > 0 {
		pair, err := tls.X509KeyPair(upstream.Cert, upstream.Key)
		if err != nil {
			return nil, fmt.Errorf("the orchestrator's client certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
