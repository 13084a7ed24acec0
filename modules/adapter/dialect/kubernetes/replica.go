package kubernetes

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/replica"
	"github.com/isthmus-mesh/isthmus/modules/fault"
)

var _ dialect.Replicator = Dialect{}

// replicaKind is a kind that can be copied.
type replicaKind struct {
	group, resource string // of its path
	template        []string
	selector        bool // by which it finds its Pods
}

var (
	templateAt      = []string{"spec", "template"}
	deploymentKind  = replicaKind{"/apis/apps/v1", "deployments", templateAt, true}
	daemonSetKind   = replicaKind{"/apis/apps/v1", "daemonsets", templateAt, true}
	statefulSetKind = replicaKind{"/apis/apps/v1", "statefulsets", templateAt, true}
	jobKind         = replicaKind{"/apis/batch/v1", "jobs", templateAt, false}
	cronJobKind     = replicaKind{"/apis/batch/v1", "cronjobs", []string{"spec", "jobTemplate", "spec", "template"}, false}
	replicaPod      = replicaKind{"/api/v1", "pods", []string{}, false}
)

// replicaKinds are they by the words of callers of any orchestrator.
var replicaKinds = map[string]replicaKind{
	"deployment": deploymentKind, "deployments": deploymentKind, "deploy": deploymentKind, "workload": deploymentKind,
	"daemonset": daemonSetKind, "daemonsets": daemonSetKind, "ds": daemonSetKind,
	"statefulset": statefulSetKind, "statefulsets": statefulSetKind, "sts": statefulSetKind,
	"job": jobKind, "jobs": jobKind, "cronjob": cronJobKind, "cronjobs": cronJobKind, "cj": cronJobKind,
	"pod": replicaPod, "pods": replicaPod, "po": replicaPod, "container": replicaPod, "containers": replicaPod,
	"service": {group: "/api/v1", resource: "services"}, "services": {group: "/api/v1", resource: "services"}, "svc": {group: "/api/v1", resource: "services"},
	"configmap": {group: "/api/v1", resource: "configmaps"}, "configmaps": {group: "/api/v1", resource: "configmaps"},
	"cm": {group: "/api/v1", resource: "configmaps"}, "config": {group: "/api/v1", resource: "configmaps"},
	"secret": {group: "/api/v1", resource: "secrets"}, "secrets": {group: "/api/v1", resource: "secrets"},
	"persistentvolumeclaim": {group: "/api/v1", resource: "persistentvolumeclaims"}, "pvc": {group: "/api/v1", resource: "persistentvolumeclaims"},
}

func (k replicaKind) collection(namespace string) string {
	return k.group + "/namespaces/" + url.PathEscape(namespace) + "/" + k.resource
}

// replicator makes one draft.
type replicator struct {
	kind  replicaKind
	from  dialect.ObjectRef
	to    dialect.Place
	draft dialect.Draft
}

// Replicate reads an object of a Kubernetes API, or of what speaks as one.
func (Dialect) Replicate(ctx context.Context, read dialect.Read, from dialect.ObjectRef, to dialect.Place) (dialect.Draft, error) {
	kind, ok := replicaKinds[from.Kind]
	if !ok {
		return dialect.Draft{}, fault.New(fault.Unsupported, "a %s cannot be copied by a kubernetes gateway: pods, deployments, daemonsets, "+
			"statefulsets, jobs, cronjobs, services, configmaps, secrets and persistentvolumeclaims can", from.Kind)
	}
	get := func(path string) (map[string]any, error) {
		response, err := read(ctx, dialect.Request{Method: http.MethodGet, Path: path, Header: http.Header{"Accept": {mediaJSON}}})
		if err != nil {
			return nil, err
		}
		return replica.Parse(response.Body)
	}
	object, err := get(kind.collection(from.Namespace) + "/" + url.PathEscape(from.Name))
	if err != nil {
		return dialect.Draft{}, err
	}
	r := &replicator{kind: kind, from: from, to: to}
	if err := r.object(object); err != nil {
		return dialect.Draft{}, err
	}
	if kind.template != nil {
		pods := []map[string]any{object}
		if kind.selector {
			pods = nil
			var list map[string]any
			if selector := selectorText(replica.Object(object, "spec", "selector", "matchLabels")); selector != "" { // which selects all Pods
				query := url.Values{"labelSelector": {selector}}
				list, err = get(replicaPod.collection(from.Namespace) + "?" + query.Encode())
			}
			if err == nil {
				for _, item := range replica.List(list, "items") {
					if pod, ok := item.(map[string]any); ok {
						pods = append(pods, pod)
					}
				}
			}
		}
		r.digests(pods)
	}
	replica.Prune(r.draft.Body)
	r.draft.Left = append(r.draft.Left, replica.Hidden(r.draft.Body, from.Cluster)...)
	return r.draft, nil
}

// Alike tells whether a create is one of the kind that is meant by the word.
func (Dialect) Alike(req dialect.Request, kind string) bool {
	path, _, _ := strings.Cut(req.Path, "?")
	of, ok := replicaKinds[kind]
	return !ok || strings.HasPrefix(path, of.group+"/") && strings.HasSuffix(strings.TrimSuffix(path, "/"), "/"+of.resource)
}

func selectorText(labels map[string]any) string {
	var terms []string
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		value, _ := labels[key].(string)
		terms = append(terms, key+"="+value)
	}
	return strings.Join(terms, ",")
}

// same tells whether the copy is made in the cluster of its source, and beside in its namespace as well.
func (r *replicator) same() bool   { return r.from.Cluster == r.to.Cluster }
func (r *replicator) beside() bool { return r.same() && r.from.Namespace == r.to.Namespace }

func (r *replicator) left(field, reason string) {
	r.draft.Left = append(r.draft.Left, dialect.Left{Field: field, Reason: reason})
}

func (r *replicator) needed(field, reason string) {
	r.draft.Left = append(r.draft.Left, dialect.Left{Field: field, Reason: reason, Needed: true})
}

func (r *replicator) need(kind, name string, optional bool) {
	need := dialect.Need{ObjectRef: dialect.ObjectRef{Cluster: r.from.Cluster, Namespace: r.from.Namespace, Kind: kind, Name: name}, Optional: optional}
	if r.beside() || name == "" || slices.ContainsFunc(r.draft.Needs, func(n dialect.Need) bool { return n.ObjectRef == need.ObjectRef }) {
		return
	}
	r.draft.Needs = append(r.draft.Needs, need)
}

// object is the pure part: what an object that was read is made by.
func (r *replicator) object(object map[string]any) error {
	body, _ := replica.Clone(object).(map[string]any)
	metadata := replica.Object(body, "metadata")
	if metadata == nil || replica.Text(body, "kind") == "" {
		return fault.New(fault.Unavailable, "what was read is no object of Kubernetes")
	}
	delete(body, "status")
	r.metadata("metadata", metadata)
	metadata["name"], metadata["namespace"] = r.to.Name, r.to.Namespace
	delete(metadata, "generateName")
	r.draft.Body = body
	r.draft.Object = dialect.ObjectRef{Cluster: r.to.Cluster, Namespace: r.to.Namespace, Kind: strings.TrimSuffix(r.kind.resource, "s"), Name: r.to.Name}
	collection := r.kind.collection(r.to.Namespace)
	json := http.Header{"Content-Type": {mediaJSON}, "Accept": {mediaJSON}}
	r.draft.Create = dialect.Request{Method: http.MethodPost, Path: collection, Header: json}
	r.draft.Get = dialect.Request{Method: http.MethodGet, Path: collection + "/" + url.PathEscape(r.to.Name), Header: http.Header{"Accept": {mediaJSON}}}
	r.draft.Remove = dialect.Request{Method: http.MethodDelete, Path: r.draft.Get.Path + "?propagationPolicy=Background", Header: http.Header{"Accept": {mediaJSON}}}
	spec := replica.Object(body, "spec")
	switch r.kind.resource {
	case "services":
		r.service(spec)
	case "persistentvolumeclaims":
		for _, key := range []string{"volumeName", "dataSource", "dataSourceRef"} {
			delete(spec, key) // the one that was bound
		}
		if class, ok := spec["storageClassName"]; ok && !r.same() {
			text, _ := class.(string)
			r.left("spec.storageClassName", "class "+text+" is of the source's cluster: the copy gets the default one")
			delete(spec, "storageClassName")
		}
		r.left("spec", "the data in the volume stays where it is: the copy begins with an empty one")
	case "secrets", "configmaps":
		if r.kind.resource == "secrets" && replica.Empty(body["data"]) && replica.Text(object, "metadata", "annotations", "isthmus.io/data") != "" {
			r.needed("data", "docker tells the value of a secret to nobody: make secret "+r.to.Name+" in "+r.to.Cluster+" yourself")
		}
		delete(body, "stringData")
	case "jobs":
		r.job(spec)
	case "cronjobs":
		r.job(replica.Object(spec, "jobTemplate", "spec"))
	}
	if r.kind.template == nil {
		return nil
	}
	template := replica.Object(body, r.kind.template...)
	if replica.Object(template, "spec") == nil {
		return fault.New(fault.Unavailable, "what was read runs nothing")
	}
	if len(r.kind.template) > 0 {
		r.metadata(strings.Join(r.kind.template, ".")+".metadata", replica.Object(template, "metadata"))
	}
	r.pod(template, strings.TrimPrefix(strings.Join(append(slices.Clone(r.kind.template), "spec"), "."), "."))
	if r.kind.selector {
		for _, claim := range replica.List(spec, "volumeClaimTemplates") {
			if c, ok := claim.(map[string]any); ok {
				delete(c, "status")
				r.metadata("spec.volumeClaimTemplates.metadata", replica.Object(c, "metadata"))
				r.left("spec.volumeClaimTemplates["+replica.Text(c, "metadata", "name")+"]", "the data in the volumes stays where it is")
			}
		}
		r.selector(spec, template)
	}
	return nil
}

// ownOfMetadata is what the API says of an object; ownLabels are labels that controllers set.
var (
	ownOfMetadata = []string{"uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds",
		"managedFields", "selfLink", "name", "namespace", "generateName"}
	ownLabels = []string{"pod-template-hash", "controller-revision-hash", "pod-template-generation", "controller-uid", "job-name",
		"batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name", "statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index"}
	ownAnnotations = []string{"kubectl.kubernetes.io/last-applied-configuration", "deployment.kubernetes.io/revision",
		"deprecated.daemonset.template.generation", "pv.kubernetes.io/bind-completed", "pv.kubernetes.io/bound-by-controller",
		"volume.kubernetes.io/selected-node", "volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner",
		"batch.kubernetes.io/job-tracking"}
	// Labels and annotations of the gateway's in which stands what a caller said, or that a Deployment finds its Pods by.
	keptLabels      = []string{labelExport, labelWorkload, labelStored, labelAutoRemove}
	keptAnnotations = []string{annotationPorts, annotationLabels, annotationRestart, annotationHealth, annotationStopSignal, annotationEntrypoint,
		annotationOptions, annotationVolumes, annotationUpdate}
)

// metadata takes out what is the source's own.
func (r *replicator) metadata(field string, metadata map[string]any) {
	for _, key := range slices.Sorted(maps.Keys(metadata)) {
		switch {
		case key == "labels", key == "annotations":
		case slices.Contains(ownOfMetadata, key):
			if key != "name" || field == "metadata" {
				delete(metadata, key)
			}
		case key == "ownerReferences":
			r.left(field+"."+key, "the copy belongs to nobody")
			delete(metadata, key)
		case key == "finalizers":
			r.left(field+"."+key, "nobody finishes anything for the copy")
			delete(metadata, key)
		default:
			r.left(field+"."+key, "it is not known what this is")
			delete(metadata, key)
		}
	}
	labels, annotations := replica.Object(metadata, "labels"), replica.Object(metadata, "annotations")
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		network, networked := strings.CutPrefix(key, networkLabel)
		switch {
		case networked && !r.beside():
			r.needed(field+".labels["+key+"]", "network "+network+" is made by docker's callers alone: nothing would keep the copy's apart")
			delete(labels, key)
		case key == labelNetworked && r.beside():
		case slices.Contains(ownLabels, key), strings.HasPrefix(key, "isthmus.io/") && !slices.Contains(keptLabels, key):
			delete(labels, key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		switch {
		case key == annotationNetworks && r.beside(), slices.Contains(keptAnnotations, key) && !r.to.Foreign:
		case key == annotationPublished:
			r.left(field+".annotations["+key+"]", "what it publishes is a Service of its own, which is copied by itself")
			delete(annotations, key)
		case slices.Contains(keptAnnotations, key):
			r.left(field+".annotations["+key+"]", "a cluster of another orchestrator has no place for it")
			delete(annotations, key)
		case slices.Contains(ownAnnotations, key), strings.HasPrefix(key, "isthmus.io/"):
			delete(annotations, key)
		}
	}
}

// selector makes the copy find its own Pods: two of one selector in a namespace would take each other's, and a Service
// that means the source would lead to the copy.
func (r *replicator) selector(spec, template map[string]any) {
	if !r.beside() {
		return
	}
	matched, labels := replica.Object(spec, "selector", "matchLabels"), replica.Object(template, "metadata", "labels")
	var renamed []string
	for _, key := range slices.Sorted(maps.Keys(matched)) {
		if matched[key] == r.from.Name {
			renamed = append(renamed, key)
		}
	}
	if len(renamed) == 0 && len(matched) > 0 {
		renamed = slices.Sorted(maps.Keys(matched))[:1]
	}
	for _, key := range renamed {
		matched[key] = r.to.Name
		if labels != nil {
			labels[key] = r.to.Name
		}
		r.left("spec.template.metadata.labels["+key+"]", "it is "+r.to.Name+" in the copy, by which it finds its own Pods")
		r.left("spec.selector.matchLabels["+key+"]", "it is "+r.to.Name+" in the copy: Services that select the source do not lead to it")
	}
}

// service takes out what a Service has of its cluster.
func (r *replicator) service(spec map[string]any) {
	for _, key := range []string{"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "healthCheckNodePort"} {
		if key == "clusterIP" && spec[key] == "None" {
			continue // headless
		}
		delete(spec, key)
	}
	for _, key := range []string{"externalIPs", "loadBalancerIP", "loadBalancerSourceRanges"} {
		if !replica.Empty(spec[key]) && !r.same() || key == "loadBalancerIP" && !replica.Empty(spec[key]) {
			r.left("spec."+key, "addresses are the source's cluster's")
			delete(spec, key)
		}
	}
	for _, element := range replica.List(spec, "ports") {
		port, _ := element.(map[string]any)
		if !replica.Empty(port["nodePort"]) {
			r.left("spec.ports["+replica.Text(port, "name")+"].nodePort", "the copy's cluster chooses one")
			delete(port, "nodePort")
		}
	}
}

// job takes out what a Job finds its Pods by, unless its maker chose it.
func (r *replicator) job(spec map[string]any) {
	if manual, _ := spec["manualSelector"].(bool); !manual {
		delete(spec, "selector")
		return
	}
	r.left("spec.selector", "the copy finds its Pods by a selector of its own")
	delete(spec, "selector")
	delete(spec, "manualSelector")
}

// digests puts the images' digests that the Pods tell into the copy. Pods of two digests tell none, and neither do Pods that
// run another image: of an earlier revision, or of somebody else who uses the same labels.
func (r *replicator) digests(pods []map[string]any) {
	type run struct{ container, image string }
	known := map[run]string{}
	for _, pod := range pods {
		images := map[string]string{} // by container
		for _, list := range []string{"containers", "initContainers"} {
			for _, element := range replica.List(pod, "spec", list) {
				container, _ := element.(map[string]any)
				name, _ := container["name"].(string)
				images[name], _ = container["image"].(string)
			}
		}
		for _, list := range []string{"containerStatuses", "initContainerStatuses"} {
			for _, element := range replica.List(pod, "status", list) {
				status, _ := element.(map[string]any)
				name, _ := status["name"].(string)
				id, _ := status["imageID"].(string)
				if _, rest, ok := strings.Cut(id, "://"); ok {
					id = rest
				}
				of := run{name, images[name]}
				if before, ok := known[of]; ok && before != id {
					id = ""
				}
				known[of] = id
			}
		}
	}
	spec := replica.Object(r.draft.Body, append(slices.Clone(r.kind.template), "spec")...)
	for _, list := range []string{"containers", "initContainers"} {
		for _, element := range replica.List(spec, list) {
			container, _ := element.(map[string]any)
			name, _ := container["name"].(string)
			image, _ := container["image"].(string)
			if image == "" || strings.Contains(image, "@") {
				continue
			}
			repository, digest, ok := strings.Cut(known[run{name, image}], "@")
			if ok && familiarRepository(repository) == familiarRepository(repositoryOfImage(image)) {
				container["image"] = image + "@" + digest
				continue
			}
			r.left(strings.TrimPrefix(strings.Join(append(slices.Clone(r.kind.template), "spec", list+"["+name+"]", "image"), "."), "."),
				"the source's cluster knows no digest of "+image+": the copy runs what its own cluster finds under this name")
		}
	}
}

func repositoryOfImage(image string) string {
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		return image[:i]
	}
	return image
}

func familiarRepository(repository string) string {
	return strings.TrimPrefix(strings.TrimPrefix(repository, "docker.io/"), "library/")
}
