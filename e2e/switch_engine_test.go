package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/demo"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/docker"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// switched is a real engine on which network modes are changed.
type switched struct {
	t        *testing.T
	endpoint string
	netns    string
	docker   func(ctx context.Context, arguments ...string) (string, error)
}

func switchedOn(t *testing.T, cluster string) *switched {
	t.Helper()
	engine := running.Bed.Docker(cluster)
	return &switched{t: t, endpoint: engine.Host(), netns: running.Bed.Cluster(cluster).Namespace, docker: engine.Run}
}

// in is the same engine for another test.
func (e *switched) in(t *testing.T) *switched {
	other := *e
	other.t = t
	return &other
}

func (e *switched) run(arguments ...string) string {
	e.t.Helper()
	out, err := e.docker(e.t.Context(), arguments...)
	if err != nil {
		e.t.Fatalf("docker %s: %v: %s", strings.Join(arguments, " "), err, out)
	}
	return strings.TrimSpace(out)
}

// end removes containers and volumes when the test ends.
func (e *switched) end(names ...string) {
	e.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		for _, name := range names {
			_, _ = e.docker(ctx, "rm", "-fv", name)
		}
	})
}

// make runs a container that serves its volume /www at port 8080 and ends at once when it is told to.
func (e *switched) make(name string, options ...string) string {
	e.t.Helper()
	e.end(name)
	arguments := append([]string{"run", "-d", "--name", name, "--stop-timeout", "2", "--init", "-v", "/www"}, options...)
	return e.run(append(arguments, demo.Image, "httpd", "-f", "-p", "8080", "-h", "/www")...)
}

// switcher is the dialect as a gateway that was just started has it.
func (e *switched) switcher() dialect.Switcher {
	e.t.Helper()
	connected, err := docker.Dialect{}.Connect(e.t.Context(), dialect.Config{Cluster: "bed", Endpoint: e.endpoint})
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() {
		if err := connected.Close(); err != nil {
			e.t.Error(err)
		}
	})
	return connected.(dialect.Switcher)
}

func (e *switched) plan(name string, need neutral.NetworkNeed) neutral.SwitchPlan {
	e.t.Helper()
	plan, err := e.switcher().PlanSwitch(e.t.Context(), "west", neutral.TargetRef{Container: name, Port: 8080}, need)
	if err != nil {
		e.t.Fatal(err)
	}
	return plan
}

// errCut is a gateway's end.
var errCut = errors.New("the gateway ended")

// journal is what a gateway writes. It breaks before the step of number cut; 0 is never.
type journal struct {
	neutral.Switching
	steps  []string
	cut    int
	halted time.Time // when what runs was last stopped
}

func (e *switched) journal(lease, name string, need neutral.NetworkNeed, plan neutral.SwitchPlan) *journal {
	j := &journal{Switching: neutral.Switching{ID: lease, Peer: "west", Ref: neutral.TargetRef{Container: name, Port: 8080}, Need: need, Plan: plan}}
	j.Step = func(_ context.Context, step string, native json.RawMessage) error {
		if len(j.steps)+1 == j.cut {
			return errCut
		}
		j.steps = append(j.steps, step)
		if strings.HasPrefix(step, "the stop of") {
			j.halted = time.Now()
		}
		if native != nil {
			j.Plan.Native = native
		}
		return nil
	}
	return j
}

// planned is a journal for a switch that nothing stands against.
func (e *switched) planned(lease, name string, need neutral.NetworkNeed) *journal {
	e.t.Helper()
	plan := e.plan(name, need)
	if len(plan.Refusals) > 0 {
		e.t.Fatalf("refused: %q", plan.Refusals)
	}
	return e.journal(lease, name, need, plan)
}

func (e *switched) switches(j *journal) {
	e.t.Helper()
	began := time.Now()
	ref, err := e.switcher().Switch(e.t.Context(), &j.Switching)
	if err != nil {
		e.t.Fatalf("after %q: %v", j.steps, err)
	}
	if ref.Container != j.Ref.Container {
		e.t.Errorf("it is %s afterwards", ref.Container)
	}
	e.t.Logf("switched in %s: %s", time.Since(began).Round(10*time.Millisecond), strings.Join(j.steps, "; "))
}

func (e *switched) restores(j *journal) {
	e.t.Helper()
	j.steps, j.cut = nil, 0
	began := time.Now()
	if err := e.switcher().Restore(e.t.Context(), &j.Switching); err != nil {
		e.t.Fatalf("after %q: %v", j.steps, err)
	}
	e.t.Logf("restored in %s: %s", time.Since(began).Round(10*time.Millisecond), strings.Join(j.steps, "; "))
}

// away is how long a container did not run, from before it was stopped.
func (e *switched) away(j *journal, name string) time.Duration {
	e.t.Helper()
	started, err := time.Parse(time.RFC3339Nano, e.run("inspect", "-f", "{{.State.StartedAt}}", name))
	if err != nil {
		e.t.Fatal(err)
	}
	return started.Sub(j.halted).Round(time.Millisecond)
}

// serves asks the container for its page, from where the gateway of this engine is.
func (e *switched) serves(name, page string) {
	e.t.Helper()
	located, err := e.switcher().(dialect.Cluster).Locate(e.t.Context(), neutral.TargetRef{Container: name})
	if err != nil {
		e.t.Fatal(err)
	}
	if !located.Address.IsValid() {
		e.t.Fatalf("container %s in mode %s is not reached", name, located.Network)
	}
	var out []byte
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) { // it may not listen yet
		out, err = exec.CommandContext(e.t.Context(), "nsenter", "--net=/run/netns/"+e.netns, "--", "curl", "-sS", "--max-time", "5",
			"http://"+located.Address.String()+":8080/page").CombinedOutput()
		if err == nil || time.Now().After(deadline) {
			break
		}
	}
	if err != nil || strings.TrimSpace(string(out)) != page {
		e.t.Errorf("container %s in mode %s says %q, %v", name, located.Network, out, err)
	}
}

func (e *switched) mode(name string) neutral.NetworkMode {
	e.t.Helper()
	located, err := e.switcher().(dialect.Cluster).Locate(e.t.Context(), neutral.TargetRef{Container: name})
	if err != nil {
		e.t.Fatal(err)
	}
	return located.Network
}

// inspect is the whole of what the engine tells of a container.
func (e *switched) inspect(name string) any {
	e.t.Helper()
	var told []any
	if err := json.Unmarshal([]byte(e.run("inspect", name)), &told); err != nil || len(told) != 1 {
		e.t.Fatalf("inspect of %s: %d, %v", name, len(told), err)
	}
	inspect, _ := told[0].(map[string]any)
	mounts, _ := inspect["Mounts"].([]any) // in no order
	slices.SortFunc(mounts, func(x, y any) int { return strings.Compare(fmt.Sprint(x), fmt.Sprint(y)) })
	return inspect
}

// Paths of an inspect that another start of the same container changes, by their ends.
var (
	ofStart    = []string{".State.StartedAt", ".State.FinishedAt", ".State.Pid", ".SandboxID", ".SandboxKey", ".EndpointID", ".State.Health", ".ExecIDs"}
	ofAddress  = []string{".IPAddress", ".MacAddress"}
	ofNoneJoin = []string{".IPAMConfig", ".Aliases", ".DriverOpts"} // of null and nothing
)

// differences are the paths at which two inspects differ, but for those that end in one of some words.
func differences(path string, x, y any, but ...[]string) []string {
	for _, end := range slices.Concat(but...) {
		if strings.HasSuffix(path, end) {
			return nil
		}
	}
	one, oneIs := x.(map[string]any)
	two, twoIs := y.(map[string]any)
	if !oneIs || !twoIs {
		if reflect.DeepEqual(x, y) {
			return nil
		}
		return []string{fmt.Sprintf("%s: %v, then %v", path, x, y)}
	}
	var all []string
	for key := range one {
		all = append(all, differences(path+"."+key, one[key], two[key], but...)...)
	}
	for key := range two {
		if _, ok := one[key]; !ok {
			all = append(all, differences(path+"."+key, nil, two[key], but...)...)
		}
	}
	slices.Sort(all)
	return all
}

// unchanged holds a container to what it was, and the engine to nothing that is left of a lease.
func (e *switched) unchanged(name, lease string, before any, but ...[]string) {
	e.t.Helper()
	if diff := differences("", before, e.inspect(name), append(but, ofStart)...); len(diff) > 0 {
		e.t.Errorf("it is not as it was:\n%s", strings.Join(diff, "\n"))
	}
	e.nothingLeft(lease)
}

func (e *switched) nothingLeft(lease string) {
	e.t.Helper()
	for _, list := range [][]string{
		{"ps", "-aq", "--filter", "label=isthmus.io/switch=" + lease}, {"ps", "-aq", "--filter", "name=-isthmus-" + lease},
		{"network", "ls", "-q", "--filter", "label=isthmus.io/switch=" + lease}, {"images", "-q", "isthmus.invalid/switch:" + lease},
	} {
		if left := e.run(list...); left != "" {
			e.t.Errorf("docker %s: %s is left", strings.Join(list, " "), left)
		}
	}
}
