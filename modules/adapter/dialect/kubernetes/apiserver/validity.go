package apiserver

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
)

// invalid says what is wrong with an object, as the API says it.
func invalid(c *call, of writer, next, old object) error {
	path := field.NewPath("metadata")
	name := validation.NameIsDNSSubdomain
	switch c.resource.GroupResource() {
	case namespaceResource:
		name = validation.NameIsDNSLabel
	case serviceResource:
		name = validation.NameIsDNS1035Label
	}
	var problems field.ErrorList
	if old == nil || old.GetName() != next.GetName() { // what the orchestrator named before may stay
		problems = validation.ValidateObjectMetaAccessor(next, c.resource.Namespaced, name, path)
	}
	problems = append(problems, reserved(path, next, old)...)
	problems = append(problems, of.validate(next, old)...)
	if len(problems) > 0 {
		return apierrors.NewInvalid(c.resource.GroupVersionKind.GroupKind(), next.GetName(), problems)
	}
	return nil
}

// Labels by which docker, and this gateway, know what an object is: of which stack, project or service, and what is kept
// beside it. A caller who set them would put an object where policy has not looked.
var (
	reservedLabels = []string{"com.docker.stack.", "com.docker.compose.", "com.docker.swarm.", "isthmus.io/origin", "isthmus.io/losses", "isthmus.io/files",
		"isthmus.io/implicit", labelRecord, labelClaim, labelWaiting, labelAdopted}
	reservedAnnotations = []string{"isthmus.io/"}
)

// reserved refuses such labels, of an object and of its Pods, unless the object has them already.
func reserved(path *field.Path, next, old object) field.ErrorList {
	var before metav1.Object
	if old != nil {
		before = old
	}
	problems := reservedIn(path, next, before)
	for _, form := range workloadForms {
		if reflect.TypeOf(form.blank()) != reflect.TypeOf(next) {
			continue
		}
		template := &form.template(next).ObjectMeta
		before = nil
		if old != nil {
			before = &form.template(old).ObjectMeta
		}
		path := field.NewPath("spec", "template", "metadata")
		problems = append(problems, reservedIn(path, template, before)...)
		problems = append(problems, reservedKeys(path.Child("labels"), template.Labels, labelsOf(before), []string{labelHash})...)
	}
	return problems
}

func reservedIn(path *field.Path, next, old metav1.Object) field.ErrorList {
	var annotations map[string]string
	if old != nil {
		annotations = old.GetAnnotations()
	}
	return append(reservedKeys(path.Child("labels"), next.GetLabels(), labelsOf(old), reservedLabels),
		reservedKeys(path.Child("annotations"), next.GetAnnotations(), annotations, reservedAnnotations)...)
}

func labelsOf(o metav1.Object) map[string]string {
	if o == nil {
		return nil
	}
	return o.GetLabels()
}

func reservedKeys(path *field.Path, next, old map[string]string, prefixes []string) field.ErrorList {
	var problems field.ErrorList
	for _, key := range slices.Sorted(maps.Keys(next)) {
		if was, there := old[key]; there && was == next[key] || key == dialect.CopyFrom {
			continue
		}
		if slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(key, prefix) }) {
			problems = append(problems, field.Forbidden(path.Key(key), "it says what the object is to docker and to the gateway, and is not set by callers"))
		}
	}
	return problems
}
