// Package podspec translates what a Kubernetes caller writes of a Pod to a neutral container, and back. What it is given
// arrives in the container, is a loss, or is refused: a field that nothing here knows is refused.
package podspec

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Target says what the orchestrator is that runs the container.
type Target struct {
	Swarm bool // it becomes the tasks of a service; else a container of one engine
	// Object is what the fields of the Pod itself are read from: a bare Pod's metadata, or a template's with the
	// namespace that its Pods will be in and without a name.
	Object metav1.ObjectMeta
}

// Result is what a PodSpec comes to.
type Result struct {
	// Container is whole where nothing is referred to; else Resolve makes it whole. Its names and labels are the caller's
	// of this package to set, as are the networks that it joins.
	Container neutral.Container
	Name      string            // of the container within its Pod
	Pull      corev1.PullPolicy // when its image is pulled; a Swarm's nodes pull by themselves
	// Placement are constraints as Swarm writes them. Whoever makes a container on one engine holds them against its node.
	Placement []string
	Losses    []neutral.Loss
	Variables []Variable // in the order in which they are made
	Files     []File
	Claims    []Claim
	// Members are what each container of a Pod of several comes to, in the order in which they begin. Container is then what
	// they have in common.
	Members []Result

	command, args []string // before they are expanded
	env           *field.Path
}

// Whole is the container, with its members.
func (r *Result) Whole() neutral.Container {
	c := r.Container
	c.Members = nil
	for i := range r.Members {
		c.Members = append(c.Members, r.Members[i].Container)
	}
	return c
}

// decoding is a translation under way. What was understood is taken out of spec; what is left in the end is settled by
// the table of disposals, and refused where that says nothing.
type decoding struct {
	target  Target
	written *corev1.PodSpec // by the caller
	spec    *corev1.PodSpec
	path    *field.Path // of the spec
	out     Result
	errs    field.ErrorList
	// Of one container of a Pod of several: which volumes any of them mounts, and what its Pod has mounted for it.
	mounted map[string]bool
	shared  []neutral.Mount
}

// Decode reads a PodSpec, which may or may not have its defaults yet; path is where the caller wrote it. The result holds
// all that could be read also where there are errors.
func Decode(spec *corev1.PodSpec, path *field.Path, target Target) (Result, field.ErrorList) {
	d := &decoding{target: target, written: spec, spec: spec.DeepCopy(), path: path}
	Default(d.spec)
	if len(d.spec.Containers) == 0 {
		return d.out, field.ErrorList{field.Required(path.Child("containers"), "")}
	}
	if Several(spec) && !target.Swarm {
		return d.several()
	}
	for i := len(d.spec.Containers) - 1; i > 0; i-- {
		d.refuse(path.Child("containers").Index(i), reasonOneTask)
	}
	for i := range d.spec.InitContainers {
		d.refuse(path.Child("initContainers").Index(i), reasonOneTask)
	}
	d.ephemeral()
	d.spec.Containers, d.spec.InitContainers = d.spec.Containers[:1], nil
	d.one(path.Child("containers").Index(0), nil)
	d.sort()
	return d.out, d.errs
}

// Several tells whether a Pod has more than one container.
func Several(spec *corev1.PodSpec) bool { return len(spec.Containers)+len(spec.InitContainers) > 1 }

// ephemeral refuses containers that are added to a Pod which runs.
func (d *decoding) ephemeral() {
	for i := range d.spec.EphemeralContainers {
		d.refuse(d.path.Child("ephemeralContainers").Index(i), "a container of an engine gets no other one beside it later; use kubectl exec")
	}
	d.spec.EphemeralContainers = nil
}

// one reads the only container that is in the spec, and the spec with it. also reads more of it before the rest is settled.
func (d *decoding) one(at *field.Path, also func(c *corev1.Container)) {
	container := &d.spec.Containers[0]
	d.out.env = at.Child("env")
	d.pod()
	d.names()
	d.placement()
	d.process(container, at)
	d.environment(container, at)
	d.resources(container, at)
	d.ports(container, at)
	d.security(container, at)
	d.health(container, at)
	d.volumes(container, at)
	if also != nil {
		also(container)
	}
	d.rest(container, at)
	d.out.expand(nil)
}

func (d *decoding) sort() {
	slices.SortStableFunc(d.out.Losses, func(a, b neutral.Loss) int { return strings.Compare(a.Field, b.Field) })
	slices.SortStableFunc(d.errs, func(a, b *field.Error) int { return strings.Compare(a.Field, b.Field) })
}

func (d *decoding) refuse(path *field.Path, reason string) {
	d.errs = append(d.errs, field.Forbidden(path, reason))
}

func (d *decoding) lose(path *field.Path, change, reason string) {
	d.out.Losses = append(d.out.Losses, neutral.Loss{Field: path.String(), Change: change, Reason: reason})
}

// take gives a value and leaves none behind.
func take[T any](from *T) T {
	var none T
	value := *from
	*from = none
	return value
}

// told gives what a pointer points at, and leaves none behind.
func told[T any](from **T) T {
	var none T
	if p := take(from); p != nil {
		return *p
	}
	return none
}

// plain leaves none behind of a value that says what is so anyway.
func plain[T comparable](from *T, value T) {
	if *from == value {
		var none T
		*from = none
	}
}

// plainly is plain for what may be absent.
func plainly[T comparable](from **T, value T) {
	if *from != nil && **from == value {
		*from = nil
	}
}
