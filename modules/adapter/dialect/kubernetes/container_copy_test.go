package kubernetes

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// packed runs the machine's own tar as a container's would be run.
func packed(t *testing.T, from source) *tar.Reader {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "tar", "-c", "-f", "-", "-C", from.folder, "--", from.base).Output()
	if err != nil {
		t.Fatal(err)
	}
	return tar.NewReader(bytes.NewReader(out))
}

// entries are the names in an archive, symbolic links with what they lead to. A second name of a file must be one of
// its first.
func entries(t *testing.T, archive *tar.Reader) string {
	t.Helper()
	var names, plain []string
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			slices.Sort(names)
			return strings.Join(names, " ")
		}
		if err != nil {
			t.Fatal(err)
		}
		name := header.Name
		switch {
		case header.Typeflag == tar.TypeSymlink:
			name += "->" + header.Linkname
		case header.Typeflag == tar.TypeLink && !slices.Contains(plain, header.Linkname):
			t.Errorf("%s is a second name of %s, which is not there", name, header.Linkname)
		}
		names, plain = append(names, name), append(plain, header.Name)
	}
}

// TestCopyNames wants the entries of an archive to be named as an engine names them, by what the caller wrote.
func TestCopyNames(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	long := strings.Repeat("n", 120)
	for _, err := range []error{
		os.MkdirAll(filepath.Join(root, "data", "sub"), 0o750),
		os.WriteFile(filepath.Join(root, "data", "-file"), []byte("hello"), 0o640),
		os.WriteFile(filepath.Join(root, "data", "sub", long), []byte("long"), 0o640),
		os.Link(filepath.Join(root, "data", "-file"), filepath.Join(root, "data", "same")),
		os.Symlink("data", filepath.Join(root, "link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{
		"data/-file": "-file",
		"data":       "data/ data/-file data/same data/sub/ data/sub/" + long,
		"data/.":     "./ ./-file ./same ./sub/ ./sub/" + long,
		"data/":      "data/ data/-file data/same data/sub/ data/sub/" + long,
		"link":       "link->data",
		"link/":      "link/ link/-file link/same link/sub/ link/sub/" + long,
	} {
		from := newSource(root + "/" + path)
		archive := packed(t, from)
		if from.prefix != "" {
			first, err := archive.Next()
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			if err := renamed(&out, archive, first, from.prefix); err != nil {
				t.Fatal(err)
			}
			archive = tar.NewReader(&out)
		}
		if got := entries(t, archive); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	if whole := newSource("/"); whole.prefix != "/" || whole.name != "/" || whole.base != "." {
		t.Errorf("%+v", whole)
	}
}

func TestCopyStat(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if err := errors.Join(os.WriteFile(filepath.Join(root, "file"), []byte("hello"), 0o640), os.Mkdir(filepath.Join(root, "dir"), 0o750),
		os.Symlink("file", filepath.Join(root, "link"))); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]neutral.FileStat{
		"file": {Name: "file", Size: 5, Mode: 0o640},
		"dir":  {Name: "dir", Mode: os.ModeDir | 0o750},
		"link": {Name: "link", Mode: os.ModeSymlink | 0o777, Target: root + "/file"},
	} {
		from := newSource(root + "/" + name)
		first, err := packed(t, from).Next()
		if err != nil {
			t.Fatal(err)
		}
		got := from.stat(first)
		if got.Modified.IsZero() {
			t.Errorf("%s: no time", name)
		}
		got.Modified = want.Modified
		if got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

// TestTarFaults reads what GNU's and busybox' tar say.
func TestTarFaults(t *testing.T) {
	t.Parallel()
	a := &action{op: neutral.Operation{Ref: "web", Copy: &neutral.CopyOptions{Path: "/nope"}}}
	for said, want := range map[string]fault.Kind{
		"tar: /nope: Cannot open: No such file or directory\ntar: Error is not recoverable: exiting now": fault.NotFound,
		"tar: nope: No such file or directory\ntar: error exit delayed from previous errors":             fault.NotFound,
		"tar: can't change directory to '/nope': No such file or directory":                              fault.NotFound,
		"tar: /etc/hosts: Cannot open: Not a directory":                                                  fault.NotFound,
		"tar: can't open 'x': Permission denied":                                                         fault.Conflict,
		"tar: can't create directory 'x': Read-only file system":                                         fault.Denied,
		"tar: invalid tar magic": fault.Internal,
		"":                       fault.Internal,
	} {
		if f := fault.Of(a.tarFault(said)); f.Kind != want || want == fault.NotFound &&
			f.Message != "Could not find the file /nope in container web" {
			t.Errorf("%q: %v %q", said, f.Kind, f.Message)
		}
	}
	if !changedOnly("tar: ./log: file changed as we read it\n") || changedOnly("") || changedOnly("tar: x: Cannot open\n") {
		t.Error("a warning and a failure are taken for each other")
	}
}

// TestCopyBroken holds that a packed archive that breaks off, or is not what its sum says, is not taken for a whole one.
func TestCopyBroken(t *testing.T) {
	t.Parallel()
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	_, err := w.Write([]byte(strings.Repeat("hello", 1000)))
	if errors.Join(err, w.Close()) != nil {
		t.Fatal("gzip")
	}
	whole := zipped.Bytes()
	other := bytes.Clone(whole)
	other[len(other)-5] ^= 1
	for name, data := range map[string][]byte{"whole": whole, "cut": whole[:len(whole)-10], "another sum": other, "plain": []byte("hello")} {
		plain, err := unpressed(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		archive := &intact{from: plain}
		_, _ = io.Copy(io.Discard, archive) // as whoever feeds a tar, who tells it of nothing but an end
		good := name == "whole" || name == "plain"
		if err := archive.broken(); good != (err == nil) || !good && !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzUnpressed opens what callers send: what comes out is what was packed, or a fault.
func FuzzUnpressed(f *testing.F) {
	f.Add([]byte("plain"))
	f.Add([]byte{0x1f, 0x8b, 0})
	f.Add([]byte("BZh9"))
	f.Add([]byte("\xfd7zXZ\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		plain, err := unpressed(bytes.NewReader(data))
		if err != nil {
			if k := fault.Of(err).Kind; k != fault.Invalid && k != fault.Unsupported {
				t.Errorf("%v", err)
			}
		} else {
			_, _ = io.CopyN(io.Discard, plain, 1<<20) // a broken archive is tar's to refuse
		}
		var zipped bytes.Buffer
		w := gzip.NewWriter(&zipped)
		_, werr := w.Write(data)
		if errors.Join(werr, w.Close()) != nil {
			t.Fatal("gzip")
		}
		if plain, err = unpressed(&zipped); err != nil {
			t.Fatal(err)
		}
		if back, err := io.ReadAll(plain); err != nil || !bytes.Equal(back, data) {
			t.Errorf("%q came back as %q: %v", data, back, err)
		}
	})
}
