// Package openapi describes the API that is served in the two versions of OpenAPI that clients read: kubectl explains
// fields by it, checks manifests, and learns which parameters of requests are understood.
package openapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	openapiv2 "github.com/google/gnostic-models/openapiv2"
	openapiv3 "github.com/google/gnostic-models/openapiv3"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/discovery"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/document"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/resource"
)

// Documents live below these paths.
const (
	pathV2 = "/openapi/v2"
	pathV3 = "/openapi/v3"
)

// Answer gives what is answered to a GET of path, which may have a query, and whether path is that of a document. Answers
// are the same for every caller. The body of an answer must not be changed.
func Answer(path string, header http.Header) (dialect.Response, bool) {
	path, query, _ := strings.Cut(path, "?")
	d, ok := served()[strings.TrimSuffix(path, "/")]
	if !ok {
		return dialect.Response{}, false
	}
	if d.hash == "" {
		return d.Answer(header), true
	}
	switch asked := hashOf(query); asked {
	case "":
		return d.Answer(header), true
	case d.hash: // what is named by its hash is never another
		answer := d.Answer(header)
		if answer.Status == http.StatusOK || answer.Status == http.StatusNotModified {
			answer.Header.Set("Cache-Control", "private, immutable, max-age=31536000")
		}
		return answer, true
	default:
		answer := document.Header()
		answer.Set("Location", d.location(path))
		return dialect.Response{Status: http.StatusMovedPermanently, Header: answer}, true
	}
}

// Paths are those of the documents of each group and version, sorted.
func Paths() []string {
	var all []string
	for path, d := range served() {
		if d.hash != "" {
			all = append(all, path)
		}
	}
	slices.Sort(all)
	return all
}

// hashOf finds the hash in a query. No other parameter matters.
func hashOf(query string) string {
	for pair := range strings.SplitSeq(query, "&") {
		if value, ok := strings.CutPrefix(pair, "hash="); ok {
			return value
		}
	}
	return ""
}

// hashed is a document, and the hash that its path may have.
type hashed struct {
	document.Document
	hash string
}

func (d hashed) location(path string) string { return path + "?hash=" + d.hash }

// served are the documents by their paths. They are made when the first is asked for; each in protobuf when that is.
var served = sync.OnceValue(func() map[string]hashed {
	all := map[string]hashed{}
	resources := slices.Concat(resource.All, resource.Reviews)
	v2 := encode(newBuilder(2).document(resources))
	all[pathV2] = hashed{Document: document.Document{Forms: []document.Form{
		form(runtime.ContentTypeJSON, v2, nil),
		form("application/com.github.proto-openapi.spec.v2.v1.0+protobuf", v2, protobufV2, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"),
	}}}
	index := map[string]any{}
	for _, gv := range versions(resources) {
		of := slices.DeleteFunc(slices.Clone(resources), func(r resource.Resource) bool { return r.GroupVersion() != gv })
		path := strings.TrimPrefix(prefix(gv), "/")
		v3 := encode(newBuilder(3).document(of))
		d := hashed{hash: document.Hash(v3), Document: document.Document{Forms: []document.Form{
			form(runtime.ContentTypeJSON, v3, nil),
			form("application/com.github.proto-openapi.spec.v3.v1.0+protobuf", v3, protobufV3, "application/com.github.proto-openapi.spec.v3@v1.0+protobuf"),
		}}}
		all[pathV3+"/"+path] = d
		index[path] = node{"serverRelativeURL": d.location(pathV3 + "/" + path)}
	}
	all[pathV3] = hashed{Document: document.Document{Forms: []document.Form{form(runtime.ContentTypeJSON, encode(node{"paths": index}), nil)}, Always: true}}
	return all
})

func versions(resources []resource.Resource) []schema.GroupVersion {
	var all []schema.GroupVersion
	for _, r := range resources {
		if !slices.Contains(all, r.GroupVersion()) {
			all = append(all, r.GroupVersion())
		}
	}
	return all
}

// prefix is the path that a version of a group has.
func prefix(gv schema.GroupVersion) string {
	if gv.Group == "" {
		return "/api/" + gv.Version
	}
	return "/apis/" + gv.Group + "/" + gv.Version
}

// form is a document as JSON, or as what convert makes of that.
func form(media string, text []byte, convert func([]byte) ([]byte, error), also ...string) document.Form {
	f := document.Form{Media: media, Also: also, ETag: document.ETag(text), Body: func() []byte { return text }}
	if convert != nil {
		f.ETag = document.ETag(append(slices.Clone(text), media...))
		f.Body = sync.OnceValue(func() []byte { return must(convert(text)) })
	}
	return f
}

// The two other forms are made of the JSON, by the library that clients read them with.

func protobufV2(text []byte) ([]byte, error) {
	d, err := openapiv2.ParseDocument(text)
	if err != nil {
		return nil, err
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(d)
}

func protobufV3(text []byte) ([]byte, error) {
	d, err := openapiv3.ParseDocument(text)
	if err != nil {
		return nil, err
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(d)
}

func encode(n node) []byte { return must(json.Marshal(n)) }

// must stops the program at what only a fault of this package can make: its input is the list of resources and the types
// of the API. A test makes every document in every form.
func must(b []byte, err error) []byte {
	if err != nil {
		panic(fmt.Sprintf("openapi: %v", err))
	}
	return b
}

// document describes resources.
func (b *builder) document(resources []resource.Resource) node {
	paths := node{}
	for _, r := range resources {
		b.addPaths(paths, r)
	}
	info := node{"title": "Kubernetes", "version": discovery.Version().GitVersion}
	if b.version == 2 {
		return node{"swagger": "2.0", "info": info, "paths": paths, "definitions": b.definitions}
	}
	return node{"openapi": "3.0.0", "info": info, "paths": paths, "components": node{"schemas": b.definitions}}
}
