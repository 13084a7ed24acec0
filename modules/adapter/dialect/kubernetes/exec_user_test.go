package kubernetes

import (
	"context"
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// TestExecUser asks for users that the container has and has not, where the node, the spec, the image or nothing tells
// which it has.
func TestExecUser(t *testing.T) {
	t.Parallel()
	status := func(uid, gid int64) *corev1.ContainerStatus {
		return &corev1.ContainerStatus{User: &corev1.ContainerUser{Linux: &corev1.LinuxContainerUser{UID: uid, GID: gid}}}
	}
	for name, x := range map[string]struct {
		wanted string
		spec   string
		status *corev1.ContainerStatus
		image  map[string]string // what id prints
		asked  string            // the options that id was run with
		reason string            // "" is accepted
	}{
		"nobody wanted":            {image: map[string]string{"-u": "5"}},
		"root by its node":         {wanted: "root", status: status(0, 0)},
		"0 by its node":            {wanted: "0", status: status(0, 0)},
		"root and its group":       {wanted: "root:root", status: status(0, 0)},
		"another group by node":    {wanted: "0:0", status: status(0, 5), reason: "which is 0:5"},
		"not root by its node":     {wanted: "0", status: status(1000, 1000), reason: "which is 1000:1000"},
		"a node knows better":      {wanted: "0", spec: "0", status: status(7, 7), reason: "which is 7:7"},
		"root by the spec":         {wanted: "root", spec: "0"},
		"not root by the spec":     {wanted: "0", spec: "1000", reason: "which is 1000"},
		"a silent node":            {wanted: "0", spec: "0", status: &corev1.ContainerStatus{}},
		"a user of another system": {wanted: "0", spec: "0", status: &corev1.ContainerStatus{User: &corev1.ContainerUser{}}},
		"root by the image":        {wanted: "root", image: map[string]string{"-u": "0\n"}, asked: "-u"},
		"1000 by the image":        {wanted: "1000", image: map[string]string{"-u": "1000"}, asked: "-u"},
		"not root by the image":    {wanted: "0", image: map[string]string{"-u": "33"}, asked: "-u", reason: "which is 33"},
		"both by the image":        {wanted: "0:0", image: map[string]string{"-u": "0", "-g": "0"}, asked: "-u-g"},
		"the group by the image":   {wanted: "0:0", spec: "0", image: map[string]string{"-g": "0"}, asked: "-g"},
		"another group by image":   {wanted: "0:0", spec: "0", image: map[string]string{"-g": "5"}, asked: "-g", reason: "which is 0:5"},
		"no id":                    {wanted: "0", asked: "-u", reason: "nothing tells"},
		"another program":          {wanted: "0", image: map[string]string{"-u": "0 is what you like"}, asked: "-u", reason: "nothing tells"},
		"a name":                   {wanted: "www-data", status: status(33, 33), reason: `which number "www-data" is`},
		"a name, nothing known":    {wanted: "www-data", reason: `which number "www-data" is`},
		"a name of a group":        {wanted: "0:adm", status: status(0, 0), reason: `which number "adm" is`},
	} {
		asked := ""
		own, err := effectiveUser(x.wanted, &neutral.Container{User: x.spec}, x.status, func(option string) (string, error) {
			asked += option
			return x.image[option], nil
		})
		if err != nil || asked != x.asked {
			t.Errorf("%s: %v, asked %q", name, err, asked)
		}
		_, _, err = execCommand(&neutral.ExecSpec{Command: []string{"id"}, User: x.wanted}, &neutral.Container{User: x.spec}, own)
		if x.reason == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if !fault.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), x.reason) {
			t.Errorf("%s: %v, want %q", name, err, x.reason)
		}
	}
	// A cluster that cannot be asked is a failure, and no refusal.
	if _, err := effectiveUser("0", &neutral.Container{}, nil, func(string) (string, error) { return "", context.Canceled }); !errors.Is(err, context.Canceled) {
		t.Errorf("a cluster that cannot be asked: %v", err)
	}
}
