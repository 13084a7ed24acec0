// Package discovery answers what clients ask first: which groups, versions and resources there are, and which release of
// the API this is.
package discovery

import (
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/document"
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
	return d.Answer(header), true
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
var documents = sync.OnceValue(func() map[string]*document.Document {
	all := map[string]*document.Document{"/version": versionDocument()}
	groups := groupsOf(served())
	for path, object := range legacy(groups) {
		all[path] = &document.Document{Forms: forms(object, document.Target{})}
	}
	for path, list := range aggregated(groups) {
		all[path].Forms = append(all[path].Forms, forms(list, aggregatedV2)...)
		all[path].Forms = append(all[path].Forms, forms(toV2beta1(list), aggregatedV2beta1)...)
	}
	return all
})
