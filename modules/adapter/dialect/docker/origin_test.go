package docker

import (
	"bytes"
	"compress/flate"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func TestOrigin(t *testing.T) {
	t.Parallel()
	labels := map[string]string{"app": "web"}
	origin := &neutral.Origin{Dialect: neutral.Kubernetes, Spec: []byte(strings.Repeat("spec ", 5000)), Peer: "east"}
	losses := []neutral.Loss{{Field: "a", Change: "dropped", Reason: "b"}}
	if more := keepBeside(labels, origin, "other", losses); len(more) > 0 {
		t.Errorf("losses %v", more)
	}
	if size := len(labels[labelOrigin]); size > 1000 {
		t.Errorf("the label has %d bytes", size)
	}
	want := beside{labels: map[string]string{"app": "web"}, origin: origin, losses: losses}
	if diff := cmp.Diff(want, readBeside(labels), cmp.AllowUnexported(beside{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	noise := make([]byte, 200<<10)
	state := uint32(1)
	for i := range noise {
		state = state*1664525 + 1013904223
		noise[i] = byte(state >> 24)
	}
	labels = map[string]string{}
	if more := keepBeside(labels, &neutral.Origin{Dialect: neutral.Kubernetes, Spec: noise}, "", nil); len(more) != 1 || labels[labelOrigin] != "" {
		t.Errorf("a document that is too long is kept: %v", more)
	}
	kept, losses := callersLabels("labels", map[string]string{"a": "b", labelOrigin: "x", labelOriginPeer: "y", labelLosses: "z"})
	if diff := cmp.Diff(map[string]string{"a": "b"}, kept); diff != "" || len(losses) != 3 {
		t.Errorf("%v, losses %v", kept, losses)
	}
}

// What somebody wrote into the labels by hand is no document.
func TestOriginOfOthers(t *testing.T) {
	t.Parallel()
	var bomb bytes.Buffer
	w, err := flate.NewWriter(&bomb, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, originReadLimit+1)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"x", "kubernetes:plain:{}", ":deflate:", "kubernetes:deflate:!", "kubernetes:deflate:AAAA",
		"kubernetes:deflate:" + base64.RawStdEncoding.EncodeToString(bomb.Bytes()), "kubernetes:deflate:" + strings.Repeat("A", originLimit)} {
		b := readBeside(map[string]string{labelOrigin: text, labelLosses: "{"})
		if b.origin != nil || b.losses != nil || len(b.labels) != 0 {
			t.Errorf("%.40s is %+v", text, b)
		}
	}
}

func FuzzOrigin(f *testing.F) {
	text, _ := originLabel(&neutral.Origin{Dialect: neutral.Kubernetes, Spec: []byte(`{"kind":"Pod"}`)})
	f.Add(text)
	f.Add("kubernetes:deflate:")
	f.Add("docker:deflate:AAAA")
	f.Fuzz(func(t *testing.T, text string) {
		origin, err := parseOrigin(text)
		if err != nil {
			return
		}
		if len(origin.Spec) > originReadLimit {
			t.Fatalf("%d bytes", len(origin.Spec))
		}
		if again, ok := originLabel(origin); ok {
			if back, err := parseOrigin(again); err != nil || !bytes.Equal(back.Spec, origin.Spec) || back.Dialect != origin.Dialect {
				t.Fatalf("%q: %v", again, err)
			}
		}
	})
}
