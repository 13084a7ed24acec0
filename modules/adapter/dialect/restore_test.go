package dialect

import (
	"reflect"
	"strings"
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

// What was told in other words and is sent as it was told stays as it is; nothing else is taken for it.
func TestRestoreTold(t *testing.T) {
	t.Parallel()
	told := func(text string) string { return strings.ReplaceAll(text, "10.0.0.1", "240.1.2.3") }
	was := neutral.Container{Env: []string{"HOST=10.0.0.1", "A=b"}, Command: []string{"--at=10.0.0.1"}, DNS: []string{"10.0.0.1"},
		ExtraHosts: []string{"db:10.0.0.1"}, Health: &neutral.HealthCheck{Test: []string{"CMD", "10.0.0.1"}}}
	is := neutral.Container{Env: []string{"A=c", "HOST=240.1.2.3"}, Command: []string{"--at=240.1.2.3", "240.9.9.9"}, DNS: []string{"240.1.2.3"},
		ExtraHosts: []string{"db:240.1.2.3", "x:240.1.2.3"}, Health: &neutral.HealthCheck{Test: []string{"CMD", "240.1.2.3"}}}
	restoreTold(&is, &was, told)
	want := neutral.Container{Env: []string{"A=c", "HOST=10.0.0.1"}, Command: []string{"--at=10.0.0.1", "240.9.9.9"}, DNS: []string{"10.0.0.1"},
		ExtraHosts: []string{"db:10.0.0.1", "x:240.1.2.3"}, Health: &neutral.HealthCheck{Test: []string{"CMD", "10.0.0.1"}}}
	if !reflect.DeepEqual(is, want) {
		t.Errorf("%+v", is)
	}
}
