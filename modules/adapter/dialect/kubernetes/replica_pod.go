package kubernetes

import (
	"fmt"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/adapter/replica"
)

// accountMount is where the API server mounts the token of a Pod's account by itself.
const accountMount = "/var/run/secrets/kubernetes.io/serviceaccount"

// pod takes out of a Pod, or a template of one, what is of its node, its namespace and its cluster.
func (r *replicator) pod(pod map[string]any, field string) {
	spec := replica.Object(pod, "spec")
	for _, key := range []string{"nodeName", "serviceAccount", "priority", "preemptionPolicy"} {
		delete(spec, key) // what the scheduler and admission said
	}
	spec["schedulingGates"] = slices.DeleteFunc(replica.List(spec, "schedulingGates"), func(element any) bool {
		gate, _ := element.(map[string]any)
		return gate["name"] == gateNotStarted
	})
	if enable, _ := spec["enableServiceLinks"].(bool); enable {
		delete(spec, "enableServiceLinks")
	}
	r.account(spec, field)
	r.tolerations(spec)
	if selector := replica.Object(spec, "nodeSelector"); selector["kubernetes.io/hostname"] != nil && !r.same() {
		r.left(field+".nodeSelector[kubernetes.io/hostname]", "it names a node of the source's cluster")
		delete(selector, "kubernetes.io/hostname")
	}
	if !r.same() {
		if !replica.Empty(spec["hostAliases"]) {
			r.left(field+".hostAliases", "addresses are the source's cluster's")
			delete(spec, "hostAliases")
		}
		if dns := replica.Object(spec, "dnsConfig"); !replica.Empty(dns["nameservers"]) {
			r.left(field+".dnsConfig.nameservers", "addresses are the source's cluster's")
			delete(dns, "nameservers")
		}
	}
	for _, element := range replica.List(spec, "imagePullSecrets") {
		reference, _ := element.(map[string]any)
		name, _ := reference["name"].(string)
		r.need("secret", name, false)
	}
	gone := r.volumes(spec, field)
	for _, list := range []string{"containers", "initContainers", "ephemeralContainers"} {
		for _, element := range replica.List(spec, list) {
			if container, ok := element.(map[string]any); ok {
				name, _ := container["name"].(string)
				r.container(container, field+"."+list+"["+name+"]", gone)
			}
		}
	}
	if !replica.Empty(spec["ephemeralContainers"]) {
		r.left(field+".ephemeralContainers", "nobody can create a Pod with them")
		delete(spec, "ephemeralContainers")
	}
}

// account leaves the account to the copy's namespace: one that is not there, or has other rights, is none.
func (r *replicator) account(spec map[string]any, field string) {
	name, _ := spec["serviceAccountName"].(string)
	if name == "" || r.beside() {
		return
	}
	delete(spec, "serviceAccountName")
	if name != "default" {
		r.left(field+".serviceAccountName", "account "+name+" and its rights are of the source's namespace: the copy runs as default")
	}
}

// tolerations takes out those that admission adds to every Pod.
func (r *replicator) tolerations(spec map[string]any) {
	var kept []any
	for _, element := range replica.List(spec, "tolerations") {
		toleration, _ := element.(map[string]any)
		key, _ := toleration["key"].(string)
		if (key == "node.kubernetes.io/not-ready" || key == "node.kubernetes.io/unreachable") && fmt.Sprint(toleration["tolerationSeconds"]) == "300" {
			continue
		}
		kept = append(kept, element)
	}
	spec["tolerations"] = kept
}

// portable are sources of volumes that are the same in every cluster, or are objects that the copy needs.
var portable = []string{"emptyDir", "downwardAPI", "configMap", "secret", "projected", "persistentVolumeClaim", "ephemeral", "image"}

// volumes tells which volumes do not go with the copy, true for those that somebody asked for, and notes which objects the others are of.
func (r *replicator) volumes(spec map[string]any, field string) map[string]bool {
	gone := map[string]bool{}
	var kept []any
	for _, element := range replica.List(spec, "volumes") {
		volume, _ := element.(map[string]any)
		name, _ := volume["name"].(string)
		at := field + ".volumes[" + name + "]"
		if strings.HasPrefix(name, "kube-api-access-") && volume["projected"] != nil {
			gone[name] = false // which admission adds
			continue
		}
		foreign := ""
		for source := range volume {
			if source != "name" && !slices.Contains(portable, source) {
				foreign = source
			}
		}
		switch {
		case foreign == "hostPath" && !r.same():
			r.needed(at, replica.Text(volume, "hostPath", "path")+" is a path of the source's host")
			gone[name] = true
			continue
		case foreign != "" && !r.same():
			r.needed(at, foreign+" is a storage of the source's cluster")
			gone[name] = true
			continue
		}
		r.volume(volume, at)
		kept = append(kept, element)
	}
	spec["volumes"] = kept
	return gone
}

func (r *replicator) volume(volume map[string]any, at string) {
	optional := func(of map[string]any) bool { o, _ := of["optional"].(bool); return o }
	if claim := replica.Text(volume, "persistentVolumeClaim", "claimName"); claim != "" {
		if r.beside() {
			r.left(at, "the copy uses the same volume "+claim+" as its source")
		} else {
			r.left(at, "the data in volume "+claim+" stays where it is: the copy begins with an empty volume of this name, unless there is one")
			r.need("persistentvolumeclaim", claim, false)
		}
	}
	sources := append([]any{volume}, replica.List(volume, "projected", "sources")...)
	for _, element := range sources {
		source, _ := element.(map[string]any)
		if of := replica.Object(source, "configMap"); of != nil {
			name, _ := of["name"].(string)
			r.need("configmap", name, optional(of))
		}
		if of := replica.Object(source, "secret"); of != nil {
			name, _ := of["secretName"].(string)
			if name == "" {
				name, _ = of["name"].(string)
			}
			r.need("secret", name, optional(of))
		}
	}
}

// container notes which objects a container's environment is of, and takes out mounts of volumes that are gone.
func (r *replicator) container(container map[string]any, field string, gone map[string]bool) {
	var mounts []any
	for _, element := range replica.List(container, "volumeMounts") {
		mount, _ := element.(map[string]any)
		name, _ := mount["name"].(string)
		tell, without := gone[name]
		if tell {
			r.left(field+".volumeMounts["+name+"]", "its volume does not travel")
		}
		if without || mount["mountPath"] == accountMount {
			continue
		}
		mounts = append(mounts, element)
	}
	container["volumeMounts"] = mounts
	optional := func(of map[string]any) bool { o, _ := of["optional"].(bool); return o }
	for _, element := range replica.List(container, "env") {
		variable, _ := element.(map[string]any)
		for key, kind := range map[string]string{"configMapKeyRef": "configmap", "secretKeyRef": "secret"} {
			if of := replica.Object(variable, "valueFrom", key); of != nil {
				name, _ := of["name"].(string)
				r.need(kind, name, optional(of))
			}
		}
	}
	for _, element := range replica.List(container, "envFrom") {
		source, _ := element.(map[string]any)
		for key, kind := range map[string]string{"configMapRef": "configmap", "secretRef": "secret"} {
			if of := replica.Object(source, key); of != nil {
				name, _ := of["name"].(string)
				r.need(kind, name, optional(of))
			}
		}
	}
	if r.beside() {
		for _, element := range replica.List(container, "ports") {
			port, _ := element.(map[string]any)
			if !replica.Empty(port["hostPort"]) && fmt.Sprint(port["hostPort"]) != "0" {
				r.left(field+".ports["+fmt.Sprint(port["containerPort"])+"].hostPort", "port "+fmt.Sprint(port["hostPort"])+" of the nodes is the source's")
				delete(port, "hostPort")
			}
		}
	}
}
