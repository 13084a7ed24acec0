package kubernetes

import (
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// planContainerList lists the namespace's Pods; the filters are docker's and are applied here.
//
// https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#list
func (a *action) planContainerList() (dialect.Plan, error) {
	filter, err := newContainerFilter(a.op.Filter)
	if err != nil {
		return dialect.Plan{}, err
	}
	listing := &containerListing{action: a, filter: filter, now: time.Now()}
	if a.pods.many() {
		return dialect.Plan{Program: func(ctx context.Context) (neutral.Result, error) {
			if err := a.eachPage(ctx, listing.add); err != nil {
				return neutral.Result{}, err
			}
			return listing.result()
		}}, nil
	}
	return get(a.podsPath(), func(response dialect.Response) (neutral.Result, error) {
		var list corev1.PodList
		if err := decodeObject(response, &list); err != nil {
			return neutral.Result{}, err
		}
		if err := listing.add(list.Items); err != nil {
			return neutral.Result{}, err
		}
		return listing.result()
	}), nil
}

// containerListing is what a list's answer is made of: of each Pod no more stays than is told of it.
type containerListing struct {
	*action
	filter *containerFilter
	now    time.Time
	kept   []neutral.Container
}

func (l *containerListing) add(pods []corev1.Pod) error {
	all := containersFromPods(l.cluster, pods, l.now)
	if !l.filter.relative() {
		all = l.visible(slices.DeleteFunc(all, func(c neutral.Container) bool { return !l.filter.matches(&c) }))
	}
	l.kept = append(l.kept, all...)
	return nil
}

// visible leaves out what the caller may not see.
func (l *containerListing) visible(containers []neutral.Container) []neutral.Container {
	return slices.DeleteFunc(containers, func(c neutral.Container) bool { return l.permit(containerObject(&c)) != nil })
}

func (l *containerListing) result() (neutral.Result, error) {
	sortNewestFirst(l.kept)
	if l.filter.relative() { // to a container that may be anywhere in the list, and need not match
		kept, err := l.filter.apply(l.kept)
		if err != nil {
			return neutral.Result{}, err
		}
		l.kept = l.visible(kept)
	}
	result := neutral.Result{Containers: l.kept}
	if limit := l.filter.Limit; limit > 0 && len(result.Containers) > limit {
		result.Containers = result.Containers[:limit]
	}
	if l.filter.Size {
		result.Losses = append(result.Losses, neutral.Loss{Field: "size", Change: "dropped",
			Reason: "Kubernetes does not tell the size of a container's files"})
	}
	return result, nil
}

// planContainerInspect reads one container. The reference can be an id, which only the whole list resolves.
func (a *action) planContainerInspect() (dialect.Plan, error) {
	if a.pods.many() {
		return dialect.Plan{Program: func(ctx context.Context) (neutral.Result, error) {
			found, err := a.lookFor(ctx, a.op.Ref)
			if err != nil {
				return neutral.Result{}, err
			}
			return a.inspected(&found.Container, found.pod)
		}}, nil
	}
	return get(a.podsPath(), func(response dialect.Response) (neutral.Result, error) {
		var list corev1.PodList
		if err := decodeObject(response, &list); err != nil {
			return neutral.Result{}, err
		}
		found, err := resolveContainer(containersFromPods(a.cluster, list.Items, time.Now()), a.op.Ref)
		if err != nil {
			return neutral.Result{}, err
		}
		for i := range list.Items {
			if list.Items[i].Name == found.Pod {
				return a.inspected(found, &list.Items[i])
			}
		}
		return neutral.Result{}, fault.New(fault.Internal, "container %s has no Pod", a.op.Ref)
	}), nil
}

func (a *action) inspected(found *neutral.Container, pod *corev1.Pod) (neutral.Result, error) {
	if err := a.permit(containerObject(found)); err != nil {
		return neutral.Result{}, err
	}
	found.Origin = originFromMeta(pod.ObjectMeta)
	return neutral.Result{Container: found}, nil
}

// containerFilter is docker's filters of a list, made ready.
type containerFilter struct {
	neutral.Filter
	names   []*regexp.Regexp
	publish []portRange
	expose  []portRange
}

// portRange is "80", "80/udp" or "80-90/tcp".
type portRange struct {
	first, last uint16
	protocol    string
}

func newContainerFilter(filter neutral.Filter) (*containerFilter, error) {
	f := &containerFilter{Filter: filter}
	for _, name := range filter.Names {
		re, err := regexp.Compile(name)
		if err != nil {
			return nil, fault.New(fault.Invalid, "invalid filter 'name=%s'", name)
		}
		f.names = append(f.names, re)
	}
	for _, list := range []struct {
		name string
		in   []string
		out  *[]portRange
	}{{"publish", filter.Publish, &f.publish}, {"expose", filter.Expose, &f.expose}} {
		for _, text := range list.in {
			r, err := parsePortRange(text)
			if err != nil {
				return nil, fault.New(fault.Invalid, "invalid filter '%s=%s'", list.name, text)
			}
			*list.out = append(*list.out, r)
		}
	}
	return f, nil
}

func parsePortRange(text string) (portRange, error) {
	ports, protocol, ok := strings.Cut(text, "/")
	if !ok {
		protocol = "tcp"
	}
	from, to, ok := strings.Cut(ports, "-")
	if !ok {
		to = from
	}
	first, err := strconv.ParseUint(from, 10, 16)
	if err != nil {
		return portRange{}, err
	}
	last, err := strconv.ParseUint(to, 10, 16)
	if err != nil {
		return portRange{}, err
	}
	return portRange{first: uint16(first), last: uint16(last), protocol: strings.ToLower(protocol)}, nil
}

func (r portRange) holds(port uint16, protocol string) bool {
	return port >= r.first && port <= r.last && r.protocol == protocol
}

// relative tells whether the filter names another container, which must be found first.
func (f *containerFilter) relative() bool { return f.Before != "" || f.Filter.Since != "" }

// apply keeps what the filters let through.
func (f *containerFilter) apply(all []neutral.Container) ([]neutral.Container, error) {
	var before, since *neutral.Container
	for _, bound := range []struct {
		ref string
		out **neutral.Container
	}{{f.Before, &before}, {f.Filter.Since, &since}} {
		if bound.ref == "" {
			continue
		}
		found, err := resolveContainer(all, bound.ref)
		if err != nil {
			return nil, err
		}
		*bound.out = found
	}
	kept := make([]neutral.Container, 0, len(all))
	for i := range all {
		c := &all[i]
		if before != nil && !c.CreatedAt.Before(before.CreatedAt) || since != nil && !c.CreatedAt.After(since.CreatedAt) {
			continue
		}
		if f.matches(c) {
			kept = append(kept, *c)
		}
	}
	return kept, nil
}

// matches follows docker: a state filter, a limit, before and since look at stopped containers too.
func (f *containerFilter) matches(c *neutral.Container) bool {
	everything := f.All || f.Limit > 0 || len(f.Status) > 0 || len(f.ExitCodes) > 0 || f.Before != "" || f.Filter.Since != ""
	if !everything && c.State.Status != neutral.StatusRunning && c.State.Status != neutral.StatusRestarting &&
		c.State.Status != neutral.StatusPaused {
		return false
	}
	return oneOf(f.IDs, func(id string) bool { return strings.HasPrefix(c.ID, id) }) &&
		oneOf(f.names, func(re *regexp.Regexp) bool { return re.MatchString("/"+c.Name) || re.MatchString(c.Name) }) &&
		matchLabels(f.Labels, c.Labels) &&
		oneOf(f.Status, func(s neutral.Status) bool { return s == c.State.Status }) &&
		oneOf(f.Ancestors, func(image string) bool { return sameImage(image, c.Image, c.ImageID) }) &&
		oneOf(f.ExitCodes, func(code int) bool { return c.State.Status == neutral.StatusExited && c.State.ExitCode == code }) &&
		oneOf(f.Health, func(h string) bool { return h == c.State.Health || h == "none" && c.State.Health == "" }) &&
		oneOf(f.Networks, func(n string) bool { return onNetwork(c, n) }) &&
		oneOf(f.Volumes, func(v string) bool {
			return slices.ContainsFunc(c.Mounts, func(m neutral.Mount) bool { return m.Source == v || m.Target == v })
		}) &&
		oneOf(f.publish, func(r portRange) bool {
			return slices.ContainsFunc(c.Ports, func(p neutral.Port) bool { return p.Published != 0 && r.holds(p.Published, p.Protocol) })
		}) &&
		oneOf(f.expose, func(r portRange) bool {
			return slices.ContainsFunc(c.Ports, func(p neutral.Port) bool { return r.holds(p.Container, p.Protocol) })
		}) &&
		oneOf(f.Nodes, func(n string) bool { return n == c.Node }) &&
		oneOf(f.Workloads, func(w string) bool { return c.Owner != nil && c.Owner.Name == w })
}

// oneOf tells whether one of the wanted matches; nothing wanted matches all.
func oneOf[T any](wanted []T, match func(T) bool) bool {
	return len(wanted) == 0 || slices.ContainsFunc(wanted, match)
}

// matchLabels wants every label, given as "key" or "key=value".
func matchLabels(wanted []string, labels map[string]string) bool {
	for _, want := range wanted {
		key, value, exact := strings.Cut(want, "=")
		have, ok := labels[key]
		if !ok || exact && have != value {
			return false
		}
	}
	return true
}

// sameImage compares what a caller calls an image with what a container was made from.
func sameImage(wanted, image, id string) bool {
	if wanted == id || familiarImage(wanted) == familiarImage(image) {
		return true
	}
	bare := strings.TrimPrefix(wanted, "sha256:")
	return len(bare) >= 12 && strings.HasPrefix(strings.TrimPrefix(id, "sha256:"), bare)
}

// familiarImage writes a reference in full, with docker's defaults, so that two spellings compare.
func familiarImage(ref string) string {
	ref = strings.TrimPrefix(strings.TrimPrefix(ref, "docker.io/"), "library/")
	if imageTag(ref) == "" && !strings.Contains(ref, "@") {
		ref += ":latest"
	}
	return ref
}

// imageTag is the ":tag" at the end of a reference, "" where it has none.
func imageTag(ref string) string {
	if strings.Contains(ref, "@") {
		return ""
	}
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		return ref[i:]
	}
	return ""
}

func onNetwork(c *neutral.Container, name string) bool {
	switch name {
	case "host":
		return c.Network == neutral.NetworkHost
	case "bridge", "default", "pod": // docker's callers see the pod network as their bridge
		return c.Network == neutral.NetworkPod
	}
	return slices.ContainsFunc(c.Networks, func(n neutral.NetworkAttachment) bool { return n.Name == name })
}
