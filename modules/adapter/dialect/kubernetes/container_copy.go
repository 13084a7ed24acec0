package kubernetes

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"path"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/remotecommand"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Files go in and out of a container by its image's tar, which an exec runs: Kubernetes has no call for them. Whatever
// passes is a stream; only an archive's first entry is looked at.

// drained is how much is still read of an archive that was refused, so that its sender hears why.
const drained = 1 << 20

// statFile tells of one file.
func (a *action) statFile(ctx context.Context) (neutral.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	from := newSource(a.op.Copy.Path)
	archive, first, err := a.open(ctx, from)
	if err != nil {
		return neutral.Result{}, err
	}
	defer archive.stop()
	stat := from.stat(first)
	return neutral.Result{File: &stat}, nil
}

// copyOut gives the caller an archive of what it named.
func (a *action) copyOut(ctx context.Context, session neutral.Session) (neutral.Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	from := newSource(a.op.Copy.Path)
	archive, first, err := a.open(ctx, from)
	if err != nil {
		return neutral.Result{}, err
	}
	defer archive.stop()
	neutral.Stat(session, from.stat(first))
	if err := session.Accept(); err != nil {
		return neutral.Result{}, err
	}
	to := outputWriter{session, neutral.Stdout}
	if from.prefix == "" {
		err = archive.handOn(to)
	} else {
		err = renamed(to, archive.reader, first, from.prefix)
	}
	if err != nil {
		return neutral.Result{}, archive.fault(err)
	}
	return neutral.Result{}, archive.end()
}

// copyIn unpacks what the caller sends into a folder that is there.
func (a *action) copyIn(ctx context.Context, session neutral.Session) (neutral.Result, error) {
	sent := session.Stdin()
	if sent == nil {
		return neutral.Result{}, fault.New(fault.Invalid, "no archive was sent")
	}
	found, err := a.findRunning(ctx)
	if err == nil {
		err = a.unpack(ctx, found, sent)
	}
	if err != nil {
		_, _ = io.CopyN(io.Discard, sent, drained) // what is wrong is known already
		return neutral.Result{}, err
	}
	result := neutral.Result{}
	if a.op.Copy.Owner {
		result.Losses = append(result.Losses, neutral.Loss{Field: "copyUIDGID", Change: "dropped",
			Reason: "the image's tar decides by itself whose the files are"})
	}
	return result, nil
}

func (a *action) unpack(ctx context.Context, found *located, sent io.Reader) error {
	plain, err := unpressed(sent)
	if err != nil {
		return err
	}
	folder := path.Join("/", a.op.Copy.Path)
	archive := &intact{from: plain}
	var said limitedBuffer
	code, message, err := a.run(ctx, found.pod, "exec", &corev1.PodExecOptions{Container: found.native(),
		Command: []string{"tar", "-x", "-f", "-", "-C", folder}, Stdin: true, Stdout: true, Stderr: true},
		remotecommand.StreamOptions{Stdin: archive, Stdout: &said, Stderr: &said})
	broken := archive.broken()
	switch text := said.String(); {
	case broken != nil && ctx.Err() == nil: // of which tar saw nothing but an early end, and may have been content
		return broken
	case err != nil:
		return err
	case message != "":
		return noTar(found, message)
	case code == 0:
		return nil
	case strings.Contains(strings.ToLower(text), "not a directory"):
		return fault.New(fault.Invalid, "extraction point is not a directory: %s", a.op.Copy.Path)
	default:
		return a.tarFault(text)
	}
}

// intact is an archive on its way that remembers that it broke.
type intact struct {
	from io.Reader
	mu   sync.Mutex
	err  error // other than io.EOF
}

func (i *intact) Read(b []byte) (int, error) {
	n, err := i.from.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		i.mu.Lock()
		defer i.mu.Unlock()
		if i.err == nil {
			i.err = err
		}
	}
	return n, err
}

func (i *intact) broken() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.err == nil {
		return nil
	}
	return fault.Wrap(fault.Invalid, i.err, "the archive is broken, or was cut off")
}

// findRunning gives the container whose files are meant.
func (a *action) findRunning(ctx context.Context) (*located, error) {
	if a.op.Copy == nil || a.op.Copy.Path == "" {
		return nil, fault.New(fault.Invalid, "bad parameter: missing path")
	}
	found, err := a.find(ctx)
	if err != nil {
		return nil, err
	}
	switch found.State.Status {
	case neutral.StatusRunning:
	case neutral.StatusPaused:
		return nil, found.takes("cp")
	default:
		return nil, fault.New(fault.Conflict, "container %s is not running: Kubernetes reaches the files of a container while "+
			"it runs", found.ID)
	}
	return found, nil
}

// source is what an archive is made of.
type source struct {
	folder, base string   // tar's own: where it is, and what of it
	name         string   // as a stat tells it
	prefix       string   // what the entries' names begin with in the place of "./"; "" is as tar has them
	exclude      []string // patterns of what is left out
}

// arguments are tar's.
func (s source) arguments() []string {
	arguments := []string{"-C", s.folder}
	for _, pattern := range s.exclude {
		arguments = append(arguments, "--exclude", pattern)
	}
	return append(arguments, "--", s.base)
}

// newSource reads a path as an engine does: "/a/b" is b, "/a/b/." what is in b, "/a/b/" is b as well, also where it is a
// link.
func newSource(text string) source {
	clean := path.Join("/", text)
	switch {
	case clean == "/":
		return source{folder: "/", base: ".", name: "/", prefix: "/"}
	case text == "." || strings.HasSuffix(text, "/."):
		return source{folder: clean, base: ".", name: "."}
	case strings.HasSuffix(text, "/"):
		return source{folder: clean, base: ".", name: path.Base(clean), prefix: path.Base(clean) + "/"}
	}
	return source{folder: path.Dir(clean), base: path.Base(clean), name: path.Base(clean)}
}

// stat tells of the first entry of an archive, which is the file itself.
func (s source) stat(first *tar.Header) neutral.FileStat {
	stat := neutral.FileStat{Name: s.name, Size: first.Size, Mode: first.FileInfo().Mode(), Modified: first.ModTime}
	if first.Typeflag == tar.TypeSymlink {
		stat.Target = first.Linkname
		if !path.IsAbs(stat.Target) {
			stat.Target = path.Join(s.folder, stat.Target)
		}
	}
	return stat
}

// packing is an archive that a container makes.
type packing struct {
	action *action
	found  *located
	reader *tar.Reader
	seen   *tee // what reader has read so far
	pipe   *io.PipeReader
	held   *io.PipeWriter // keeps the command from its end; nil for a tar without a shell around it
	cancel context.CancelFunc
	said   limitedBuffer

	done    chan struct{} // closed when the command has ended; guards what follows
	code    int
	message string
	err     error
}

// heldTar packs what it is told to and ends once its input has: runtimes were seen to lose the end of what a command writes just before
// its own end.
const heldTar = `tar -c -f - "$@"; s=$?; cat > /dev/null; exit $s`

// open begins to make an archive, and gives its first entry. Without an error, stop must be called.
func (a *action) open(ctx context.Context, from source) (*packing, *tar.Header, error) {
	found, err := a.findRunning(ctx)
	if err != nil {
		return nil, nil, err
	}
	return a.openIn(ctx, found, from)
}

func (a *action) openIn(ctx context.Context, found *located, from source) (*packing, *tar.Header, error) {
	p := a.pack(ctx, found, from, true)
	first, err := p.reader.Next()
	if errors.Is(err, io.EOF) && p.shellless() {
		p.stop()
		p = a.pack(ctx, found, from, false)
		first, err = p.reader.Next()
	}
	if err != nil {
		err = p.fault(err)
		p.stop()
		return nil, nil, err
	}
	return p, first, nil
}

// pack begins to make an archive; stop must be called.
func (a *action) pack(ctx context.Context, found *located, from source, hold bool) *packing {
	ctx, cancel := context.WithCancel(ctx)
	pipe, writer := io.Pipe()
	p := &packing{action: a, found: found, pipe: pipe, cancel: cancel, done: make(chan struct{}), seen: &tee{}}
	p.reader = tar.NewReader(io.TeeReader(pipe, p.seen))
	options := &corev1.PodExecOptions{Container: found.native(), Stdin: hold, Stdout: true, Stderr: true,
		Command: append([]string{"tar", "-c", "-f", "-"}, from.arguments()...)}
	streams := remotecommand.StreamOptions{Stdout: writer, Stderr: &p.said}
	if hold {
		options.Command = append([]string{"/bin/sh", "-c", heldTar, "sh"}, from.arguments()...)
		streams.Stdin, p.held = io.Pipe()
	}
	go func() {
		defer close(p.done)
		p.code, p.message, p.err = a.run(ctx, found.pod, "exec", options, streams)
		_ = writer.Close() // a pipe always closes
	}()
	return p
}

// tee keeps what passes until it is told where to, and gives it on from then on.
type tee struct {
	kept bytes.Buffer
	to   io.Writer
}

func (t *tee) Write(b []byte) (int, error) {
	if t.to != nil {
		return t.to.Write(b)
	}
	return t.kept.Write(b)
}

// shellless tells, of a command that printed no archive, whether the image has no shell.
func (p *packing) shellless() bool {
	p.release()
	_, _ = io.Copy(io.Discard, p.pipe)
	<-p.done
	return p.held != nil && p.message != ""
}

// release lets the command end.
func (p *packing) release() {
	if p.held != nil {
		_ = p.held.Close() // a pipe always closes
	}
}

// handOn gives the archive to somebody as it is, and reads along until its end.
func (p *packing) handOn(to io.Writer) error {
	if _, err := to.Write(p.seen.kept.Bytes()); err != nil {
		return err
	}
	p.seen.kept, p.seen.to = bytes.Buffer{}, to
	for {
		if _, err := p.reader.Next(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
	}
	p.release()
	_, err := io.Copy(to, p.pipe) // what fills up its last block
	return err
}

// stop ends the command if it still runs.
func (p *packing) stop() {
	p.release()
	p.cancel()
	_ = p.pipe.Close() // a pipe always closes
	<-p.done
}

// end waits for the command's own word of how it went.
func (p *packing) end() error {
	p.release()
	_, _ = io.Copy(io.Discard, p.pipe) // what follows the archive's end
	<-p.done
	switch {
	case p.err != nil:
		return p.err
	case p.code != 0 && !changedOnly(p.said.String()):
		return p.action.tarFault(p.said.String())
	}
	return nil
}

// fault tells why an archive could not be read or handed on.
func (p *packing) fault(err error) error {
	var known *fault.Error
	if errors.As(err, &known) { // the caller is gone
		return err
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		p.stop()
		return fault.Wrap(fault.Unavailable, err, "what the container's tar prints is no archive")
	}
	p.release()
	_, _ = io.Copy(io.Discard, p.pipe) // an archive of nothing has an end as well
	<-p.done
	switch {
	case p.err != nil:
		return p.err
	case p.message != "", p.code == exitNotFound:
		return noTar(p.found, p.message)
	}
	return p.action.tarFault(p.said.String())
}

// changedOnly tells whether tar complained of nothing but files that were written to while it read them.
func changedOnly(said string) bool {
	for line := range strings.Lines(said) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasSuffix(line, "file changed as we read it") &&
			!strings.HasSuffix(line, "socket ignored") {
			return false
		}
	}
	return said != ""
}

func noTar(found *located, message string) error {
	return fault.Wrap(fault.Unsupported, errors.New(message), "files are copied by tar, and the image of container %s has none that "+
		"can be run", found.Name)
}

// tarFault reads what tar said.
func (a *action) tarFault(said string) error {
	lower := strings.ToLower(said)
	switch {
	case strings.Contains(lower, "no such file"), strings.Contains(lower, "not a directory"):
		return fault.New(fault.NotFound, "Could not find the file %s in container %s", a.op.Copy.Path, a.op.Ref)
	case strings.Contains(lower, "permission denied"), strings.Contains(lower, "operation not permitted"):
		return fault.New(fault.Conflict, "files are copied as the container's own user, who may not do it: %s", firstLine(said))
	case strings.Contains(lower, "read-only file system"):
		return fault.New(fault.Denied, "no permission: the container's file system is read-only there: %s", firstLine(said))
	}
	return fault.New(fault.Internal, "the container's tar failed: %s", firstLine(said))
}

func firstLine(text string) string {
	const limit = 200
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line[:min(len(line), limit)]
}

// renamed writes an archive anew under other names.
func renamed(to io.Writer, from *tar.Reader, first *tar.Header, prefix string) error {
	buffered := bufio.NewWriterSize(to, 64<<10)
	out := tar.NewWriter(buffered)
	rename := func(name string) string { return prefix + strings.TrimPrefix(strings.TrimPrefix(name, "."), "/") }
	for header, err := first, error(nil); ; header, err = from.Next() {
		if errors.Is(err, io.EOF) {
			return errors.Join(out.Close(), buffered.Flush())
		}
		if err != nil {
			return err
		}
		header.Name = rename(header.Name)
		if header.Typeflag == tar.TypeLink { // to another entry
			header.Linkname = rename(header.Linkname)
		}
		header.Format = tar.FormatUnknown
		if err := out.WriteHeader(header); err != nil {
			return err
		}
		if _, err := io.Copy(out, from); err != nil {
			return err
		}
	}
}

// unpressed opens an archive as an engine does: plain, or packed by gzip or bzip2.
func unpressed(sent io.Reader) (io.Reader, error) {
	buffered := bufio.NewReaderSize(sent, 32<<10)
	magic, err := buffered.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fault.Wrap(fault.Invalid, err, "the archive could not be read")
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		plain, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "the archive's gzip header is broken")
		}
		return plain, nil
	case bytes.HasPrefix(magic, []byte("BZh")):
		return bzip2.NewReader(buffered), nil
	case bytes.HasPrefix(magic, []byte("\xfd7zXZ")), bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return nil, fault.New(fault.Unsupported, "an archive that is packed by xz or zstd is not opened; send it plain, or packed by gzip")
	}
	return buffered, nil
}
