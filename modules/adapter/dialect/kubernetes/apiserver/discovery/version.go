package discovery

import (
	"encoding/json"
	"fmt"
	goruntime "runtime"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/version"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/document"
)

// Release of Kubernetes whose API this is: what is served behaves as that release's API server does, and the clients of
// that release are what it is tested with. Clients compare the minor version with their own, and tell of a difference of
// more than one.
const (
	Major = "1"
	Minor = "34"
)

// Version is what /version tells. What stands behind the plus sign is no part of the order of versions.
func Version() version.Info {
	return version.Info{
		Major:        Major,
		Minor:        Minor,
		GitVersion:   "v" + Major + "." + Minor + ".0+isthmus",
		GitTreeState: "clean",
		BuildDate:    "1970-01-01T00:00:00Z", // what builds of Kubernetes say that are not stamped
		GoVersion:    goruntime.Version(),
		Compiler:     goruntime.Compiler,
		Platform:     goruntime.GOOS + "/" + goruntime.GOARCH,
	}
}

// versionDocument is JSON always: it is no object of the API.
func versionDocument() *document.Document {
	body, err := json.Marshal(Version())
	if err != nil { // strings alone cannot fail to marshal
		panic(fmt.Sprintf("version: %v", err))
	}
	return &document.Document{Forms: []document.Form{form(runtime.ContentTypeJSON, document.Target{}, body)}, Always: true}
}
