package kubernetes

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func TestOrigin(t *testing.T) {
	t.Parallel()
	noise := make([]byte, 200<<10)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	for name, c := range map[string]struct {
		spec []byte
		kept bool
	}{
		"empty": {nil, true}, "short": {[]byte(`{"a":"b:c"}`), true},
		"long": {[]byte(strings.Repeat(`{"a":"b"}`, 10000)), true}, "incompressible": {noise, false},
	} {
		text, kept := originAnnotation(&neutral.Origin{Dialect: neutral.Docker, Spec: c.spec})
		if kept != c.kept {
			t.Errorf("%s: kept %v", name, kept)
		}
		if !kept {
			continue
		}
		back, err := parseOrigin(text)
		if err != nil || back.Dialect != neutral.Docker || !bytes.Equal(back.Spec, c.spec) {
			t.Errorf("%s: %v comes back as %v, %v", name, c.spec, back, err)
		}
	}
}

func FuzzParseOrigin(f *testing.F) {
	long, _ := originAnnotation(&neutral.Origin{Dialect: neutral.Docker, Spec: []byte(strings.Repeat("x", 5000))})
	for _, seed := range []string{"", "docker", "docker:plain:{}", "docker:gzip:AAAA", "docker:other:x", long} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		origin, err := parseOrigin(text)
		if (origin == nil) == (err == nil) {
			t.Errorf("parseOrigin(%q) = %v, %v", text, origin, err)
		}
		if origin != nil && len(origin.Spec) > originReadLimit {
			t.Errorf("%d bytes come out of an annotation", len(origin.Spec))
		}
	})
}
