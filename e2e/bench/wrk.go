package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/testbed"
)

// wrkConnections are enough to keep two proxies in a row busy.
const wrkConnections = 32

// wrkResult is what wrk says of a run.
type wrkResult struct {
	requests int
	rate     float64 // a second
}

// wrk asks as fast as answers come, within a cluster's namespace, for whole seconds.
func wrk(ctx context.Context, cluster *testbed.Cluster, duration time.Duration, host, address, path string) (wrkResult, error) {
	ctx, cancel := context.WithTimeout(ctx, duration+20*time.Second)
	defer cancel()
	command := exec.CommandContext(ctx, "nsenter", "--net=/run/netns/"+cluster.Namespace, "--",
		"wrk", "-t1", "-c"+strconv.Itoa(wrkConnections), "-d"+strconv.Itoa(int(duration.Seconds()))+"s",
		"-H", "Host: "+host, "http://"+address+path)
	var out, errs bytes.Buffer
	command.Stdout, command.Stderr = &out, &errs
	command.WaitDelay = time.Second
	if err := command.Run(); err != nil {
		return wrkResult{}, fmt.Errorf("wrk: %w: %s", err, strings.TrimSpace(errs.String()))
	}
	return parseWrk(out.String())
}

var (
	wrkRequests = regexp.MustCompile(`(?m)^ *(\d+) requests in `)
	wrkRate     = regexp.MustCompile(`(?m)^Requests/sec: *([0-9.]+)`)
	wrkFailures = regexp.MustCompile(`(?m)^ *(Non-2xx or 3xx responses: .*|Socket errors: .*)$`)
)

// parseWrk reads wrk's report. A run with failures is none: refusals are fast.
func parseWrk(out string) (wrkResult, error) {
	if failures := wrkFailures.FindString(out); failures != "" {
		return wrkResult{}, fmt.Errorf("wrk: %s", strings.TrimSpace(failures))
	}
	requests, rate := wrkRequests.FindStringSubmatch(out), wrkRate.FindStringSubmatch(out)
	if requests == nil || rate == nil {
		return wrkResult{}, fmt.Errorf("wrk: no report in %q", out)
	}
	n, err := strconv.Atoi(requests[1])
	r, rateErr := strconv.ParseFloat(rate[1], 64)
	if err := errors.Join(err, rateErr); err != nil {
		return wrkResult{}, fmt.Errorf("wrk: %w", err)
	}
	if n == 0 {
		return wrkResult{}, errors.New("wrk: no request was answered")
	}
	return wrkResult{requests: n, rate: r}, nil
}
