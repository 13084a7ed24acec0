package kubernetes

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// operations is what planned operations share while they run; none of it must outlive the process.
type operations struct {
	audience audience
}

// action is one operation on its way to a plan.
type action struct {
	*Cluster
	op        neutral.Operation
	guard     dialect.Guard
	terms     dialect.Terms // of the object that policy was asked about last
	namespace string
}

// plans is the published list of what this dialect does; refusals stand in refused.
var plans = map[neutral.Action]func(*action) (dialect.Plan, error){
	neutral.SystemPing:    (*action).planVersion,
	neutral.SystemVersion: (*action).planVersion,
	neutral.SystemInfo:    (*action).planInfo,
	neutral.EventWatch:    (*action).planEvents,

	neutral.ContainerList:    (*action).planContainerList,
	neutral.ContainerInspect: (*action).planContainerInspect,
	neutral.ContainerCreate:  (*action).planContainerCreate,
	neutral.ContainerStart:   program((*action).startContainer),
	neutral.ContainerStop:    program((*action).stopContainer),
	neutral.ContainerPause:   program((*action).pauseContainer),
	neutral.ContainerUnpause: program((*action).unpauseContainer),
	neutral.ContainerKill:    program((*action).killContainer),
	neutral.ContainerRestart: program((*action).restartContainer),
	neutral.ContainerRemove:  program((*action).removeContainer),
	neutral.ContainerPrune:   program((*action).pruneContainers),
	neutral.ContainerUpdate:  program((*action).updateContainer),
	neutral.ContainerTop:     program((*action).topContainer),
	neutral.ContainerStat:    program((*action).statFile),
	neutral.ContainerStats:   stream((*action).containerUsage),
	neutral.ContainerCopyOut: stream((*action).copyOut),
	neutral.ContainerExport:  stream((*action).exportFiles),
	neutral.ContainerCopyIn:  stream((*action).copyIn),
	neutral.ContainerWait:    stream((*action).waitContainer),
	neutral.ContainerLogs:    stream((*action).containerLogs),
	neutral.ContainerAttach:  stream((*action).attachContainer),
	neutral.ExecCreate:       program((*action).createExec),
	neutral.ExecStart:        stream((*action).startExec),

	neutral.WorkloadList:    program((*action).listWorkloads),
	neutral.WorkloadInspect: program((*action).inspectWorkload),
	neutral.WorkloadCreate:  program((*action).createWorkload),
	neutral.WorkloadUpdate:  program((*action).updateWorkload),
	neutral.WorkloadRemove:  program((*action).removeWorkload),
	neutral.WorkloadLogs:    stream((*action).workloadLogs),
	neutral.TaskList:        program((*action).listTasks),
	neutral.TaskInspect:     program((*action).inspectTask),
	neutral.TaskLogs:        stream((*action).taskLogs),

	neutral.ImageList:     (*action).planImageList,
	neutral.ImageInspect:  (*action).planImageInspect,
	neutral.ImagePull:     stream((*action).pullImage),
	neutral.NodeList:      (*action).planNodeList,
	neutral.NodeInspect:   (*action).planNodeInspect,
	neutral.NetworkList:   (*action).planNetworkList,
	neutral.NetworkGet:    program((*action).inspectNetwork),
	neutral.NetworkCreate: program((*action).createNetwork),
	neutral.NetworkRemove: program((*action).removeNetwork),
	neutral.NetworkPrune:  program((*action).pruneNetworks),
	neutral.NetworkJoin:   program((*action).joinNetwork),
	neutral.NetworkLeave:  program((*action).leaveNetwork),
	neutral.SecretList:    program((*action).listStored),
	neutral.SecretGet:     program((*action).inspectStored),
	neutral.SecretCreate:  program((*action).createStored),
	neutral.SecretUpdate:  program((*action).updateStored),
	neutral.SecretRemove:  program((*action).removeStored),
	neutral.ConfigList:    program((*action).listStored),
	neutral.ConfigGet:     program((*action).inspectStored),
	neutral.ConfigCreate:  program((*action).createStored),
	neutral.ConfigUpdate:  program((*action).updateStored),
	neutral.ConfigRemove:  program((*action).removeStored),
	neutral.VolumeList:    (*action).planVolumeList,
	neutral.VolumeGet:     (*action).planVolumeInspect,
	neutral.VolumeCreate:  program((*action).createVolume),
	neutral.VolumeRemove:  program((*action).removeVolume),
	neutral.VolumePrune:   program((*action).pruneVolumes),
}

// refused says why the rest is not done.
var refused = map[neutral.Action]string{
	neutral.ContainerRename:  "rename is refused: a Pod's name is fixed when it is created; create a container of the new name",
	neutral.ContainerChanges: "diff is refused: Kubernetes does not tell which files a container changed",
	neutral.ContainerCommit:  "commit is refused: Kubernetes makes no images",
	neutral.SystemUsage:      "the disk usage of a Kubernetes cluster is not known through its API",
	neutral.SystemAuth:       "the nodes of a Kubernetes cluster log in to registries with their own credentials",
}

// refusedKinds says it of all the rest of a kind.
var refusedKinds = map[neutral.Kind]string{
	neutral.KindImage:  "images are not made, tagged or removed through a Kubernetes cluster: its nodes pull them from registries",
	neutral.KindVolume: "a claim of a Kubernetes cluster is not changed once it is made",
	neutral.KindNode:   "nodes of a Kubernetes cluster are not changed from outside it",
	neutral.KindSystem: "the make-up of a Kubernetes cluster is not changed from outside it",
}

// refusal is why an action is not done, "" for none that is known.
func refusal(action neutral.Action) string {
	if reason, ok := refused[action]; ok {
		return reason
	}
	return refusedKinds[action.Kind()]
}

// Plan says how op is done on this cluster.
func (c *Cluster) Plan(op neutral.Operation, guard dialect.Guard) (dialect.Plan, error) {
	a := &action{Cluster: c, op: op, guard: guard, namespace: op.Object.Namespace}
	if a.namespace == "" {
		a.namespace = c.namespace
	}
	if guard == nil {
		a.guard = func(neutral.Object) (dialect.Terms, error) {
			return dialect.Terms{}, fault.New(fault.Denied, "no permission: no policy was asked")
		}
	}
	if plan, ok := plans[op.Action]; ok {
		return plan(a)
	}
	if reason := refusal(op.Action); reason != "" {
		return dialect.Plan{}, fault.New(fault.Unsupported, "%s", reason)
	}
	return dialect.Plan{}, fault.New(fault.Unsupported, "%s has no form in Kubernetes", op.Action)
}

func program(run func(*action, context.Context) (neutral.Result, error)) func(*action) (dialect.Plan, error) {
	return func(a *action) (dialect.Plan, error) {
		return dialect.Plan{Program: func(ctx context.Context) (neutral.Result, error) { return run(a, ctx) }}, nil
	}
}

func stream(run func(*action, context.Context, neutral.Session) (neutral.Result, error)) func(*action) (dialect.Plan, error) {
	return func(a *action) (dialect.Plan, error) {
		return dialect.Plan{Stream: func(ctx context.Context, session neutral.Session) (neutral.Result, error) {
			return run(a, ctx, session)
		}}, nil
	}
}

// get plans one GET whose answer decode reads.
func get(path string, decode func(dialect.Response) (neutral.Result, error)) dialect.Plan {
	header := http.Header{"Accept": {acceptBoth}, "Accept-Encoding": {"identity"}}
	return dialect.Plan{Call: &dialect.Call{
		Request: dialect.Request{Method: http.MethodGet, Path: path, Header: header}, Decode: decode}}
}

func (a *action) podsPath() string {
	return "/api/v1/namespaces/" + url.PathEscape(a.namespace) + "/pods"
}

// located is a container with the Pod that it was read from.
type located struct {
	neutral.Container
	pod   *corev1.Pod
	index int
}

// native is the container's name inside its Pod.
func (l *located) native() string { return l.pod.Spec.Containers[l.index].Name }

// permit asks policy about an object.
func (a *action) permit(object neutral.Object) error {
	terms, err := a.guard(object)
	a.terms = terms
	return err
}

// find gives the container that the operation names, once policy lets the caller have it.
func (a *action) find(ctx context.Context) (*located, error) {
	found, err := a.lookFor(ctx, a.op.Ref)
	if err != nil {
		return nil, err
	}
	if err := a.permitContainer(ctx, &found.Container); err != nil {
		return nil, err
	}
	return found, nil
}

// permitContainer asks policy about a container as permitSeen does.
func (a *action) permitContainer(ctx context.Context, c *neutral.Container) error {
	return a.permitSeen(ctx, containerObject(c))
}

// permitSeen asks policy about an object, and where that does not do about all that its container has by way of claims.
func (a *action) permitSeen(ctx context.Context, object neutral.Object) error {
	err := a.permit(object)
	if err == nil || object.Container == nil || len(object.Container.UnseenMounts) == 0 {
		return err
	}
	seen := *object.Container
	(&volumes{cluster: a.Cluster}).resolve(ctx, object.Namespace, &seen)
	object.Container = &seen
	return a.permit(object)
}

// lookFor resolves a reference. A Pod's own name costs one small call; ids and other names need the list.
func (a *action) lookFor(ctx context.Context, ref string) (*located, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	now := time.Now()
	if legal, kept, err := podName(ref); err == nil && len(ref) != 64 {
		pod, err := a.client.CoreV1().Pods(a.namespace).Get(ctx, legal, metav1.GetOptions{})
		switch {
		case err == nil:
			if len(pod.Spec.Containers) == 1 && displayName(pod, 0) == ref {
				return &located{Container: containerFromPod(a.cluster, pod, 0, now), pod: pod}, nil
			}
		case !apierrors.IsNotFound(err):
			return nil, nativeFault(err)
		case !kept:
			return nil, fault.New(fault.NotFound, "No such container: %s", ref) // such a name is no id either
		}
	}
	// Of the Pods only those stay that may be the one.
	var pods []corev1.Pod
	var containers []neutral.Container
	if err := a.eachPage(ctx, func(page []corev1.Pod) error {
		for i := range page {
			its := slices.DeleteFunc(containersFromPods(a.cluster, page[i:i+1], now), func(c neutral.Container) bool {
				return !mayBe(&c, ref)
			})
			if len(its) > 0 {
				pods, containers = append(pods, page[i]), append(containers, its...)
			}
		}
		return nil
	}); err != nil {
		return nil, err
	}
	sortNewestFirst(containers)
	found, err := resolveContainer(containers, ref)
	if err != nil {
		return nil, err
	}
	for i := range pods {
		pod := &pods[i]
		if pod.Name != found.Pod {
			continue
		}
		for index := range pod.Spec.Containers {
			if displayName(pod, index) == found.Name {
				return &located{Container: *found, pod: pod, index: index}, nil
			}
		}
	}
	return nil, fault.New(fault.Internal, "container %s has no Pod", ref)
}

// containerObject is what policy sees of a container.
func containerObject(c *neutral.Container) neutral.Object {
	return neutral.Object{Kind: neutral.KindContainer, Namespace: c.Namespace, Name: c.Name, Labels: c.Labels, Container: c}
}

// own refuses what would bypass a controller or take other containers along.
func (l *located) own(verb string) error {
	if l.Owner != nil {
		return belongs(l.Name, *l.Owner, verb)
	}
	if l.Siblings > 0 {
		return fault.New(fault.Conflict, "cannot %s container %s: it shares the Pod %s with %d more, and Kubernetes ends them together",
			verb, l.Name, l.Pod, l.Siblings)
	}
	return nil
}

func belongs(name string, owner neutral.Owner, verb string) error {
	what := "change the " + owner.Kind
	switch owner.Kind {
	case "Deployment", "ReplicaSet", "StatefulSet", "ReplicationController":
		what = "scale or stop the service"
	case "DaemonSet", "Job", "CronJob":
		what = "remove the service"
	case "Node":
		what = "it is part of the node itself"
	}
	return fault.New(fault.Conflict, "cannot %s container %s: it belongs to %s %s/%s; %s", verb, name, owner.Kind,
		owner.Namespace, owner.Name, what)
}
