package docker

import (
	"context"
	"io"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func (a *action) copyPath() (string, error) {
	if a.op.Copy == nil || a.op.Copy.Path == "" {
		return "", fault.New(fault.Invalid, "bad parameter: missing path")
	}
	return a.op.Copy.Path, nil
}

// statFile tells of one file.
func (a *action) statFile(ctx context.Context) (neutral.Result, error) {
	path, err := a.copyPath()
	if err != nil {
		return neutral.Result{}, err
	}
	found, err := a.findContainer(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	stat, err := a.api.ContainerStatPath(ctx, found.id, client.ContainerStatPathOptions{Path: path})
	if err != nil {
		return neutral.Result{}, faultOf(err)
	}
	told := statFromNative(stat.Stat)
	return neutral.Result{File: &told}, nil
}

func statFromNative(s container.PathStat) neutral.FileStat {
	return neutral.FileStat{Name: s.Name, Size: s.Size, Mode: s.Mode, Modified: s.Mtime, Target: s.LinkTarget}
}

// copyOut gives the caller an archive of what it named.
func (a *action) copyOut(ctx context.Context, session neutral.Session) (neutral.Result, error) {
	path, err := a.copyPath()
	if err != nil {
		return neutral.Result{}, err
	}
	found, err := a.findContainer(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	archive, err := a.api.CopyFromContainer(ctx, found.id, client.CopyFromContainerOptions{SourcePath: path})
	if err != nil {
		return neutral.Result{}, faultOf(err)
	}
	defer func() { _ = archive.Content.Close() }()
	neutral.Stat(session, statFromNative(archive.Stat))
	if err := session.Accept(); err != nil {
		return neutral.Result{}, err
	}
	return neutral.Result{}, readRaw(archive.Content, func(stream neutral.Stream, data []byte) error {
		return session.Output(neutral.Chunk{Stream: stream, Data: data})
	})
}

// drained is how much is still read of an archive that was refused, so that its sender hears why.
const drained = 1 << 20

// copyIn unpacks what the caller sends into a folder that is there.
func (a *action) copyIn(ctx context.Context, session neutral.Session) (neutral.Result, error) {
	sent := session.Stdin()
	if sent == nil {
		return neutral.Result{}, fault.New(fault.Invalid, "no archive was sent")
	}
	path, err := a.copyPath()
	var found *located
	if err == nil {
		found, err = a.findContainer(ctx)
	}
	if err == nil {
		_, err = a.api.CopyToContainer(ctx, found.id, client.CopyToContainerOptions{DestinationPath: path, Content: sent, CopyUIDGID: a.op.Copy.Owner})
	}
	if err != nil {
		_, _ = io.CopyN(io.Discard, sent, drained) // what is wrong is known already
	}
	return neutral.Result{}, faultOf(err)
}
