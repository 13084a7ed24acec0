package adapter

import (
	"reflect"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/adapter/mask"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func TestConceal(t *testing.T) {
	t.Parallel()
	env := []string{"DB_PASSWORD=s3cret", "DB_PASSWORD_FILE=/run/x", "A=b", "API_TOKEN="}
	hidden := []string{"DB_PASSWORD=" + mask.Hidden, "DB_PASSWORD_FILE=/run/x", "A=b", "API_TOKEN="}
	foreign := neutral.Container{Env: env}
	own := neutral.Container{Env: env, Origin: &neutral.Origin{Dialect: neutral.Docker}}
	told := conceal(neutral.Result{
		Container: &foreign, Workload: &neutral.Workload{Template: foreign}, Task: &neutral.Task{Container: foreign},
		Containers: []neutral.Container{foreign, own}, Workloads: []neutral.Workload{{Template: foreign}, {Template: own, Origin: own.Origin}},
		Tasks: []neutral.Task{{Container: foreign}},
	})
	for what, is := range map[string][]string{
		"container": told.Container.Env, "workload": told.Workload.Template.Env, "task": told.Task.Container.Env,
		"listed container": told.Containers[0].Env, "listed workload": told.Workloads[0].Template.Env, "listed task": told.Tasks[0].Container.Env,
	} {
		if !reflect.DeepEqual(is, hidden) {
			t.Errorf("%s: %v", what, is)
		}
	}
	if !reflect.DeepEqual(told.Containers[1].Env, env) || !reflect.DeepEqual(told.Workloads[1].Template.Env, env) {
		t.Error("who wrote a thing does not read it back")
	}
	if env[0] != "DB_PASSWORD=s3cret" {
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
