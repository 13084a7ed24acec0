package adapter

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/modules"
	"github.com/isthmus-mesh/isthmus/modules/adapter/mask"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func TestConceal(t *testing.T) {
	t.Parallel()
	m := New(Config{Mask: mask.New(bytes.Repeat([]byte{1}, mask.KeySize))})
	at := m.config.Mask.String("10.0.0.1")
	env := []string{"DB_PASSWORD=s3cret", "DB_PASSWORD_FILE=/run/x", "A=b", "API_TOKEN=", "HOST=10.0.0.1", "DSN=db://u:s3cret@db/x"}
	hidden := []string{"DB_PASSWORD=" + mask.Hidden, "DB_PASSWORD_FILE=/run/x", "A=b", "API_TOKEN=", "HOST=" + at, "DSN=" + mask.Hidden}
	foreign := neutral.Container{Env: env, Command: []string{"--at=10.0.0.1"}, DNS: []string{"10.0.0.1"}, ExtraHosts: []string{"db:10.0.0.1"},
		Health: &neutral.HealthCheck{Test: []string{"CMD", "ping", "10.0.0.1"}}, State: neutral.State{Error: "dial tcp 10.0.0.1:1: refused"}}
	with := func(peer, spec string) neutral.Container {
		c := foreign
		c.Origin = &neutral.Origin{Dialect: neutral.Docker, Peer: peer, Spec: []byte(spec)}
		return c
	}
	const spec = `{"Env":["DB_PASSWORD=s3cret","DB_PASSWORD_FILE=/run/x","A=b","API_TOKEN=","HOST=10.0.0.1","DSN=db://u:s3cret@db/x"],"Cmd":["--at=10.0.0.1"],"TaskTemplate":{"Hosts":["10.0.0.1 db"]}}`
	own, others, unknown := with("west", spec), with("south", spec), with("", spec)
	sentBack := with("west", `{"Env":["DB_PASSWORD=`+mask.Hidden+`","HOST=`+at+`"]}`)
	told := m.conceal(neutral.Result{
		Container: &foreign, Workload: &neutral.Workload{Template: foreign, UpdateMessage: "10.0.0.1"}, Task: &neutral.Task{Container: foreign, Err: "10.0.0.1"},
		Containers: []neutral.Container{foreign, own, others, unknown, sentBack},
		Workloads:  []neutral.Workload{{Template: foreign}, {Template: foreign, Origin: own.Origin}, {Template: foreign, Origin: others.Origin}},
		Tasks:      []neutral.Task{{Container: foreign}},
	}, "west")
	for what, is := range map[string]neutral.Container{
		"container": *told.Container, "workload": told.Workload.Template, "task": told.Task.Container,
		"listed container": told.Containers[0], "listed workload": told.Workloads[0].Template, "listed task": told.Tasks[0].Container,
		"another peer's container": told.Containers[2], "nobody's container": told.Containers[3], "what was sent back": told.Containers[4],
		"another peer's workload": told.Workloads[2].Template,
	} {
		if !reflect.DeepEqual(is.Env, hidden) || strings.Contains(fmt.Sprint(is.Command, is.DNS, is.ExtraHosts, is.Health.Test, is.State.Error), "10.0.0.1") {
			t.Errorf("%s: %+v", what, is)
		}
	}
	if told.Workload.UpdateMessage != at || told.Task.Err != at {
		t.Errorf("%+v %+v", told.Workload, told.Task)
	}
	for _, c := range []neutral.Container{told.Containers[1], told.Workloads[1].Template} {
		if !reflect.DeepEqual(c.Env, env) || c.Command[0] != "--at=10.0.0.1" || c.ExtraHosts[0] != "db:10.0.0.1" {
			t.Errorf("who wrote a thing does not read it back: %+v", c)
		}
	}
	if env[0] != "DB_PASSWORD=s3cret" || foreign.Command[0] != "--at=10.0.0.1" || foreign.Health.Test[2] != "10.0.0.1" {
		t.Error("the result itself was changed")
	}
}

func TestRefuseConcealed(t *testing.T) {
	t.Parallel()
	c := neutral.Container{Env: []string{"A=b", "TOKEN=" + mask.Hidden}}
	for _, op := range []neutral.Operation{
		{Action: neutral.ContainerCreate, Container: &c}, {Action: neutral.WorkloadCreate, Workload: &neutral.Workload{Template: c}},
	} {
		if err := refuseConcealed(op); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", op.Action, err)
		}
	}
	if err := refuseConcealed(neutral.Operation{Action: neutral.WorkloadUpdate, Workload: &neutral.Workload{Template: c}}); err != nil {
		t.Error(err)
	}
}

// TestFoundVolumes creates volumes in another orchestrator that are there already.
func TestFoundVolumes(t *testing.T) {
	t.Parallel()
	gets := map[string]bool{"seen": true}
	m := New(Config{Namespace: "shop", Policy: func() modules.Policy { return getting(gets) }})
	found := []neutral.Volume{
		{Name: "seen", Driver: "fast", Labels: map[string]string{"team": "payments"}},
		{Name: "unseen", Driver: "fast", Labels: map[string]string{"team": "payments"}, Created: time.Unix(1, 0)},
	}
	wanted := neutral.Operation{Action: neutral.VolumeCreate, Volume: &neutral.Volume{Driver: "local", Labels: map[string]string{"mine": "yes"}}}
	told := m.foundVolumes(&modules.Request{Peer: modules.Peer{Name: "west"}}, wanted, found)
	if !reflect.DeepEqual(told[0], found[0]) {
		t.Errorf("who may get it is told %+v", told[0])
	}
	if want := (neutral.Volume{Name: "unseen", Driver: "local", Labels: map[string]string{"mine": "yes"}}); !reflect.DeepEqual(told[1], want) {
		t.Errorf("who may not is told %+v", told[1])
	}
}

// getting is a policy that allows to get volumes of some names in the namespace shop, and nothing else.
type getting map[string]bool

func (g getting) Judge(_ modules.Subject, verb neutral.Verb, o neutral.Object) modules.Judgement {
	return modules.Judgement{Allowed: verb == neutral.Get && o.Kind == neutral.KindVolume && o.Namespace == "shop" && g[o.Name]}
}
func (g getting) Foresee(s modules.Subject, verb neutral.Verb, o neutral.Object) modules.Judgement {
	return g.Judge(s, verb, o)
}
func (getting) MayKnow(modules.Subject, neutral.Object) bool { return false }
