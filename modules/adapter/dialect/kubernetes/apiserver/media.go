package apiserver

import (
	"mime"
	"net/http"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes/scheme"
)

// codecs are the forms of a body: JSON, YAML and protobuf.
var codecs = serializer.NewCodecFactory(scheme.Scheme)

const mediaJSON = "application/json"

// form is how a caller wants its answer.
type form struct {
	runtime.SerializerInfo
	as string // "Table", "PartialObjectMetadata" or its list; "" is the object itself
}

// formOf picks the first form of an Accept header that is served, as the caller ordered them: clients of the API put no
// weights. ok false is 406.
func formOf(accept string, stream bool) (f form, ok bool) {
	if accept == "" {
		accept = mediaJSON
	}
	for clause := range strings.SplitSeq(accept, ",") {
		media, parameters, err := mime.ParseMediaType(strings.TrimSpace(clause))
		if err != nil {
			continue
		}
		if media == "*/*" || media == "application/*" {
			media = mediaJSON
		}
		info, found := runtime.SerializerInfoForMediaType(codecs.SupportedMediaTypes(), media)
		if !found || stream && info.StreamSerializer == nil {
			continue
		}
		f = form{SerializerInfo: info}
		switch as := parameters["as"]; as {
		case "":
		case "Table", "PartialObjectMetadata", "PartialObjectMetadataList":
			if parameters["g"] != metav1.GroupName || !slices.Contains([]string{"v1", "v1beta1"}, parameters["v"]) {
				continue
			}
			f.as = as
		default:
			continue
		}
		return f, true
	}
	return form{}, false
}

// kindOf sets what an object says of its own kind, which objects that are kept do not.
func named(object runtime.Object, kind schema.GroupVersionKind) runtime.Object {
	object.GetObjectKind().SetGroupVersionKind(kind)
	return object
}

// metadata is an object without all but its metadata.
func metadata(object runtime.Object) (*metav1.PartialObjectMetadata, error) {
	accessor, err := meta.Accessor(object)
	if err != nil {
		return nil, err
	}
	partial := meta.AsPartialObjectMetadata(accessor)
	partial.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("PartialObjectMetadata"))
	return partial, nil
}

// decode reads a body into an object, by its Content-Type. With strict, problems are fields that are unknown or there twice.
func decode(header http.Header, body []byte, into runtime.Object, kind schema.GroupVersionKind, strict bool) (problems []string, err error) {
	media := header.Get("Content-Type")
	if media == "" {
		media = mediaJSON
	}
	media, _, err = mime.ParseMediaType(media)
	if err != nil {
		return nil, errMedia
	}
	info, ok := runtime.SerializerInfoForMediaType(codecs.SupportedMediaTypes(), media)
	if !ok {
		return nil, errMedia
	}
	decoder := info.Serializer
	if strict && info.StrictSerializer != nil {
		decoder = info.StrictSerializer
	}
	_, actual, err := decoder.Decode(body, &kind, into)
	if wrong, ok := runtime.AsStrictDecodingError(err); ok {
		for _, problem := range wrong.Errors() {
			problems = append(problems, problem.Error())
		}
		err = nil
	}
	if err != nil {
		return nil, err
	}
	if actual != nil && *actual != kind {
		return nil, kindError{want: kind, got: *actual}
	}
	return problems, nil
}
