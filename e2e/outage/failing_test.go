package outage

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/testbed"
)

// TestFailingSwitches asks for switches that cannot succeed. Whoever asks is told why, and the target is afterwards what it
// was. The page has what was told, and how soon the target was back, which is not held.
func TestFailingSwitches(t *testing.T) {
	rows := everywhere(t, delicateTargets, (*site).failing)
	if t.Failed() {
		return
	}
	var b strings.Builder
	b.WriteString("| target | what is wrong | the caller is told | back after, away |\n|---|---|---|---|\n")
	for _, r := range rows {
		took := "not touched"
		if !r.untouched {
			took = fmt.Sprintf("%.1f, %.1f", r.back.Seconds(), r.away.Seconds())
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r.target.kind, r.failure.what, r.told, took)
	}
	hold(t, "failures", b.String(), 3)
}

// failureRow is what came of a failure.
type failureRow struct {
	target target
	failure
	told       string
	back, away time.Duration
}

// failure is a reason for which a switch does not succeed.
type failure struct {
	what      string
	untouched bool // nothing is asked of the orchestrator
	harmless  bool // the switch succeeds
	arrange   func(ctx context.Context, t *testing.T, s *site, target target)
	change    func(ctx context.Context, t *testing.T, s *site, target target) // what happens before the first change
	end       func(ctx context.Context, s *site, target target) error
}

// delicateImage is what a target's own image is called.
func delicateImage(name string) string { return "isthmus.local/" + name + ":1" }

// delicately runs a database that on its host's network ends, or is unwell, where a file beside its own says so.
func delicately(name string, port int) program {
	const hosted = "! [ -e /sys/class/net/eth0 ]"
	return program{image: delicateImage(name),
		entrypoint: []string{"sh", "-c", fmt.Sprintf("if [ -e $PGDATA/homebound ] && %s; then exit 3; fi; exec /usr/local/bin/entrypoint -p %d", hosted, port)},
		health:     fmt.Sprintf("pg_isready -p %d && ! { [ -e $PGDATA/unwell ] && %s; }", port, hosted)}
}

func delicateTargets(cluster string) []target {
	var targets []target
	if cluster == "west" {
		targets = []target{dockerContainer("frail", "bridge", "host", "--discard", 26021, delicately("frail", 26021)), swarmService("weak", 26022, delicately("weak", 26022))}
	} else {
		targets = []target{kubernetesObject("Deployment", "feeble", 26031, "--discard", delicately("feeble", 26031)),
			kubernetesObject("Pod", "faint", 26032, "--discard", delicately("faint", 26032))}
	}
	for i, t := range targets {
		targets[i].make = func(ctx context.Context, s *site) error {
			if err := s.tag(ctx, t.name); err != nil {
				return err
			}
			return t.make(ctx, s)
		}
	}
	return targets
}

// tag gives a target's image its name, and untag takes it away.
func (s *site) tag(ctx context.Context, name string) error {
	if s.bed.Docker(s.name) != nil {
		_, err := s.docker(ctx, "tag", testbed.PostgresImage, delicateImage(name))
		return err
	}
	_, err := s.bed.Kubernetes(s.name).Ctr(ctx, "images", "tag", "--force", testbed.PostgresImage, delicateImage(name))
	return err
}

func (s *site) untag(ctx context.Context, name string) error {
	if s.bed.Docker(s.name) != nil {
		_, err := s.docker(ctx, "rmi", "--force", delicateImage(name))
		return err
	}
	_, err := s.bed.Kubernetes(s.name).Ctr(ctx, "images", "rm", delicateImage(name))
	return err
}

// listen takes a port of a site's host until the end of the test.
func listen(ctx context.Context, t *testing.T, s *site, target target) {
	listener, err := s.cluster.ListenIn(ctx, "tcp", ":"+strconv.Itoa(target.port))
	if err != nil {
		t.Error(err)
		return
	}
	t.Cleanup(func() { _ = listener.Close() })
}

// mark leaves a file beside the database's own.
func mark(name string) func(context.Context, *testing.T, *site, target) {
	return func(ctx context.Context, t *testing.T, s *site, target target) {
		if _, err := target.query(ctx, s, "COPY (SELECT) TO PROGRAM 'cat > "+name+"'"); err != nil {
			t.Fatal(err)
		}
	}
}

func unmark(ctx context.Context, s *site, target target) error {
	_, err := target.query(ctx, s, "COPY (SELECT) TO PROGRAM 'cat > /dev/null; rm -f homebound unwell'")
	return err
}

func untagged(ctx context.Context, t *testing.T, s *site, target target) {
	if err := s.untag(ctx, target.name); err != nil {
		t.Fatal(err)
	}
}

func tagged(ctx context.Context, s *site, target target) error { return s.tag(ctx, target.name) }

// failuresOf begin with those that touch nothing.
func failuresOf(target target) []failure {
	ends := failure{what: "it ends at once on its host's network", arrange: mark("homebound"), end: unmark}
	unwell := failure{what: "it is unhealthy there", arrange: mark("unwell"), end: unmark}
	listened := failure{what: "something listens on its port of the host", untouched: true, arrange: listen}
	meanwhile := failure{what: "something takes the port after the last look at it", change: listen}
	switch target.kind {
	case "container":
		return []failure{listened, {what: "its image has no name any more", harmless: true, arrange: untagged, end: tagged}, meanwhile, ends, unwell}
	case "service":
		return []failure{listened, {what: "its image is gone", untouched: true, arrange: untagged, end: tagged}, meanwhile, ends, unwell}
	}
	all := []failure{
		{what: "another Pod has its port of the host", untouched: true, arrange: occupy, end: vacate},
		{what: "something that is no Pod listens on the port", arrange: listen},
		{what: "its image is gone, and comes again while the old Pod is on its way back", arrange: losing},
	}
	if target.kind == "Pod" {
		return all
	}
	return append(all, ends)
}

func occupant(target target) string { return "occupant-of-" + target.name }

// occupy has another Pod take a port.
func occupy(ctx context.Context, t *testing.T, s *site, target target) {
	err := s.bed.Kubernetes(s.name).Apply(ctx, fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: sleep, image: "isthmus.local/busybox:1", imagePullPolicy: Never, command: [sleep, "600"], ports: [{containerPort: %d, hostPort: %[2]d}]}]
`, occupant(target), target.port))
	if err == nil {
		_, err = s.kubectl(ctx, "wait", "--for=condition=Ready", "pod/"+occupant(target), "--timeout=60s")
	}
	if err != nil {
		t.Fatal(err)
	}
}

func vacate(ctx context.Context, s *site, target target) error {
	_, err := s.kubectl(ctx, "delete", "pod", occupant(target), "--now")
	return err
}

// losing takes the image of a target from its node until its old Pod is to come back.
func losing(ctx context.Context, t *testing.T, s *site, target target) {
	untagged(ctx, t, s, target)
	back := make(chan error, 1)
	go func() {
		for {
			leases, err := s.leasesOf(ctx, target)
			if err == nil && slices.ContainsFunc(leases, func(l lease) bool { return l.Phase == "restoring" }) {
				back <- s.tag(ctx, target.name)
				return
			}
			select {
			case <-ctx.Done():
				back <- ctx.Err()
				return
			case <-time.After(glance):
			}
		}
	}()
	t.Cleanup(func() {
		if err := <-back; err != nil {
			t.Error(err)
		}
	})
}

// failing has each failure of a target happen.
func (s *site) failing(t *testing.T, target target) []failureRow {
	ready, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s.ready(ready, t, target)
	if _, err := target.query(ready, s, "INSERT INTO written VALUES (0)"); err != nil {
		t.Fatal(err)
	}
	defer s.calls.Each(nil)
	beside := false // the targets of a cluster fail beside each other where nobody has to see who changes what
	var rows []failureRow
	for _, f := range failuresOf(target) {
		if !f.untouched && s.bed.Kubernetes(s.name) != nil && !beside {
			s.calls.Each(nil)
			t.Parallel()
			beside = true
		}
		t.Run(strings.ReplaceAll(f.what, " ", "-"), func(t *testing.T) { rows = append(rows, s.fails(t, target, f, beside)) })
	}
	return rows
}

func (s *site) fails(t *testing.T, target target, f failure, beside bool) failureRow {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	t.Cleanup(cancel)
	before := s.ready(ctx, t, target)
	r := failureRow{target: target, failure: f}
	if f.arrange != nil {
		f.arrange(ctx, t, s, target)
	}
	w := &witness{site: s}
	if f.change != nil {
		w.at, w.strike = 1, func() bool {
			f.change(ctx, t, s, target)
			return true
		}
	}
	if !beside {
		s.calls.Each(w.judge)
	}
	away := watch(ctx, blink, (&presence{port: target.port}).answers)
	asked := time.Now()
	if f.harmless {
		until(ctx, t, "a row is written", func() error { return target.write(ctx, s, strconv.FormatInt(time.Now().Unix(), 10)) })
		r.told = "nothing: its row is written"
	} else {
		until(ctx, t, "it was at rest", func() error {
			asked = time.Now()
			said, err := s.refusal(ctx, target)
			if err == nil && strings.Contains(said, "is not at rest") {
				err = fmt.Errorf("%s", said)
			}
			r.told = repeated(said, target)
			return err
		})
	}
	s.settled(ctx, t, target, before)
	r.back, r.away = time.Since(asked), away()
	t.Logf("told %q; back after %s, away %s", r.told, r.back.Round(glance), r.away.Round(glance))
	w.mu.Lock()
	seen := w.seen
	w.mu.Unlock()
	if f.untouched && len(seen) > 0 {
		t.Errorf("it was touched: %q", seen)
	}
	if f.end != nil {
		if err := f.end(ctx, s, target); err != nil {
			t.Fatal(err)
		}
	}
	if said, err := target.query(ctx, s, "SELECT id FROM written WHERE id = 0"); err != nil || strings.TrimSpace(said) != "0" {
		t.Errorf("its row is gone: %q, %v", said, err)
	}
	return r
}

// refusal is what a caller of the other cluster is told who asks for a target in its new mode by HTTP.
func (s *site) refusal(ctx context.Context, target target) (string, error) {
	place, err := target.place(ctx, s)
	if err != nil {
		return "", err
	}
	namespace, name, _ := strings.Cut(place, "/")
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.caller.Edge+"/", nil)
	if err != nil {
		return "", err
	}
	request.Host = fmt.Sprintf("%s.%s.ctr.%s.isthmus.internal:%d", name, namespace, s.name, target.port)
	request.Header.Set("X-Isthmus-Network-Mode", target.to)
	request.Header.Set("X-Isthmus-Layer", strings.TrimPrefix(target.flag, "--"))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	var said struct{ Message string }
	if err := json.Unmarshal(body, &said); err != nil || response.StatusCode < http.StatusBadRequest {
		return "", fmt.Errorf("it was told no reason: %s: %s", response.Status, body)
	}
	return fmt.Sprintf("%d: %s", response.StatusCode, cmp.Or(said.Message, string(body))), nil
}

// took is a time in what a caller is told.
var took = regexp.MustCompile(`after [0-9.]+[0-9a-zµ.]*s\b`)

// repeated is a text without what is another in each run.
func repeated(text string, target target) string {
	replica := regexp.MustCompile(regexp.QuoteMeta(target.name) + `-[a-z0-9]{6,10}-[a-z0-9]{5}\b`)
	return took.ReplaceAllString(replica.ReplaceAllString(plain(text), target.name+"-~"), "after ~")
}
