package kubernetes

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestExported(t *testing.T) {
	t.Parallel()
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	for _, h := range []tar.Header{
		{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "./.hidden", Typeflag: tar.TypeReg, Mode: 0o600},
		{Name: "./etc/", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "./etc/hosts", Typeflag: tar.TypeReg, Mode: 0o644},
		{Name: "./etc/key", Typeflag: tar.TypeReg, Mode: 0o400}, {Name: "./bin/a", Typeflag: tar.TypeReg, Mode: 0o755},
		{Name: "./bin/b", Typeflag: tar.TypeLink, Linkname: "./bin/a"}, {Name: "./bin/c", Typeflag: tar.TypeSymlink, Linkname: "./a"},
	} {
		content := ""
		if h.Typeflag == tar.TypeReg {
			content = "10.0.0.1 " + h.Name
		}
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	reader := tar.NewReader(&packed)
	first, err := reader.Next()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := exported(&out, reader, first, []string{"/etc/key"}); err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for reader := tar.NewReader(&out); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&got, "%s %q %q\n", header.Name, header.Linkname, data)
	}
	want := `.hidden "" "10.0.0.1 ./.hidden"
etc/ "" ""
etc/hosts "" ""
etc/key "" ""
bin/a "" "10.0.0.1 ./bin/a"
bin/b "bin/a" ""
bin/c "./a" ""
`
	if got.String() != want {
		t.Errorf("got\n%s", got.String())
	}
}

func TestExcludedOfAnExport(t *testing.T) {
	t.Parallel()
	pod := newPod("web", "10.0.0.5")
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{MountPath: "/data/"}, {MountPath: "/a[1]*"}}
	if got := strings.Join(excluded(&located{pod: pod}), " "); got != `./proc/* ./sys/* ./dev/* ./data/* ./a\[1]\*/*` {
		t.Errorf("left out is %s", got)
	}
}
