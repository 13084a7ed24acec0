// Package discovery answers what clients ask first: which groups, versions and resources there are, and which release of
// the API this is.
package discovery

import (
	"net/http"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
)

// Answer gives what is answered to a GET of path, which may have a query, and whether path is one of discovery's. Answers
// are the same for every caller, and name no address. The body of an answer must not be changed.
func Answer(path string, header http.Header) (dialect.Response, bool) {
	path, _, _ = strings.Cut(path, "?")
	if len(path) > 1 {
		path = strings.TrimSuffix(path, "/")
	}
	d, ok := documents()[path]
	if !ok {
		return dialect.Response{}, false
	}
	return d.answer(header), true
}

// Paths are those that Answer knows, sorted.
func Paths() []string {
	var paths []string
	for path := range documents() {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return paths
}

// documents are made when the first is asked for, and never change.
var documents = sync.OnceValue(func() map[string]*document {
	all := map[string]*document{"/version": versionDocument()}
	groups := groupsOf(served())
	for path, object := range legacy(groups) {
		all[path] = &document{forms: forms(object, target{})}
	}
	for path, list := range aggregated(groups) {
		all[path].forms = append(all[path].forms, forms(list, aggregatedV2)...)
		all[path].forms = append(all[path].forms, forms(toV2beta1(list), aggregatedV2beta1)...)
	}
	return all
})

// forms are an object in each encoding of the API; the first is for clients that do not say what they accept.
func forms(object runtime.Object, as target) []form {
	var all []form
	for _, e := range encodings {
		all = append(all, newForm(e, as, object))
	}
	return all
}
