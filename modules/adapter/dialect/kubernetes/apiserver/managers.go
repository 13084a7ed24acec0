package apiserver

import (
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/applyconfigurations"
	"k8s.io/client-go/kubernetes/scheme"
)

// structure tells that of objects: which lists are sets or maps, by which keys. It is large, and made when it is
// needed first.
var structure = sync.OnceValue(func() managedfields.TypeConverter { return applyconfigurations.NewTypeConverter(scheme.Scheme) })

// undefaulted leaves objects as they are: complete has set what their callers left out.
type undefaulted struct{}

func (undefaulted) Default(runtime.Object) {}

var managers sync.Map // of fields, by kind and subresource

type managerKey struct {
	schema.GroupVersionKind
	subresource string
}

func fieldManager(kind schema.GroupVersionKind, subresource string) (*managedfields.FieldManager, error) {
	k := managerKey{kind, subresource}
	if m, ok := managers.Load(k); ok {
		return m.(*managedfields.FieldManager), nil
	}
	m, err := managedfields.NewDefaultFieldManager(structure(), scheme.Scheme, undefaulted{}, scheme.Scheme, kind, kind.GroupVersion(), subresource, nil)
	if err != nil {
		return nil, err
	}
	managers.Store(k, m)
	return m, nil
}

// updateManagers notes whose the fields are that a write changes.
func updateManagers(c *call, w writing, subresource string, live, next object) error {
	m, err := fieldManager(c.resource.GroupVersionKind, subresource)
	if err != nil {
		return err
	}
	kind := c.resource.GroupVersionKind
	noted := m.UpdateNoErrors(named(live.DeepCopyObject(), kind), named(next.DeepCopyObject(), kind), w.manager)
	next.SetManagedFields(noted.(object).GetManagedFields())
	return nil
}
