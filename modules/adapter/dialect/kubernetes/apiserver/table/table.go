// Package table makes the tables that kubectl prints: for each kind of object that is served the columns, and the cells of
// objects, as the API server of Kubernetes gives them.
package table

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/resource"
)

// Of is the table of objects of one resource, in their order. List is what stands beside the rows: that of the list, or
// the resource version of the one object. Objects are not changed, but rows may hold them. Cells that tell an age are
// seen from now. Its error is an API error.
func Of(of resource.Resource, objects []runtime.Object, list metav1.ListMeta, options metav1.TableOptions, now time.Time) (*metav1.Table, error) {
	layout, ok := layouts[of.GroupResource()]
	if !ok {
		layout = unknown
	}
	table := &metav1.Table{
		TypeMeta: metav1.TypeMeta{Kind: "Table", APIVersion: metav1.SchemeGroupVersion.String()},
		ListMeta: list,
		Rows:     make([]metav1.TableRow, 0, len(objects)),
	}
	if !options.NoHeaders {
		table.ColumnDefinitions = slices.Clone(layout.columns)
	}
	for _, object := range objects {
		row, err := layout.row(object, now)
		if err != nil {
			return nil, errors.NewInternalError(fmt.Errorf("row of %s: %w", of.Name, err))
		}
		if row.Object.Object, err = included(of, object, options.IncludeObject); err != nil {
			return nil, err
		}
		table.Rows = append(table.Rows, row)
	}
	return table, nil
}

// included is what a row tells of its object.
func included(of resource.Resource, object runtime.Object, policy metav1.IncludeObjectPolicy) (runtime.Object, error) {
	switch policy {
	case metav1.IncludeNone:
		return nil, nil
	case metav1.IncludeObject:
		if object.GetObjectKind().GroupVersionKind().Empty() {
			object = object.DeepCopyObject()
			object.GetObjectKind().SetGroupVersionKind(of.GroupVersionKind)
		}
		return object, nil
	case metav1.IncludeMetadata, "":
		accessor, err := meta.Accessor(object)
		if err != nil {
			return nil, errors.NewInternalError(fmt.Errorf("metadata of %s: %w", of.Name, err))
		}
		partial := meta.AsPartialObjectMetadata(accessor)
		partial.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("PartialObjectMetadata"))
		return partial, nil
	default:
		return nil, errors.NewBadRequest(fmt.Sprintf("includeObject is %q: want None, Metadata or Object", policy))
	}
}

// layout is how one kind is shown.
type layout struct {
	columns []metav1.TableColumnDefinition
	row     func(runtime.Object, time.Time) (metav1.TableRow, error)
}

// laidOut is the layout of a kind whose cells do not depend on more than the object and the time.
func laidOut[T runtime.Object](columns []metav1.TableColumnDefinition, cells func(T, time.Time) []any) layout {
	return laidOutRows(columns, func(object T, now time.Time) metav1.TableRow { return metav1.TableRow{Cells: cells(object, now)} })
}

func laidOutRows[T runtime.Object](columns []metav1.TableColumnDefinition, row func(T, time.Time) metav1.TableRow) layout {
	return layout{columns: columns, row: func(object runtime.Object, now time.Time) (metav1.TableRow, error) {
		typed, ok := object.(T)
		if !ok {
			return metav1.TableRow{}, fmt.Errorf("it is a %T", object)
		}
		return row(typed, now), nil
	}}
}

// unknown is the layout of kinds that have none of their own.
var unknown = layout{
	columns: []metav1.TableColumnDefinition{nameColumn, {Name: "Created At", Type: "date", Description: metadataDoc["creationTimestamp"]}},
	row: func(object runtime.Object, _ time.Time) (metav1.TableRow, error) {
		accessor, err := meta.Accessor(object)
		if err != nil {
			return metav1.TableRow{}, err
		}
		return metav1.TableRow{Cells: []any{accessor.GetName(), accessor.GetCreationTimestamp().UTC().Format(time.RFC3339)}}, nil
	},
}

var (
	metadataDoc = metav1.ObjectMeta{}.SwaggerDoc()
	nameColumn  = metav1.TableColumnDefinition{Name: "Name", Type: "string", Format: "name", Description: metadataDoc["name"]}
	ageColumn   = text("Age", metadataDoc["creationTimestamp"])
)

func text(name, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: "string", Description: description}
}

func number(name, description string) metav1.TableColumnDefinition {
	return metav1.TableColumnDefinition{Name: name, Type: "integer", Description: description}
}

// wide is a column that is shown when the client asks for more.
func wide(column metav1.TableColumnDefinition) metav1.TableColumnDefinition {
	column.Priority = 1
	return column
}

// What stands where there is nothing to show; the words differ from kind to kind.
const (
	none   = "<none>"
	unset  = "<unset>"
	absent = "<unknown>"
)

func or(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

// since is how long ago a time was.
func since(t, now time.Time) string {
	if t.IsZero() {
		return absent
	}
	return duration.HumanDuration(now.Sub(t))
}

// firstOf shows the first three of a list, and how many more there are.
func firstOf(list []string) string {
	const shown = 3
	switch {
	case len(list) > shown:
		return fmt.Sprintf("%s + %d more...", strings.Join(list[:shown], ","), len(list)-shown)
	case len(list) == 0:
		return unset
	default:
		return or(strings.Join(list, ","), unset)
	}
}
