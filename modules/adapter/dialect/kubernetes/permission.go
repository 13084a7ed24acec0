package kubernetes

import (
	"context"
	"slices"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// use is what a plan of several calls, or a stream, does with a resource, in the words of RBAC: "get,list pods". when
// says under which circumstances; "" is always.
type use struct{ what, when string }

const (
	whenReplaced   = "where the container had ended: its Pod is replaced"
	whenSignalled  = "for another signal than the container's own"
	whenPublished  = "where ports are published"
	whenExported   = "where it is exported"
	whenGlobal     = "for a global service"
	whenJob        = "for a job"
	whenReplicated = "for a replicated service"
	whenNetworked  = "where it is on a network that callers made"
	whenMounted    = "where it mounts volumes"
	whenGiven      = "where it is given secrets or configs"
	whenHalf       = "where a part of it cannot be made"
	whenDropped    = "where volumes that nobody named go with it"
	whenForeign    = "for a StatefulSet, which docker does not make"
)

var (
	looks    = always("get,list pods")
	follows  = always("list,watch pods")
	execs    = always("get,create pods/exec")
	replaces = []use{{"create,delete pods", whenReplaced}, {"create,delete,list secrets", whenReplaced}}
	rebuilds = []use{{"list,watch,create,delete pods", "where the container has not been started: its Pod is replaced"},
		{"create,delete,list secrets", "where the container has not been started: its Pod is replaced"}}
	notifies = []use{{"get,create pods/exec", whenSignalled}}
	searches = always("list deployments.apps,daemonsets.apps,statefulsets.apps,jobs.batch")
	tasks    = slices.Concat(searches, always("list replicasets.apps"))
	names    = []use{{"list networkpolicies.networking.k8s.io", whenNetworked}, {"list,create,update,delete endpointslices.discovery.k8s.io", whenNetworked}}
	drops    = []use{{"get,delete persistentvolumeclaims", whenDropped}, {"list pods", whenDropped}}
	nets     = always("list networkpolicies.networking.k8s.io")
	users    = slices.Concat(always("list pods"), searches)
	places   = []use{{"get,create,delete persistentvolumeclaims", whenMounted}, {"list,create networkpolicies.networking.k8s.io", whenNetworked},
		{"list secrets,configmaps", whenGiven}}
	offers = []use{{"get services", ""}, {"create,update,delete services", whenPublished},
		{"get,create,delete serviceexports.multicluster.x-k8s.io", whenExported}}
)

func always(what string) []use { return []use{{what, ""}} }

// used says it for each action that is not one call; for those the call says it itself.
var used = map[neutral.Action][]use{
	neutral.SystemInfo: slices.Concat(always("list pods"), always("list nodes")),
	neutral.EventWatch: follows,

	// Where there are many Pods; one call else.
	neutral.ContainerList:    always("list pods"),
	neutral.ContainerInspect: looks,

	neutral.ContainerStart:   slices.Concat(looks, follows, always("patch pods"), replaces, names),
	neutral.ContainerStop:    slices.Concat(looks, follows, always("patch pods"), notifies),
	neutral.ContainerPause:   slices.Concat(looks, follows, always("patch pods")),
	neutral.ContainerUnpause: slices.Concat(looks, follows, always("patch pods"), replaces, names),
	neutral.ContainerKill:    slices.Concat(looks, follows, always("patch pods"), notifies),
	neutral.ContainerRestart: slices.Concat(looks, follows, always("patch,create,delete pods"), always("create,delete,list secrets"), notifies, names),
	neutral.ContainerRemove:  slices.Concat(looks, follows, always("delete pods"), []use{{"delete secrets", whenReplaced}}, drops),
	neutral.ContainerPrune:   always("list,delete pods"),
	neutral.ContainerUpdate:  slices.Concat(looks, follows, always("patch pods/resize")),
	neutral.ContainerTop:     slices.Concat(looks, execs),
	neutral.ContainerStats:   slices.Concat(looks, execs),
	neutral.ContainerStat:    slices.Concat(looks, execs),
	neutral.ContainerCopyIn:  slices.Concat(looks, execs),
	neutral.ContainerCopyOut: slices.Concat(looks, execs),
	neutral.ContainerExport:  slices.Concat(looks, execs),
	neutral.ContainerWait:    slices.Concat(looks, follows),
	neutral.ContainerLogs:    slices.Concat(looks, always("get pods/log"), []use{{"list,watch pods", "where the log is followed"}}),
	neutral.ContainerAttach:  slices.Concat(looks, follows, always("get,create pods/attach"), always("get pods/log")),
	neutral.ExecCreate:       looks,
	neutral.ExecStart:        slices.Concat(looks, execs),

	neutral.WorkloadList:    searches,
	neutral.WorkloadInspect: searches,
	neutral.WorkloadCreate: slices.Concat([]use{{"create,get deployments.apps", whenReplicated}}, []use{{"create,get daemonsets.apps", whenGlobal}},
		[]use{{"create jobs.batch", whenJob}}, []use{{"delete deployments.apps", whenHalf}}, offers, places),
	neutral.WorkloadUpdate: slices.Concat(searches, []use{{"get,update deployments.apps", whenReplicated}}, []use{{"get,update daemonsets.apps", whenGlobal}},
		[]use{{"get,update statefulsets.apps", whenForeign}}, []use{{"list replicasets.apps", "for a rollback"}}, offers, places),
	neutral.WorkloadRemove: slices.Concat(searches, []use{{"delete deployments.apps", whenReplicated}}, []use{{"delete daemonsets.apps", whenGlobal}},
		[]use{{"delete jobs.batch", whenJob}}, []use{{"delete statefulsets.apps", whenForeign}}),
	neutral.WorkloadLogs: slices.Concat(tasks, always("list,watch pods"), always("get pods"), always("get pods/log")),
	neutral.TaskList:     slices.Concat(tasks, always("list pods")),
	neutral.TaskInspect:  slices.Concat(tasks, always("list pods")),
	neutral.TaskLogs:     slices.Concat(tasks, always("list,watch pods"), always("get pods"), always("get pods/log")),

	neutral.VolumeCreate: always("get,create persistentvolumeclaims"),
	neutral.VolumeRemove: slices.Concat(always("get,delete persistentvolumeclaims"), always("list pods")),
	neutral.VolumePrune:  slices.Concat(always("list,delete persistentvolumeclaims"), always("list pods")),

	neutral.NetworkGet: slices.Concat(nets, always("list pods")),
	neutral.NetworkCreate: slices.Concat(always("create networkpolicies.networking.k8s.io"), always("create services"),
		[]use{{"get services", "where there is one of its name"}},
		[]use{{"get networkpolicies.networking.k8s.io", whenHalf}, {"delete services", whenHalf}}),
	neutral.NetworkRemove: slices.Concat(nets, users, always("get,delete networkpolicies.networking.k8s.io"), always("get,delete services")),
	neutral.NetworkPrune:  slices.Concat(nets, users, always("get,delete networkpolicies.networking.k8s.io"), always("get,delete services")),
	neutral.NetworkJoin:   slices.Concat(nets, looks, always("patch pods"), always("list,create,update,delete endpointslices.discovery.k8s.io"), rebuilds),
	neutral.NetworkLeave:  slices.Concat(nets, looks, always("patch pods"), always("list,create,update,delete endpointslices.discovery.k8s.io"), rebuilds),

	neutral.SecretList:   always("list secrets"),
	neutral.SecretGet:    always("list secrets"),
	neutral.SecretCreate: always("create secrets"),
	neutral.SecretUpdate: always("list,patch secrets"),
	neutral.SecretRemove: slices.Concat(always("list,delete secrets"), searches),
	neutral.ConfigList:   always("list configmaps"),
	neutral.ConfigGet:    always("list configmaps"),
	neutral.ConfigCreate: always("create configmaps"),
	neutral.ConfigUpdate: always("list,patch configmaps"),
	neutral.ConfigRemove: slices.Concat(always("list,delete configmaps"), searches),
}

// clusterScoped are resources of the table above that are in no namespace.
var clusterScoped = map[string]bool{"nodes": true}

// permission is one question to the API server.
type permission struct {
	resource    *authorizationv1.ResourceAttributes
	nonResource *authorizationv1.NonResourceAttributes
	when        string
}

// each takes a use apart: one question for each of its verbs on each of its resources.
func (u use) each(namespace string) []permission {
	verbs, resources, _ := strings.Cut(u.what, " ")
	var all []permission
	for qualified := range strings.SplitSeq(resources, ",") {
		resource, group, _ := strings.Cut(qualified, ".")
		resource, subresource, _ := strings.Cut(resource, "/")
		in := namespace
		if clusterScoped[resource] {
			in = ""
		}
		for verb := range strings.SplitSeq(verbs, ",") {
			all = append(all, permission{when: u.when, resource: &authorizationv1.ResourceAttributes{
				Verb: verb, Group: group, Resource: resource, Subresource: subresource, Namespace: in}})
		}
	}
	return all
}

// ofCall is what one native call takes.
func ofCall(call dialect.Request) ([]permission, error) {
	t, err := parseTarget(call.Method, call.Path)
	if err != nil {
		return nil, err
	}
	if t.resource == "" {
		return []permission{{nonResource: &authorizationv1.NonResourceAttributes{Path: t.system, Verb: strings.ToLower(call.Method)}}}, nil
	}
	verb, err := t.verb(call.Method)
	if err != nil {
		return nil, err
	}
	attributes := authorizationv1.ResourceAttributes{Verb: string(verb), Group: t.group, Version: t.version, Resource: t.resource,
		Subresource: t.subresource, Namespace: t.namespace, Name: t.name}
	all := []permission{{resource: &attributes}}
	if verb == verbPatch && call.Header.Get("Content-Type") == "application/apply-patch+yaml" {
		creates := attributes
		creates.Verb, creates.Name = string(verbCreate), ""
		all = append(all, permission{resource: &creates, when: "where there is none of that name yet"})
	}
	return all, nil
}

func (p permission) String() string {
	if p.nonResource != nil {
		return p.nonResource.Verb + " " + p.nonResource.Path
	}
	r := *p.resource
	name := r.Resource
	if r.Subresource != "" {
		name += "/" + r.Subresource
	}
	if r.Group != "" {
		name += "." + r.Group
	}
	if r.Name != "" {
		name += " " + r.Name
	}
	if r.Namespace == "" {
		return r.Verb + " " + name + " in the whole cluster"
	}
	return r.Verb + " " + name + " in the namespace " + r.Namespace
}

var _ dialect.Permitter = (*Cluster)(nil)

// Permissions asks the API server about each right that a request takes, as the actor.
//
// https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/self-subject-access-review-v1/
func (c *Cluster) Permissions(ctx context.Context, actor dialect.Actor, op neutral.Operation, call *dialect.Request) ([]dialect.Permission, error) {
	var wanted []permission
	if call != nil {
		var err error
		if wanted, err = ofCall(*call); err != nil {
			return nil, err
		}
	} else {
		namespace := op.Object.Namespace
		if namespace == "" {
			namespace = c.namespace
		}
		for _, u := range used[op.Action] {
			wanted = append(wanted, u.each(namespace)...)
		}
	}
	ctx = dialect.WithActor(ctx, actor)
	asked := map[string]bool{}
	var answers []dialect.Permission
	for _, p := range wanted {
		if asked[p.String()] {
			continue
		}
		asked[p.String()] = true
		allowed, err := c.permits(ctx, p)
		if err != nil {
			return nil, err
		}
		answers = append(answers, dialect.Permission{Right: p.String(), When: p.when, Allowed: allowed})
	}
	return answers, nil
}

func (c *Cluster) permits(ctx context.Context, p permission) (bool, error) {
	if p.resource != nil {
		return c.may(ctx, *p.resource)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{NonResourceAttributes: p.nonResource}}
	answer, err := c.client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
	if err != nil {
		return false, nativeFault(err)
	}
	return answer.Status.Allowed, nil
}

// Subject is who the API server takes an actor for.
func (c *Cluster) Subject(actor dialect.Actor) string {
	if !c.impersonate {
		return "the gateway's account"
	}
	return peerIdentity + actor.Peer
}
