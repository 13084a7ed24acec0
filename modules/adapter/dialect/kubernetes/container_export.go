package kubernetes

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// exportFiles gives the caller an archive of all files of a container, as an engine does: of what is mounted into it, no
// more than the place. The files that say where in the cluster it is are empty in an engine's archives too.
func (a *action) exportFiles(ctx context.Context, session neutral.Session) (neutral.Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.op.Copy = &neutral.CopyOptions{Path: "/"}
	found, err := a.findRunning(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	from := source{folder: "/", base: ".", exclude: excluded(found)}
	archive, first, err := a.openIn(ctx, found, from)
	if err != nil {
		return neutral.Result{}, err
	}
	defer archive.stop()
	if err := session.Accept(); err != nil {
		return neutral.Result{}, err
	}
	if err := exported(outputWriter{session, neutral.Stdout}, archive.reader, first, mounted(found)); err != nil {
		return neutral.Result{}, archive.fault(err)
	}
	return neutral.Result{}, archive.end()
}

// excluded are tar's patterns of what is not the container's own.
func excluded(found *located) []string {
	patterns := []string{"./proc/*", "./sys/*", "./dev/*"}
	quote := strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)
	for _, at := range mounted(found) {
		patterns = append(patterns, "."+quote.Replace(at)+"/*")
	}
	return patterns
}

// mounted are the places of the container's mounts.
func mounted(found *located) []string {
	var places []string
	for _, m := range found.pod.Spec.Containers[found.index].VolumeMounts {
		places = append(places, path.Join("/", m.MountPath))
	}
	return places
}

// emptied are files that a kubelet or an engine mounts, with addresses in them.
var emptied = []string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}

// exported writes an archive of "./" anew: names begin with no "./", and files that are mounted are empty.
func exported(to io.Writer, from *tar.Reader, first *tar.Header, mounts []string) error {
	buffered := bufio.NewWriterSize(to, 64<<10)
	out := tar.NewWriter(buffered)
	for header, err := first, error(nil); ; header, err = from.Next() {
		if errors.Is(err, io.EOF) {
			return errors.Join(out.Close(), buffered.Flush())
		}
		if err != nil {
			return err
		}
		if header.Name = strings.TrimPrefix(strings.TrimPrefix(header.Name, "."), "/"); header.Name == "" {
			continue
		}
		content := io.Reader(from)
		if at := path.Join("/", header.Name); header.Typeflag == tar.TypeReg && (slices.Contains(emptied, at) || slices.Contains(mounts, at)) {
			header.Size, content = 0, strings.NewReader("")
		}
		if header.Typeflag == tar.TypeLink {
			header.Linkname = strings.TrimPrefix(strings.TrimPrefix(header.Linkname, "."), "/")
		}
		header.Format = tar.FormatUnknown
		if err := out.WriteHeader(header); err != nil {
			return err
		}
		if _, err := io.Copy(out, content); err != nil {
			return err
		}
	}
}
