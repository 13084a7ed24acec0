package docker

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

const (
	defaultEndpoint = "unix:///var/run/docker.sock"
	apiHost         = "docker" // any authority will do for an engine; this one tells a reader what it is
	dialTimeout     = 5 * time.Second
)

// upstreamFrom reads an endpoint as DOCKER_HOST has it. An engine's API is root on its host: plain TCP is for loopback
// and private links, and named in the log.
func upstreamFrom(endpoint string) (neutral.Upstream, error) {
	if endpoint == "" {
		endpoint = defaultEndpoint
	}
	parsed, err := url.Parse(endpoint)
	if err != nil {
		return neutral.Upstream{}, fault.New(fault.Invalid, "the Docker endpoint is no URL")
	}
	if parsed.User != nil || parsed.RawQuery != "" || parsed.Fragment != "" {
		return neutral.Upstream{}, fault.New(fault.Invalid, "the Docker endpoint carries more than an address")
	}
	switch parsed.Scheme {
	case "unix":
		if parsed.Host != "" || !strings.HasPrefix(parsed.Path, "/") || parsed.Path == "/" {
			return neutral.Upstream{}, fault.New(fault.Invalid, "the Docker endpoint needs an absolute path: unix:///path")
		}
		return neutral.Upstream{Socket: parsed.Path, Host: apiHost}, nil
	case "tcp":
		host, port, err := net.SplitHostPort(parsed.Host)
		if err != nil || host == "" || port == "" || strings.Trim(parsed.Path, "/") != "" {
			return neutral.Upstream{}, fault.New(fault.Invalid, "the Docker endpoint needs a host and a port: tcp://host:port")
		}
		return neutral.Upstream{Address: parsed.Host, Host: apiHost}, nil
	}
	return neutral.Upstream{}, fault.New(fault.Invalid, "the Docker endpoint's scheme is %q; unix and tcp are known", parsed.Scheme)
}

// dockerHost is an upstream as DOCKER_HOST has it.
func dockerHost(upstream neutral.Upstream) string {
	if upstream.Socket != "" {
		return "unix://" + upstream.Socket
	}
	return "tcp://" + upstream.Address
}

// transportTo reaches an engine whatever host a request's URL names.
func transportTo(upstream neutral.Upstream) *http.Transport {
	dialer := &net.Dialer{Timeout: dialTimeout}
	network, address := "tcp", upstream.Address
	if upstream.Socket != "" {
		network, address = "unix", upstream.Socket
	}
	return &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, address)
		},
		DisableCompression:  true,
		MaxIdleConns:        16,
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     30 * time.Second,
	}
}
