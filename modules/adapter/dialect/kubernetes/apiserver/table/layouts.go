package table

import (
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

type columns = []metav1.TableColumnDefinition

func core(name string) schema.GroupResource { return schema.GroupResource{Resource: name} }
func apps(name string) schema.GroupResource {
	return schema.GroupResource{Group: appsv1.GroupName, Resource: name}
}

var (
	containersColumn = wide(text("Containers", "Names of the containers of the template."))
	imagesColumn     = wide(text("Images", "Images of the containers of the template."))

	configMapDoc      = corev1.ConfigMap{}.SwaggerDoc()
	daemonSetSpec     = appsv1.DaemonSetSpec{}.SwaggerDoc()
	daemonSetStatus   = appsv1.DaemonSetStatus{}.SwaggerDoc()
	deploymentSpec    = appsv1.DeploymentSpec{}.SwaggerDoc()
	deploymentStatus  = appsv1.DeploymentStatus{}.SwaggerDoc()
	eventDoc          = corev1.Event{}.SwaggerDoc()
	jobSpec           = batchv1.JobSpec{}.SwaggerDoc()
	jobStatus         = batchv1.JobStatus{}.SwaggerDoc()
	namespaceStatus   = corev1.NamespaceStatus{}.SwaggerDoc()
	nodeInfo          = corev1.NodeSystemInfo{}.SwaggerDoc()
	nodeStatus        = corev1.NodeStatus{}.SwaggerDoc()
	podSpec           = corev1.PodSpec{}.SwaggerDoc()
	podStatus         = corev1.PodStatus{}.SwaggerDoc()
	replicaSetSpec    = appsv1.ReplicaSetSpec{}.SwaggerDoc()
	replicaSetStatus  = appsv1.ReplicaSetStatus{}.SwaggerDoc()
	secretDoc         = corev1.Secret{}.SwaggerDoc()
	serviceSpec       = corev1.ServiceSpec{}.SwaggerDoc()
	sliceDoc          = discoveryv1.EndpointSlice{}.SwaggerDoc()
	volumeClaimSpec   = corev1.PersistentVolumeClaimSpec{}.SwaggerDoc()
	volumeClaimStatus = corev1.PersistentVolumeClaimStatus{}.SwaggerDoc()
)

// layouts are the kinds that have one of their own.
var layouts = map[schema.GroupResource]layout{
	core("pods"): laidOutRows(columns{
		nameColumn,
		text("Ready", "How many of the pod's containers are ready, of how many."),
		text("Status", "What the pod is doing, from its phase and from the states of its containers."),
		text("Restarts", "How often the pod's containers were restarted, and when last."),
		ageColumn,
		wide(text("IP", podStatus["podIP"])),
		wide(text("Node", podSpec["nodeName"])),
		wide(text("Nominated Node", podStatus["nominatedNodeName"])),
		wide(text("Readiness Gates", podSpec["readinessGates"])),
	}, podRow),
	core("services"): laidOut(columns{
		nameColumn,
		text("Type", serviceSpec["type"]),
		text("Cluster-IP", serviceSpec["clusterIP"]),
		text("External-IP", serviceSpec["externalIPs"]),
		text("Port(s)", serviceSpec["ports"]),
		ageColumn,
		wide(text("Selector", serviceSpec["selector"])),
	}, serviceCells),
	{Group: discoveryv1.GroupName, Resource: "endpointslices"}: laidOut(columns{
		nameColumn,
		text("AddressType", sliceDoc["addressType"]),
		text("Ports", sliceDoc["ports"]),
		text("Endpoints", sliceDoc["endpoints"]),
		ageColumn,
	}, endpointSliceCells),
	core("configmaps"): laidOut(columns{nameColumn, text("Data", configMapDoc["data"]), ageColumn}, configMapCells),
	core("secrets"): laidOut(columns{
		nameColumn, text("Type", secretDoc["type"]), text("Data", secretDoc["data"]), ageColumn,
	}, secretCells),
	core("namespaces"): laidOut(columns{nameColumn, text("Status", namespaceStatus["phase"]), ageColumn}, namespaceCells),
	core("nodes"): laidOut(columns{
		nameColumn,
		text("Status", nodeStatus["conditions"]),
		text("Roles", "The roles that the node's labels tell."),
		ageColumn,
		text("Version", nodeInfo["kubeletVersion"]),
		wide(text("Internal-IP", nodeStatus["addresses"])),
		wide(text("External-IP", nodeStatus["addresses"])),
		wide(text("OS-Image", nodeInfo["osImage"])),
		wide(text("Kernel-Version", nodeInfo["kernelVersion"])),
		wide(text("Container-Runtime", nodeInfo["containerRuntimeVersion"])),
	}, nodeCells),
	core("events"): laidOut(columns{
		text("Last Seen", eventDoc["lastTimestamp"]),
		text("Type", eventDoc["type"]),
		text("Reason", eventDoc["reason"]),
		text("Object", eventDoc["involvedObject"]),
		wide(text("Subobject", "The part of the object that the event is about.")),
		wide(text("Source", eventDoc["source"])),
		text("Message", eventDoc["message"]),
		wide(text("First Seen", eventDoc["firstTimestamp"])),
		wide(text("Count", eventDoc["count"])),
		wide(nameColumn),
	}, eventCells),
	core("persistentvolumeclaims"): laidOut(columns{
		nameColumn,
		text("Status", volumeClaimStatus["phase"]),
		text("Volume", volumeClaimSpec["volumeName"]),
		text("Capacity", volumeClaimStatus["capacity"]),
		text("Access Modes", volumeClaimStatus["accessModes"]),
		text("StorageClass", volumeClaimSpec["storageClassName"]),
		text("VolumeAttributesClass", volumeClaimSpec["volumeAttributesClassName"]),
		ageColumn,
		wide(text("VolumeMode", volumeClaimSpec["volumeMode"])),
	}, volumeClaimCells),
	apps("deployments"): laidOut(columns{
		nameColumn,
		text("Ready", "How many pods are ready, of how many that are wanted."),
		text("Up-to-date", deploymentStatus["updatedReplicas"]),
		text("Available", deploymentStatus["availableReplicas"]),
		ageColumn, containersColumn, imagesColumn,
		wide(text("Selector", deploymentSpec["selector"])),
	}, deploymentCells),
	apps("replicasets"): laidOut(columns{
		nameColumn,
		number("Desired", replicaSetSpec["replicas"]),
		number("Current", replicaSetStatus["replicas"]),
		number("Ready", replicaSetStatus["readyReplicas"]),
		ageColumn, containersColumn, imagesColumn,
		wide(text("Selector", replicaSetSpec["selector"])),
	}, replicaSetCells),
	apps("daemonsets"): laidOut(columns{
		nameColumn,
		number("Desired", daemonSetStatus["desiredNumberScheduled"]),
		number("Current", daemonSetStatus["currentNumberScheduled"]),
		number("Ready", daemonSetStatus["numberReady"]),
		number("Up-to-date", daemonSetStatus["updatedNumberScheduled"]),
		number("Available", daemonSetStatus["numberAvailable"]),
		text("Node Selector", podSpec["nodeSelector"]),
		ageColumn, containersColumn, imagesColumn,
		wide(text("Selector", daemonSetSpec["selector"])),
	}, daemonSetCells),
	{Group: batchv1.GroupName, Resource: "jobs"}: laidOut(columns{
		nameColumn,
		text("Status", jobStatus["conditions"]),
		text("Completions", jobStatus["succeeded"]),
		text("Duration", "How long the job ran, or runs."),
		ageColumn, containersColumn, imagesColumn,
		wide(text("Selector", jobSpec["selector"])),
	}, jobCells),
}
