package sdk

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// target is what the scripts of e2e say: DOCKER_HOST is what all these clients read by themselves.
var target = struct {
	image  string // an image that is there
	prefix string // what names begin with
	engine bool   // it is a Docker engine, not Kubernetes behind two gateways
}{os.Getenv("IMAGE"), os.Getenv("ID"), os.Getenv("ENGINE") == "docker"}

func TestMain(m *testing.M) {
	if os.Getenv("DOCKER_HOST") == "" || target.image == "" || target.prefix == "" {
		fmt.Fprintln(os.Stderr, "DOCKER_HOST, IMAGE and ID are not all set; TestSDK of e2e runs this")
		os.Exit(2)
	}
	os.Exit(m.Run())
}

// named is a name of this run.
func named(name string) string { return target.prefix + "-" + name }

// refused holds for what Kubernetes cannot do: an engine does it, and through the gateways the error names the reason.
func refused(t *testing.T, what string, err error, reason string) {
	t.Helper()
	switch {
	case target.engine && err != nil:
		t.Errorf("%s: %v", what, err)
	case !target.engine && (err == nil || !strings.Contains(err.Error(), reason)):
		t.Errorf("%s: %v, and not a refusal with %q", what, err, reason)
	}
}

// fails holds for what must fail anywhere.
func fails(t *testing.T, what string, err error, reason string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), reason) {
		t.Errorf("%s: %v, and not an error with %q", what, err, reason)
	}
}

func succeeds(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s is %v, and not %v", what, got, want)
	}
}

// stopped tells whether a container that was stopped ended with the code of its trap, or was killed because it had been
// started a moment before and had none yet.
func stopped(code, trap int) bool { return code == trap || code == 137 }

// soon waits until something holds.
func soon(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

// heard is what came on the two streams. Kubernetes keeps one log, in which stderr is part of stdout.
func heard(t *testing.T, what, stdout, stderr, wantOut, wantErr string) {
	t.Helper()
	if !target.engine {
		wantOut, wantErr = wantOut+wantErr, ""
	}
	if stdout != wantOut || stderr != wantErr {
		t.Errorf("%s: stdout %q, stderr %q", what, stdout, stderr)
	}
}

// archive is one file.
func archive(name, content string) io.Reader {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	_ = w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))})
	_, _ = io.WriteString(w, content)
	_ = w.Close()
	return &b
}

// unpacked are the files of an archive.
func unpacked(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	files := map[string]string{}
	for archive := tar.NewReader(r); ; {
		head, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		must(t, "read an archive", err)
		data, err := io.ReadAll(archive)
		must(t, "read an archive", err)
		files[head.Name] = string(data)
	}
}
