package testbed

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

const (
	pauseImage = "isthmus.local/pause:1"
	// imageFormat changes when the images are made differently.
	imageFormat = "1"
)

// imageEpoch makes images of the same content identical on every machine.
var imageEpoch = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// layer is the file system of an image as a tar archive.
type layer struct {
	buffer bytes.Buffer
	writer *tar.Writer
	err    error
}

func newLayer() *layer {
	l := &layer{}
	l.writer = tar.NewWriter(&l.buffer)
	return l
}

func (l *layer) add(header tar.Header, content []byte) {
	header.ModTime, header.Size = imageEpoch, int64(len(content))
	if l.err == nil {
		l.err = l.writer.WriteHeader(&header)
	}
	if l.err == nil {
		_, l.err = l.writer.Write(content)
	}
}

func (l *layer) dir(name string, mode int64) { l.ownedDir(name, mode, 0) }

// ownedDir is a folder of a user, and of the group of that number.
func (l *layer) ownedDir(name string, mode int64, owner int) {
	l.add(tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode, Uid: owner, Gid: owner}, nil)
}

func (l *layer) file(name string, mode int64, content []byte) {
	l.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}, content)
}

func (l *layer) link(name, target string) {
	l.add(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, nil)
}

// copy adds a file or a folder of root under its name there; a link is followed.
func (l *layer) copy(root, name string) error {
	return filepath.WalkDir(filepath.Join(root, name), func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Stat(path)
		if err != nil || info.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		l.file(strings.TrimPrefix(path, root+"/"), int64(info.Mode().Perm()), content)
		return nil
	})
}

func (l *layer) bytes() ([]byte, error) {
	if err := errors.Join(l.err, l.writer.Close()); err != nil {
		return nil, fmt.Errorf("image layer: %w", err)
	}
	return l.buffer.Bytes(), nil
}

func pauseRoot(program string) ([]byte, error) {
	binary, err := os.ReadFile(program)
	if err != nil {
		return nil, fmt.Errorf("pause image: %w", err)
	}
	l := newLayer()
	l.file("pause", 0o755, binary)
	return l.bytes()
}

// busyboxLayer is a small system: every applet by its name, and the folders
// that programs expect.
func busyboxLayer(ctx context.Context) (*layer, error) {
	names, err := run(ctx, busyboxProgram, "--list")
	if err != nil {
		return nil, err
	}
	applets := strings.Fields(names)
	binary, err := os.ReadFile(busyboxProgram)
	if err != nil {
		return nil, fmt.Errorf("busybox image: %w", err)
	}
	l := newLayer()
	for _, name := range []string{"bin", "dev", "etc", "home", "proc", "sys", "usr", "usr/bin", "var", "var/run"} {
		l.dir(name, 0o755)
	}
	l.dir("root", 0o700)
	l.dir("tmp", 0o1777)
	l.dir("var/tmp", 0o1777)
	l.file("bin/busybox", 0o755, binary)
	for _, applet := range applets {
		if applet != "busybox" {
			l.link("bin/"+applet, "/bin/busybox")
		}
	}
	l.link("usr/bin/env", "/bin/busybox")
	return l, nil
}

// busyboxRoot is that system with users.
func busyboxRoot(ctx context.Context) ([]byte, error) {
	l, err := busyboxLayer(ctx)
	if err != nil {
		return nil, err
	}
	l.file("etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/home:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"))
	l.file("etc/group", 0o644, []byte("root:x:0:\nwww-data:x:33:\nnobody:x:65534:\n"))
	return l.bytes()
}

// imageConfig is what an image says of the containers that run it.
type imageConfig struct {
	Entrypoint []string            `json:",omitempty"`
	Cmd        []string            `json:",omitempty"`
	Env        []string            `json:",omitempty"`
	Volumes    map[string]struct{} `json:",omitempty"`
	StopSignal string              `json:",omitempty"`
	User       string              `json:",omitempty"`
}

var searchPath = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

// writeImage writes an archive of one image with one layer, in the format of
// `docker save`, which containerd imports as well.
func writeImage(path, reference string, runs imageConfig, root []byte) error {
	layerID := sha256.Sum256(root)
	layerName := hex.EncodeToString(layerID[:]) + ".tar"
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"created":      imageEpoch,
		"config":       runs,
		"history":      []any{map[string]any{"created": imageEpoch, "created_by": "isthmus testbed"}},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(layerID[:])}},
	})
	if err != nil {
		return fmt.Errorf("image %s: %w", reference, err)
	}
	configID := sha256.Sum256(config)
	configName := hex.EncodeToString(configID[:]) + ".json"
	manifest, err := json.Marshal([]any{map[string]any{
		"Config": configName, "RepoTags": []string{reference}, "Layers": []string{layerName},
	}})
	if err != nil {
		return fmt.Errorf("image %s: %w", reference, err)
	}
	archive := newLayer()
	archive.file(layerName, 0o644, root)
	archive.file(configName, 0o644, config)
	archive.file("manifest.json", 0o644, manifest)
	content, err := archive.bytes()
	if err != nil {
		return err
	}
	if err := writeFileAtomic(path, content, 0o644); err != nil {
		return fmt.Errorf("image %s: %w", reference, err)
	}
	return nil
}
