package apiserver

import (
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
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
	problems = append(problems, of.validate(next, old)...)
	if len(problems) > 0 {
		return apierrors.NewInvalid(c.resource.GroupVersionKind.GroupKind(), next.GetName(), problems)
	}
	return nil
}
