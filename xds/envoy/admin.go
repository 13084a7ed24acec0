package envoy

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/xds/names"
)

// admin is a client of Envoy's admin interface.
type admin struct{ client *http.Client }

func newAdmin(runDir string) *admin {
	socket := filepath.Join(runDir, names.AdminSocket)
	return &admin{client: &http.Client{
		Timeout: 5 * time.Second,
		Transport: &http.Transport{
			DisableKeepAlives: true, // an Envoy that is restarted is another server
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", socket)
			},
		},
	}}
}

// serverInfo is what of /server_info is looked at.
type serverInfo struct {
	State string `json:"state"`
	Node  struct {
		ID string `json:"id"`
	} `json:"node"`
}

func (a *admin) info(ctx context.Context) (serverInfo, error) {
	var info serverInfo
	body, err := a.do(ctx, http.MethodGet, "/server_info")
	if err != nil {
		return info, err
	}
	if err := json.Unmarshal(body, &info); err != nil {
		return info, fmt.Errorf("envoy admin: %w", err)
	}
	return info, nil
}

// drain closes the listeners and tells clients to go; requests under way go on.
func (a *admin) drain(ctx context.Context) error {
	return a.post(ctx, "/drain_listeners?graceful&skip_exit")
}

func (a *admin) post(ctx context.Context, path string) error {
	_, err := a.do(ctx, http.MethodPost, path)
	return err
}

// underWay counts what callers still wait for: requests, and connections that are raw TCP. A connection of HTTP without a
// request is idle, and its client may keep it for as long as Envoy runs.
func (a *admin) underWay(ctx context.Context) (int, error) {
	body, err := a.do(ctx, http.MethodGet, "/stats?filter="+`^(listener|http)\..*\.downstream_(cx|rq)_active$`)
	if err != nil {
		return 0, err
	}
	return countUnderWay(string(body))
}

func countUnderWay(stats string) (int, error) {
	total := 0
	lines := bufio.NewScanner(strings.NewReader(stats))
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		if strings.HasPrefix(name, "listener.admin") || strings.HasPrefix(name, "http.admin") || strings.Contains(name, ".worker_") {
			continue
		}
		n, err := strconv.Atoi(value)
		if err != nil {
			return 0, fmt.Errorf("envoy admin: stat %q", lines.Text())
		}
		if strings.HasPrefix(name, "http.") && strings.HasSuffix(name, "_cx_active") {
			n = -n // its listener counts it too
		}
		total += n
	}
	return total, lines.Err()
}

// Limited are the requests that went over a peer's limit, of requests a second or of those under way.
type Limited struct{ PerSecond, UnderWay uint64 }

// Names of what Envoy counts of them.
const (
	statPerSecond = "peer.http_local_rate_limit.enforced"
	statUnderWay  = "http.peer.adaptive_concurrency.gradient_controller.rq_blocked"
)

// limited asks for those counters. One that no limit has made yet is not there.
func (a *admin) limited(ctx context.Context) (Limited, error) {
	filter := "^(" + strings.ReplaceAll(statPerSecond+"|"+statUnderWay, ".", `\.`) + ")$"
	body, err := a.do(ctx, http.MethodGet, "/stats?filter="+url.QueryEscape(filter))
	if err != nil {
		return Limited{}, err
	}
	return countLimited(string(body))
}

func countLimited(stats string) (l Limited, err error) {
	for line := range strings.Lines(stats) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			return Limited{}, fmt.Errorf("envoy admin: stat %q", line)
		}
		switch name {
		case statPerSecond:
			l.PerSecond = n
		case statUnderWay:
			l.UnderWay = n
		}
	}
	return l, nil
}

func (a *admin) do(ctx context.Context, method, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://envoy"+path, nil)
	if err != nil {
		return nil, fmt.Errorf("envoy admin: %w", err)
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("envoy admin: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 32<<20))
	if err != nil {
		return nil, fmt.Errorf("envoy admin: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("envoy admin: %s %s: status %d", method, path, resp.StatusCode)
	}
	return body, nil
}
