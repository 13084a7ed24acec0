package kubernetes

import (
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/expansion"
)

func TestCredentialsInCommands(t *testing.T) {
	t.Parallel()
	c := &corev1.Container{Args: []string{"--password=$(DB_PASSWORD)", "$(HOST)"}, Env: []corev1.EnvVar{{Name: "DB_PASSWORD", Value: "s3cret"}, {Name: "HOST", Value: "db"}}}
	if told := expansion.ExpandAll(c.Args, literalEnv(c)); !reflect.DeepEqual(told, []string{"--password=$(DB_PASSWORD)", "db"}) {
		t.Errorf("%v", told)
	}
}
