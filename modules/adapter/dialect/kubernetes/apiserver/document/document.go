// Package document answers with documents that are the same for every caller and never change: in the form that the
// client likes best, and without a body if the client has it already.
package document

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/munnerz/goautoneg"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
)

// Document is what one path is answered with.
type Document struct {
	Forms  []Form // the first is for clients that do not say what they accept
	Always bool   // the first, whatever the client accepts
}

// Form is one encoding of a document.
type Form struct {
	Media string   // its media type
	Also  []string // older names of it, which are understood and not used
	As    Target
	ETag  string
	Body  func() []byte // may be asked at the same time by many
}

// Target is the kind that a client asks an object to be given as, by parameters of the media type. It is empty for the
// object as it is.
type Target struct{ Group, Version, Kind string }

// ETag is the entity tag of a body.
func ETag(body []byte) string { return strconv.Quote(Hash(body)) }

// Hash tells bodies apart.
func Hash(body []byte) string {
	sum := sha256.Sum256(body)
	return strings.ToUpper(hex.EncodeToString(sum[:]))
}

// Header is what answers have that must be asked for again each time.
func Header() http.Header {
	return http.Header{"Cache-Control": {"no-cache, private"}, "X-Content-Type-Options": {"nosniff"}}
}

// contentType names the form as clients compare it: the parameters tell one kind from another.
func (f Form) contentType() string {
	if f.As == (Target{}) {
		return f.Media
	}
	return f.Media + ";g=" + f.As.Group + ";v=" + f.As.Version + ";as=" + f.As.Kind
}

// Answer is that to a GET with a header.
func (d Document) Answer(header http.Header) dialect.Response {
	f, ok := d.choose(header.Values("Accept"))
	if !ok {
		return d.notAcceptable()
	}
	answer := Header()
	answer["Etag"], answer["Vary"] = []string{f.ETag}, []string{"Accept"}
	if matches(header.Values("If-None-Match"), f.ETag) {
		return dialect.Response{Status: http.StatusNotModified, Header: answer}
	}
	answer["Content-Type"] = []string{f.contentType()}
	return dialect.Response{Status: http.StatusOK, Header: answer, Body: f.Body()}
}

func (d Document) choose(accept []string) (Form, bool) {
	line := strings.Join(accept, ",")
	if line == "" || d.Always {
		return d.Forms[0], true
	}
	for _, clause := range goautoneg.ParseAccept(line) {
		if clause.Q == 0 {
			continue
		}
		as := Target{clause.Params["g"], clause.Params["v"], clause.Params["as"]}
		for _, f := range d.Forms {
			if f.As == as && f.covered(clause) {
				return f, true
			}
		}
	}
	return Form{}, false
}

// covered tells whether a clause of an Accept header, which may have wildcards, means a form.
func (f Form) covered(clause goautoneg.Accept) bool {
	kind, _, _ := strings.Cut(f.Media, "/")
	switch {
	case clause.Type == "*":
		return clause.SubType == "*"
	case clause.SubType == "*":
		return strings.EqualFold(clause.Type, kind)
	}
	named := clause.Type + "/" + clause.SubType
	for _, media := range append([]string{f.Media}, f.Also...) {
		if strings.EqualFold(named, media) {
			return true
		}
	}
	return false
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

func (d Document) notAcceptable() dialect.Response {
	media := map[string]bool{}
	var list []string
	for _, f := range d.Forms {
		if !media[f.Media] {
			media[f.Media] = true
			list = append(list, f.Media)
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
	if err != nil { // strings alone cannot fail to marshal
		panic(fmt.Sprintf("status: %v", err))
	}
	header := Header()
	header["Content-Type"] = []string{runtime.ContentTypeJSON}
	return dialect.Response{Status: http.StatusNotAcceptable, Header: header, Body: body}
}
