package docker

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func imageFromNative(s image.Summary) neutral.Image {
	known := func(names []string) []string { // an image without a name has "<none>"
		return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return strings.Contains(name, "<none>") })
	}
	return neutral.Image{ID: s.ID, Tags: known(s.RepoTags), Digests: known(s.RepoDigests), Size: s.Size, Created: time.Unix(s.Created, 0).UTC()}
}

// images are those that the caller may see, by one of their names.
func (a *action) images(ctx context.Context) ([]neutral.Image, error) {
	list, err := a.api.ImageList(ctx, client.ImageListOptions{})
	if err != nil {
		return nil, faultOf(err)
	}
	var all []neutral.Image
	for _, s := range list.Items {
		i := imageFromNative(s)
		names := i.Tags
		if len(names) == 0 {
			names = []string{i.ID}
		}
		if slices.ContainsFunc(names, func(name string) bool { return a.permit(imageObject(name, s.Labels)) == nil }) {
			all = append(all, i)
		}
	}
	return all, nil
}

func imageObject(name string, labels map[string]string) neutral.Object {
	return neutral.Object{Kind: neutral.KindImage, Namespace: defaultNamespace, Name: name, Labels: labels}
}

// isImage tells whether a reference (a name, a digest, an id or the beginning of one) means the image.
func isImage(i *neutral.Image, ref string) bool {
	const shortest = 3
	if bare := strings.TrimPrefix(ref, "sha256:"); len(bare) >= shortest && strings.HasPrefix(strings.TrimPrefix(i.ID, "sha256:"), bare) {
		return true
	}
	same := func(name string) bool { return sameImage(name, ref) }
	return slices.ContainsFunc(i.Tags, same) || slices.ContainsFunc(i.Digests, same)
}

func (a *action) listImages(ctx context.Context) (neutral.Result, error) {
	all, err := a.images(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	wanted := slices.Concat(a.op.Filter.Ancestors, a.op.Filter.Names)
	result := neutral.Result{Images: []neutral.Image{}}
	for i := range all {
		if len(wanted) == 0 || slices.ContainsFunc(wanted, func(ref string) bool { return isImage(&all[i], ref) }) {
			result.Images = append(result.Images, all[i])
		}
	}
	return result, nil
}

func (a *action) inspectImage(ctx context.Context) (neutral.Result, error) {
	ref := a.op.Image
	if ref == "" {
		ref = a.op.Ref
	}
	all, err := a.images(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	for i := range all {
		if isImage(&all[i], ref) {
			return neutral.Result{Image: &all[i]}, nil
		}
	}
	return neutral.Result{}, fault.New(fault.NotFound, "No such image: %s", ref)
}

// pullImage makes the engine fetch an image, with the engine's own credentials.
func (a *action) pullImage(ctx context.Context, session neutral.Session) (neutral.Result, error) {
	ref := a.op.Image
	if ref == "" || strings.ContainsAny(ref, " \t\n") {
		return neutral.Result{}, fault.New(fault.Invalid, "invalid reference format")
	}
	if err := a.permit(imageObject(ref, nil)); err != nil {
		return neutral.Result{}, err
	}
	return neutral.Result{Message: ref}, a.pull(ctx, ref, session.Progress)
}

// pull makes the engine fetch an image. tell gets its progress; nil wants none.
func (c *Cluster) pull(ctx context.Context, ref string, tell func(id, status string) error) error {
	pulled, err := c.api.ImagePull(ctx, ref, client.ImagePullOptions{})
	if err != nil {
		return faultOf(err)
	}
	defer func() { _ = pulled.Close() }()
	for message, err := range pulled.JSONMessages(ctx) {
		switch {
		case err != nil:
			return faultOf(err)
		case message.Error != nil:
			return fault.Wrap(fault.NotFound, message.Error, "image %s could not be pulled: %s", ref, plain(message.Error.Message))
		case tell == nil:
			continue
		}
		status := message.Status
		if p := message.Progress; p != nil && p.Total > 0 {
			status += " " + strconv.FormatInt(p.Current*100/p.Total, 10) + "%"
		}
		if err := tell(message.ID, plain(status)); err != nil {
			return err
		}
	}
	return nil
}
