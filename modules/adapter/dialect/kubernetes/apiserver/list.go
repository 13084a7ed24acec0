package apiserver

import (
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/resource"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/table"
)

// find gives the object of a path as it is now.
func (s *Server) find(c *call) (*entry, error) {
	if c.URL.Query().Get("resourceVersion") != "0" || s.behind() {
		if err := s.refresh(c.Context()); err != nil {
			return nil, err
		}
	}
	e := s.store.get(c.resource.GroupResource(), key{c.namespace, c.name})
	if e == nil {
		return nil, apierrors.NewNotFound(c.resource.GroupResource(), c.name)
	}
	return e, nil
}

func (s *Server) get(w http.ResponseWriter, c *call) error {
	e, err := s.find(c)
	if err != nil {
		return err
	}
	return s.answer(w, c, http.StatusOK, whole(c.resource, e.object))
}

// whole is an object with its kind.
func whole(r resource.Resource, o object) runtime.Object {
	return named(o.DeepCopyObject(), r.GroupVersionKind)
}

func (s *Server) list(w http.ResponseWriter, c *call) error {
	options, err := listOptions(c)
	if err != nil {
		return err
	}
	matched, remains, version, next, err := s.page(c, options)
	if err != nil {
		return err
	}
	body := c.resource.NewList()
	items := make([]runtime.Object, len(matched))
	for i, e := range matched {
		items[i] = e.object
	}
	if err := meta.SetList(body, items); err != nil {
		return err
	}
	accessor, err := meta.ListAccessor(body)
	if err != nil {
		return err
	}
	accessor.SetResourceVersion(formatVersion(version))
	accessor.SetContinue(next)
	accessor.SetRemainingItemCount(remains)
	return s.answer(w, c, http.StatusOK, named(body, c.resource.GroupVersion().WithKind(c.resource.Kind+"List")))
}

// formed is a body as the caller wants it: itself, a table, or its metadata.
func (s *Server) formed(c *call, f form, body runtime.Object) (runtime.Object, error) {
	if f.as == "" {
		return body, nil
	}
	if _, isStatus := body.(*metav1.Status); isStatus {
		return body, nil
	}
	items := []runtime.Object{body}
	list := metav1.ListMeta{}
	isList := meta.IsListType(body)
	if isList {
		var err error
		if items, err = meta.ExtractList(body); err != nil {
			return nil, err
		}
		accessor, err := meta.ListAccessor(body)
		if err != nil {
			return nil, err
		}
		list = metav1.ListMeta{ResourceVersion: accessor.GetResourceVersion(), Continue: accessor.GetContinue(),
			RemainingItemCount: accessor.GetRemainingItemCount()}
	} else if accessor, err := meta.Accessor(body); err == nil {
		list.ResourceVersion = accessor.GetResourceVersion()
	}
	if f.as == "Table" {
		if c.subresource != "" {
			return body, nil
		}
		return table.Of(c.resource, items, list, metav1.TableOptions{IncludeObject: metav1.IncludeObjectPolicy(c.URL.Query().Get("includeObject"))}, s.now())
	}
	if !isList {
		return metadata(body)
	}
	partial := &metav1.PartialObjectMetadataList{ListMeta: list, Items: make([]metav1.PartialObjectMetadata, len(items))}
	for i, item := range items {
		one, err := metadata(item)
		if err != nil {
			return nil, err
		}
		one.TypeMeta = metav1.TypeMeta{} // it is the list's
		partial.Items[i] = *one
	}
	return named(partial, metav1.SchemeGroupVersion.WithKind("PartialObjectMetadataList")), nil
}
