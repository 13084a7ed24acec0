package kubernetes

import (
	"reflect"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/adapter/mask"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func TestRestoreEnv(t *testing.T) {
	t.Parallel()
	was := neutral.Container{Env: []string{"TOKEN=t", "A=b"}}
	told := []string{"A=c", "TOKEN=" + mask.Hidden}
	is := neutral.Container{Env: told}
	if err := restoreEnv(&is, &was); err != nil || !reflect.DeepEqual(is.Env, []string{"A=c", "TOKEN=t"}) {
		t.Errorf("%v, %v", is.Env, err)
	}
	if told[1] != "TOKEN="+mask.Hidden {
		t.Error("the caller's own list was changed")
	}
	if err := restoreEnv(&neutral.Container{Env: []string{"OTHER_TOKEN=" + mask.Hidden}}, &was); !fault.Is(err, fault.Invalid) {
		t.Errorf("a credential that is not there: %v", err)
	}
}
