package kubernetes

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// user is a container or a service that uses what a caller wants removed.
type user struct {
	object neutral.Object
	name   string // as an engine names it
}

// podObject is what policy sees of a Pod's first container.
func (a *action) podObject(pod *corev1.Pod) neutral.Object {
	c := containerFromPod(a.cluster, pod, 0, time.Now())
	return containerObject(&c)
}

// knows tells whether the caller may learn that an object is there. The record of the operation may then be about it:
// permit must be asked about what was named once more.
func (a *action) knows(ctx context.Context, object neutral.Object) bool {
	err := a.permitSeen(ctx, object)
	return err == nil || !fault.Is(err, fault.NotFound) // as a guard says it of what nobody may know
}

func (a *action) knowsPod(ctx context.Context, pod *corev1.Pod) bool {
	return a.knows(ctx, a.podObject(pod))
}

// toldUser is how an error names a user of what is about: in form, and not at all to who may not know of it.
func (a *action) toldUser(ctx context.Context, u *user, form string, about neutral.Object) string {
	told := ""
	if a.knows(ctx, u.object) {
		told = fmt.Sprintf(form, u.name)
	}
	_ = a.permit(about) // it was permitted before; the record is about it
	return told
}
