package kubernetes

import (
	"context"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Images are what the nodes say that they hold. A kubelet names its fifty largest unless it is told otherwise, so the
// absence of one proves nothing.

// imagesFromNodes joins what the nodes hold. An image that several nodes hold is one.
func imagesFromNodes(nodes []corev1.Node) []neutral.Image {
	byID := map[string]*neutral.Image{}
	for i := range nodes {
		for _, native := range nodes[i].Status.Images {
			if len(native.Names) == 0 {
				continue
			}
			image := imageFromNode(native)
			if known, ok := byID[image.ID]; ok {
				known.Tags, known.Digests = join(known.Tags, image.Tags), join(known.Digests, image.Digests)
				continue
			}
			byID[image.ID] = &image
		}
	}
	images := make([]neutral.Image, 0, len(byID))
	for _, image := range byID {
		images = append(images, *image)
	}
	slices.SortFunc(images, func(a, b neutral.Image) int { return strings.Compare(a.ID, b.ID) })
	return images
}

// imageFromNode reads one entry. Its id is the digest that registries know it by; an image without one is known by its
// names.
func imageFromNode(native corev1.ContainerImage) neutral.Image {
	image := neutral.Image{Size: native.SizeBytes}
	for _, name := range native.Names {
		switch {
		case strings.Contains(name, "@"):
			image.Digests = append(image.Digests, plainImage(name))
			if image.ID == "" {
				image.ID = imageID(name)
			}
		default:
			image.Tags = append(image.Tags, plainImage(name))
		}
	}
	slices.Sort(image.Tags)
	if image.ID == "" {
		image.ID = "sha256:" + digest(append([]string{"image"}, image.Tags...)...)
	}
	return image
}

// plainImage leaves out what docker's users never write.
func plainImage(name string) string {
	return strings.TrimPrefix(strings.TrimPrefix(name, "docker.io/"), "library/")
}

func join(a, b []string) []string {
	all := append(slices.Clone(a), b...)
	slices.Sort(all)
	return slices.Compact(all)
}

func (a *action) imageObject(image *neutral.Image) neutral.Object {
	name := image.ID
	if len(image.Tags) > 0 {
		name = image.Tags[0]
	}
	return neutral.Object{Kind: neutral.KindImage, Namespace: a.namespace, Name: name}
}

// nodesCall asks for the nodes.
//
// https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/node-v1/#list
func nodesCall(decode func([]corev1.Node) (neutral.Result, error)) dialect.Plan {
	return get("/api/v1/nodes", func(response dialect.Response) (neutral.Result, error) {
		var list corev1.NodeList
		if err := decodeObject(response, &list); err != nil {
			return neutral.Result{}, err
		}
		return decode(list.Items)
	})
}

func (a *action) planImageList() (dialect.Plan, error) {
	return nodesCall(func(nodes []corev1.Node) (neutral.Result, error) {
		result := neutral.Result{Images: []neutral.Image{}}
		for _, image := range imagesFromNodes(nodes) {
			wanted := append(slices.Clone(a.op.Filter.Ancestors), a.op.Filter.Names...)
			if !oneOf(wanted, func(ref string) bool { return isImage(&image, ref) }) || a.permit(a.imageObject(&image)) != nil {
				continue
			}
			result.Images = append(result.Images, image)
		}
		return result, nil
	}), nil
}

func (a *action) planImageInspect() (dialect.Plan, error) {
	ref := a.op.Image
	if ref == "" {
		ref = a.op.Ref
	}
	return nodesCall(func(nodes []corev1.Node) (neutral.Result, error) {
		for _, image := range imagesFromNodes(nodes) {
			if !isImage(&image, ref) {
				continue
			}
			if err := a.permit(a.imageObject(&image)); err != nil {
				return neutral.Result{}, err
			}
			return neutral.Result{Image: &image}, nil
		}
		return neutral.Result{}, fault.New(fault.NotFound, "No such image: %s", ref)
	}), nil
}

// isImage tells whether a reference (a name, a digest, an id or the beginning of one) means the image.
func isImage(image *neutral.Image, ref string) bool {
	if bare := strings.TrimPrefix(ref, "sha256:"); len(bare) >= 3 && strings.HasPrefix(strings.TrimPrefix(image.ID, "sha256:"), bare) {
		return true
	}
	same := func(name string) bool { return familiarImage(name) == familiarImage(ref) }
	return slices.ContainsFunc(image.Tags, same) || slices.ContainsFunc(image.Digests, same)
}

// pullImage answers at once: the node that gets a container pulls its image then.
func (a *action) pullImage(_ context.Context, session neutral.Session) (neutral.Result, error) {
	image := familiarImage(a.op.Image)
	if a.op.Image == "" || strings.ContainsAny(image, " \t\n") {
		return neutral.Result{}, fault.New(fault.Invalid, "invalid reference format")
	}
	if err := a.permit(neutral.Object{Kind: neutral.KindImage, Namespace: a.namespace, Name: image}); err != nil {
		return neutral.Result{}, err
	}
	for _, line := range []string{
		"Nothing is pulled now: " + image + " is pulled by the Kubernetes node that starts a container of it",
		"Status: Image is pulled when it is used: " + image,
	} {
		if err := session.Progress("", line); err != nil {
			return neutral.Result{}, err
		}
	}
	return neutral.Result{Message: image}, nil
}
