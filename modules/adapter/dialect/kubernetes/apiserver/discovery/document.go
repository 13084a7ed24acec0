package discovery

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"

	"github.com/munnerz/goautoneg"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
)

// document is what one path is answered with, in all its forms.
type document struct {
	forms  []form
	always bool // the first form, whatever the client accepts
}

// form is a document in one encoding.
type form struct {
	encoding encoding
	as       target
	etag     string
	body     []byte
}

// target is the kind that a client asks a document to be given as, by parameters of the media type. It is empty for the
// document as it is.
type target struct{ group, version, kind string }

// encoding is one of the API's.
type encoding struct {
	media  string
	encode func(runtime.Object) ([]byte, error)
}

var encodings = []encoding{
	{runtime.ContentTypeJSON, func(o runtime.Object) ([]byte, error) { return json.Marshal(o) }},
	{runtime.ContentTypeYAML, func(o runtime.Object) ([]byte, error) { return yaml.Marshal(o) }},
	{runtime.ContentTypeProtobuf, func(o runtime.Object) ([]byte, error) {
		var b bytes.Buffer
		err := protobuf.NewSerializer(nil, nil).Encode(o, &b)
		return b.Bytes(), err
	}},
}

func newForm(e encoding, as target, object runtime.Object) form {
	body, err := e.encode(object)
	if err != nil { // documents are made of strings and lists alone
		panic(fmt.Sprintf("discovery as %s: %v", e.media, err))
	}
	sum := sha256.Sum256(body)
	return form{encoding: e, as: as, etag: strconv.Quote(strings.ToUpper(hex.EncodeToString(sum[:]))), body: body}
}

// contentType names the form as clients compare it: the parameters tell the aggregated document from the plain one.
func (f form) contentType() string {
	if f.as == (target{}) {
		return f.encoding.media
	}
	return f.encoding.media + ";g=" + f.as.group + ";v=" + f.as.version + ";as=" + f.as.kind
}

// answer chooses the form that the client likes best, and spares the body if the client has it.
func (d *document) answer(header http.Header) dialect.Response {
	f, ok := d.choose(header.Values("Accept"))
	if !ok {
		return d.notAcceptable()
	}
	answer := http.Header{
		"Cache-Control":          {"no-cache, private"},
		"Content-Type":           {f.contentType()},
		"Etag":                   {f.etag},
		"Vary":                   {"Accept"},
		"X-Content-Type-Options": {"nosniff"},
	}
	if matches(header.Values("If-None-Match"), f.etag) {
		delete(answer, "Content-Type")
		return dialect.Response{Status: http.StatusNotModified, Header: answer}
	}
	return dialect.Response{Status: http.StatusOK, Header: answer, Body: f.body}
}

func (d *document) choose(accept []string) (form, bool) {
	line := strings.Join(accept, ",")
	if line == "" || d.always {
		return d.forms[0], true
	}
	for _, clause := range goautoneg.ParseAccept(line) {
		if clause.Q == 0 {
			continue
		}
		as := target{clause.Params["g"], clause.Params["v"], clause.Params["as"]}
		for _, f := range d.forms {
			if f.as == as && covers(clause, f.encoding.media) {
				return f, true
			}
		}
	}
	return form{}, false
}

// covers tells whether a clause of an Accept header, which may have wildcards, means a media type.
func covers(clause goautoneg.Accept, media string) bool {
	kind, sub, _ := strings.Cut(media, "/")
	if clause.Type == "*" {
		return clause.SubType == "*"
	}
	return strings.EqualFold(clause.Type, kind) && (clause.SubType == "*" || strings.EqualFold(clause.SubType, sub))
}

// matches tells whether an If-None-Match names an ETag; comparison is weak, as for a GET it is.
func matches(values []string, etag string) bool {
	for _, value := range values {
		for one := range strings.SplitSeq(value, ",") {
			one = strings.TrimPrefix(strings.TrimSpace(one), "W/")
			if one == etag || one == "*" {
				return true
			}
		}
	}
	return false
}

func (d *document) notAcceptable() dialect.Response {
	media := map[string]bool{}
	var list []string
	for _, f := range d.forms {
		if !media[f.encoding.media] {
			media[f.encoding.media] = true
			list = append(list, f.encoding.media)
		}
	}
	status := metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure,
		Message:  "the request accepts no media type of this answer; there are " + strings.Join(list, ", "),
		Reason:   metav1.StatusReasonNotAcceptable,
		Code:     http.StatusNotAcceptable,
	}
	body, err := json.Marshal(status)
	if err != nil {
		panic(fmt.Sprintf("status: %v", err))
	}
	header := maps.Clone(plain)
	header["Content-Type"] = []string{runtime.ContentTypeJSON}
	return dialect.Response{Status: http.StatusNotAcceptable, Header: header, Body: body}
}

// plain is the header of answers that are not kept.
var plain = http.Header{"Cache-Control": {"no-cache, private"}, "X-Content-Type-Options": {"nosniff"}}
