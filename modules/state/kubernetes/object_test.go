package kubernetes

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/isthmus-mesh/isthmus/modules/state"
)

// What an object was made of can be read from it, as the API gives it back: secrets in no field that others read.
func FuzzObject(f *testing.F) {
	for _, value := range []string{"", "text", "\x00\xff", "ä\u2028\u2029<>&", `{"a": 1}`, "\ufffd"} {
		f.Add([]byte(value), false)
		f.Add([]byte(value), true)
	}
	f.Fuzz(func(t *testing.T, value []byte, secret bool) {
		h := &Home{config: Config{Gateway: "east", Namespace: "n"}}
		r := state.Record{Key: state.Kind{Name: "k", File: "*", Secret: secret}.Key("x"), Value: value, Revision: "7"}
		text, err := json.Marshal(h.object(r).Object)
		if err != nil {
			t.Fatal(err)
		}
		var u unstructured.Unstructured
		if err := json.Unmarshal(text, &u.Object); err != nil {
			t.Fatal(err)
		}
		read, err := record(r.Key, &u)
		if err != nil || !bytes.Equal(read.Value, value) || read.Revision != "7" {
			t.Fatalf("%q became %q, %v", value, read.Value, err)
		}
		if _, readable, _ := unstructured.NestedString(u.Object, "spec", "text"); readable != (!secret && utf8.Valid(value)) {
			t.Errorf("spec.text is there: %v", readable)
		}
	})
}

// An object that somebody else wrote is an error at worst.
func FuzzForeignObject(f *testing.F) {
	f.Add([]byte(`{"metadata":{"resourceVersion":"1"},"spec":{"text":"x"}}`), false)
	f.Add([]byte(`{"spec":{"data":"!"}}`), false)
	f.Add([]byte(`{"spec":7,"data":{"value":"eA=="}}`), true)
	f.Fuzz(func(t *testing.T, text []byte, secret bool) {
		var u unstructured.Unstructured
		if json.Unmarshal(text, &u.Object) != nil {
			return
		}
		key := state.Kind{Name: "k", File: "*", Secret: secret}.Key("x")
		r, err := record(key, &u)
		if err == nil && r.Key != key {
			t.Errorf("%+v", r)
		}
	})
}
