package e2e

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/e2e/demo"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// TestDockerPlansPods makes and removes a Pod of several containers on an engine without a Swarm.
func TestDockerPlansPods(t *testing.T) {
	scripting(t)
	defer turn("docker-plans-pods")()
	p := plannedOn(t, "south")
	engine := func(arguments ...string) []string {
		out, err := running.Bed.Docker("south").Run(t.Context(), arguments...)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(out)
	}
	share := neutral.Security{IPCMode: neutral.ShareHolder}
	shared := []neutral.Mount{{Type: neutral.MountShared, Source: "/v", Target: "/v"}}
	grace := 1
	member := func(name, script string) neutral.Container {
		return neutral.Container{Name: name, Image: demo.Image, Entrypoint: []string{"sh", "-c", script}, Network: neutral.NetworkPod, Security: share, Mounts: shared, StopTimeout: &grace}
	}
	pod := neutral.Container{Name: "duo", Hostname: "duo", Labels: map[string]string{"app": "duo"}, Restart: neutral.RestartPolicy{Mode: neutral.RestartUnlessStopped},
		Origin: &neutral.Origin{Dialect: neutral.Kubernetes, Spec: []byte(`{"kind":"Pod"}`)}, Networks: []neutral.NetworkAttachment{{Name: "default", Aliases: []string{"d"}}},
		Mounts:  []neutral.Mount{{Type: "volume", Target: "/v"}},
		Members: []neutral.Container{member("a", "sleep 600"), member("b", "sleep 600")}}
	remove := neutral.Operation{Action: neutral.ContainerRemove, Ref: "duo", Remove: &neutral.RemoveOptions{Force: true, Volumes: true}}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		_, _ = p.try(ctx, remove)
		_, _ = p.try(ctx, neutral.Operation{Action: neutral.NetworkPrune})
	})
	create := neutral.Operation{Action: neutral.ContainerCreate, Container: &pod}
	made := p.do(create)
	if c := made.Container; c.Name != "duo" || len(c.Members) != 2 || c.Members[0].Name != "a" || c.Members[1].Pod != "duo" || c.Labels["app"] != "duo" ||
		c.Members[1].State.Status != neutral.StatusCreated || c.Origin == nil {
		t.Errorf("%+v", c)
	}
	p.refuses(fault.Conflict, create)
	image := engine("inspect", made.ID, "--format", "{{.Image}}")

	// As after a gateway that was killed: what is missing is made, with the volume that is there.
	volume := engine("inspect", made.ID, "--format", "{{range .Mounts}}{{.Name}}{{end}}")
	engine("rm", "-v", made.Container.Members[1].ID)
	again := p.do(create)
	if again.ID != made.ID || len(again.Container.Members) != 2 || again.Container.Members[0].ID != made.Container.Members[0].ID {
		t.Errorf("%+v", again.Container)
	}
	for _, ref := range []string{again.ID, again.Container.Members[0].ID, again.Container.Members[1].ID} {
		p.do(neutral.Operation{Action: neutral.ContainerStart, Ref: ref})
	}
	engine("exec", again.Container.Members[0].ID, "sh", "-c", "echo hello > /v/f")
	if got := engine("exec", again.Container.Members[1].ID, "cat", "/v/f"); !slices.Equal(got, []string{"hello"}) {
		t.Errorf("shared %v", got)
	}
	if list := p.do(neutral.Operation{Action: neutral.ContainerList, Filter: neutral.Filter{All: true}}).Containers; len(list) != 1 || len(list[0].Members) != 2 {
		t.Errorf("list %+v", list)
	}
	if pruned := p.do(neutral.Operation{Action: neutral.ContainerPrune}).Removed; len(pruned) > 0 {
		t.Errorf("pruned %v", pruned)
	}
	p.refuses(fault.Conflict, neutral.Operation{Action: neutral.ContainerRemove, Ref: "duo"})
	begin := time.Now()
	engine("stop", again.ID) // its user may: it does not wait to be killed
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("the holder took %s to stop", took)
	}
	p.do(remove)
	if left := p.do(neutral.Operation{Action: neutral.ContainerList, Filter: neutral.Filter{All: true}}).Containers; len(left) > 0 {
		t.Errorf("left %+v", left)
	}
	if slices.Contains(engine("volume", "ls", "-q"), volume[0]) {
		t.Error("its volume is left")
	}
	third := p.do(create)
	if now := engine("inspect", third.ID, "--format", "{{.Image}}"); now[0] != image[0] {
		t.Error("the holder's image was made twice")
	}
	p.do(remove)
}
