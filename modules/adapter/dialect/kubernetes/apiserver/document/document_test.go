package document_test

import (
	"net/http"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes/apiserver/document"
)

func form(media, body string, also ...string) document.Form {
	return document.Form{Media: media, Also: also, ETag: document.ETag([]byte(body)), Body: func() []byte { return []byte(body) }}
}

func TestChoice(t *testing.T) {
	t.Parallel()
	d := document.Document{Forms: []document.Form{form("application/json", "{}"), form("application/new+protobuf", "p", "application/old@1+protobuf")}}
	for accept, want := range map[string]string{
		"":                         "application/json",
		"*/*":                      "application/json",
		"application/*":            "application/json",
		"text/*, */*;q=0.1":        "application/json",
		"APPLICATION/JSON":         "application/json",
		"application/new+protobuf": "application/new+protobuf",
		"application/old@1+protobuf, application/json": "application/new+protobuf",
		"application/json;q=0, application/*;q=0.5":    "application/json", // a zero is of its own clause alone
		"text/plain":             "",
		"*/json":                 "",
		"application/json;v=v1":  "",
		"application/json;q=0.0": "",
	} {
		answer := d.Answer(http.Header{"Accept": {accept}})
		if want == "" {
			if answer.Status != http.StatusNotAcceptable {
				t.Errorf("%q: %d %v", accept, answer.Status, answer.Header)
			}
			continue
		}
		if answer.Status != http.StatusOK || answer.Header.Get("Content-Type") != want || answer.Header.Get("Vary") != "Accept" {
			t.Errorf("%q: %d %v", accept, answer.Status, answer.Header)
		}
	}
	two := d.Answer(http.Header{"Accept": {"text/plain", "application/new+protobuf"}})
	if string(two.Body) != "p" {
		t.Errorf("two lines of Accept: %d %s", two.Status, two.Body)
	}
	d.Always = true
	if answer := d.Answer(http.Header{"Accept": {"text/plain"}}); string(answer.Body) != "{}" {
		t.Errorf("always: %d %s", answer.Status, answer.Body)
	}
}

// TestOwnHeader changes the header of one answer, and finds the next as it was.
func TestOwnHeader(t *testing.T) {
	t.Parallel()
	d := document.Document{Forms: []document.Form{form("application/json", "{}")}}
	d.Answer(nil).Header.Set("Cache-Control", "public")
	if got := d.Answer(nil).Header.Get("Cache-Control"); got != "no-cache, private" {
		t.Errorf("Cache-Control is %q", got)
	}
}
