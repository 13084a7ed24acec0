package discovery

import (
	"bytes"
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/document"
)

// encodings are those of the API's objects; the first is for clients that do not say what they accept.
var encodings = []struct {
	media  string
	encode func(runtime.Object) ([]byte, error)
}{
	{runtime.ContentTypeJSON, func(o runtime.Object) ([]byte, error) { return json.Marshal(o) }},
	{runtime.ContentTypeYAML, func(o runtime.Object) ([]byte, error) { return yaml.Marshal(o) }},
	{runtime.ContentTypeProtobuf, func(o runtime.Object) ([]byte, error) {
		var b bytes.Buffer
		err := protobuf.NewSerializer(nil, nil).Encode(o, &b)
		return b.Bytes(), err
	}},
}

// forms are an object in each encoding.
func forms(object runtime.Object, as document.Target) []document.Form {
	var all []document.Form
	for _, e := range encodings {
		body, err := e.encode(object)
		if err != nil { // documents are made of strings and lists alone
			panic(fmt.Sprintf("discovery as %s: %v", e.media, err))
		}
		all = append(all, form(e.media, as, body))
	}
	return all
}

func form(media string, as document.Target, body []byte) document.Form {
	return document.Form{Media: media, As: as, ETag: document.ETag(body), Body: func() []byte { return body }}
}
