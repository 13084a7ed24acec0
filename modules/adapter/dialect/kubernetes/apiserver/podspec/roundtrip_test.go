package podspec

import (
	"reflect"
	"testing"

	"golang.org/x/tools/txtar"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// TestRoundTrip holds that what a container of an engine is shown as is legal, and comes back as the same container, but
// for what has no form in a Pod's spec and for addresses, which are not told.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	goldens(t, "encode", func(t *testing.T, in []byte) []txtar.File {
		var c neutral.Container
		unmarshal(t, in, &c)
		spec := Encode(c)
		shown := yamlOf(t, spec)
		if c.Domain != "" { // an engine's may have several labels
			spec.Subdomain = ""
		}
		if !c.Security.UnmaskedPaths { // a server wants user namespaces of its own for these
			if errs := Validate(&spec, field.NewPath("spec")); len(errs) > 0 {
				t.Error(errs)
			}
		}
		// A profile of a host's files is not taken from callers, as it cannot be given to an engine.
		if context := spec.Containers[0].SecurityContext; context != nil && context.SeccompProfile != nil && context.SeccompProfile.LocalhostProfile != nil {
			context.SeccompProfile = nil
			c.Security.Seccomp = neutral.ProfileDefault
		}
		result, errs := Decode(&spec, field.NewPath("spec"), Target{Object: metav1.ObjectMeta{Name: c.Hostname}})
		if len(errs) > 0 {
			t.Error(errs)
		}
		want, got := c, result.Container
		want.Name, want.Node, want.Domain, want.DNS, want.ExtraHosts = "", "", "", nil, nil
		if want.Env = nil; len(c.Env) > 0 {
			want.Env = c.Env[:len(c.Env)-1] // one that is only unset
		}
		for i := range want.Ports {
			p := &want.Ports[i]
			p.HostIP = ""
			if !p.HostMode {
				p.Publish, p.Published = false, 0
			}
		}
		if len(c.Groups) > 0 {
			want.Groups = c.Groups[:1] // the other one is a name
		}
		if c.StopTimeout == nil {
			want.StopTimeout = got.StopTimeout
		}
		if want.Network == "" {
			want.Network = neutral.NetworkBridge
		}
		switch want.Restart.Mode {
		case "":
			want.Restart.Mode = neutral.RestartNo
		case neutral.RestartUnlessStopped:
			want.Restart.Mode = neutral.RestartAlways
		}
		want.Restart.Max = 0
		for i, name := range want.Security.CapAdd {
			want.Security.CapAdd[i] = name[len("CAP_"):]
		}
		want.Security.Seccomp, want.Security.AppArmor = orDefault(want.Security.Seccomp), orDefault(want.Security.AppArmor)
		if want.Health == nil {
			want.Health = &neutral.HealthCheck{Test: []string{"NONE"}}
		}
		if want.Health.Test[0] == "CMD-SHELL" {
			want.Health.Test = append([]string{"CMD", "/bin/sh", "-c"}, want.Health.Test[1:]...)
			want.Health.Timeout = got.Health.Timeout // in whole seconds
		}
		want.Entrypoint, want.Command = got.Entrypoint, got.Command // they are compared by the next line
		if argv := append(append([]string{}, got.Entrypoint...), got.Command...); len(c.Command) > 0 && !reflect.DeepEqual(argv[len(argv)-len(c.Command):], c.Command) {
			t.Errorf("%q is %q", c.Command, argv)
		}
		want.Resources.MilliCPUReserved = got.Resources.MilliCPUReserved // the limit, where nothing is said
		want.Files = nil                                                 // the source of a caller has them
		if len(result.Files) != len(c.Files) {
			t.Errorf("%d files of %d", len(result.Files), len(c.Files))
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
		return []txtar.File{{Name: "spec.yaml", Data: shown}}
	})
}

func orDefault(p neutral.Profile) neutral.Profile {
	if p == "" {
		return neutral.ProfileDefault
	}
	return p
}
