package podspec

const (
	reasonHost       = "tasks of a Swarm do not share namespaces with their host"
	reasonScheduling = "an engine has no scheduler of Pods"
	reasonProbe      = "an engine checks a container by a command that runs in it, and by one only"
	reasonKind       = "an engine has no volumes of this kind"
	reasonOwner      = "the files of config maps and secrets are root's on an engine"
	reasonWindows    = "the engine's containers run Linux"
	reasonLabelled   = "labels of SELinux cannot be chosen on an engine from here"
	reasonProfile    = "a profile of a host's files cannot be given to an engine by its name"
	reasonDevices    = "devices cannot be claimed on an engine"
	reasonUnmet      = "it is a condition that Swarm's constraints cannot express"
	reasonExclusive  = "an engine gives no container away from, or next to, others"
	reasonDownward   = "it is not known before there is a Pod, or is an address"
	reasonSecret     = "an engine shows the variables of a container to whoever may inspect it; mount the secret as a file"
	reasonOneTask    = "a task of a Swarm is one container; several share a Pod that no workload keeps"
	reasonToken      = "there are no accounts, and no tokens of them"
)

// disposals settle the fields that a container has no place for, or that could not be read into it. What changes who may
// do what, or what becomes of data, is refused. A field that is not here is refused too.
var disposals = map[string]disposal{
	"activeDeadlineSeconds":        {reason: "an engine does not end a container after a time"},
	"automountServiceAccountToken": {lost: true, reason: reasonToken},
	"serviceAccountName":           {lost: true, reason: reasonToken},
	"serviceAccount":               {lost: true, reason: reasonToken},
	"hostPID":                      {reason: reasonHost},
	"hostIPC":                      {reason: reasonHost},
	"hostUsers":                    {reason: "an engine maps users for all of its containers or for none"},
	"shareProcessNamespace":        {lost: true, reason: "the Pod has one container, or its host's processes"},
	"imagePullSecrets":             {reason: "an engine is logged in to registries by itself, and credentials in secrets are not handed to it"},
	"subdomain":                    {lost: true, reason: "tasks of a Swarm have no domain"},
	"setHostnameAsFQDN":            {lost: true, reason: "a container's host has no domain of the cluster"},
	"hostAliases[].ip":             {lost: true, reason: "it is given no name"},
	"schedulerName":                {lost: true, reason: reasonScheduling},
	"schedulingGates":              {reason: "a container that is made is started"},
	"schedulingGroup":              {reason: "containers are not started together or not at all"},
	"priorityClassName":            {lost: true, reason: reasonScheduling},
	"priority":                     {lost: true, reason: reasonScheduling},
	"preemptionPolicy":             {lost: true, reason: reasonScheduling},
	"tolerations[]":                {lost: true, reason: "the nodes have no taints"},
	"readinessGates[]":             {lost: true, reason: "nobody sets conditions of a Pod from outside"},
	"evictionResponders":           {lost: true, reason: "nothing evicts a container"},
	"runtimeClassName":             {reason: "a runtime isolates a container in its own way, and an engine has others"},
	"overhead":                     {lost: true, reason: "it is what a runtime class adds, and there is none"},
	"os":                           {reason: reasonWindows},
	"resources":                    {reason: "resources are those of a container; say them there"},
	"resourceClaims":               {reason: reasonDevices},
	"nodeSelector[]":               {reason: reasonUnmet},
	"topologySpreadConstraints[]":  {reason: "how tasks spread cannot be said from here; ask with whenUnsatisfiable: ScheduleAnyway"},
	"affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution":        {reason: reasonExclusive},
	"affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[]":     {lost: true, reason: reasonExclusive},
	"affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution":    {reason: reasonExclusive},
	"affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[]": {lost: true, reason: reasonExclusive},
	"affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution":       {reason: reasonUnmet},
	"affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[]":    {lost: true, reason: "constraints know no preferences"},
	"restartPolicy":                            {reason: "an engine knows Always, OnFailure and Never"},
	"dnsPolicy":                                {reason: "it is none of Kubernetes' policies"},
	"securityContext.fsGroupChangePolicy":      {lost: true, reason: "an engine leaves the files of volumes to their owners"},
	"securityContext.supplementalGroupsPolicy": {reason: "an engine always adds the groups that the image gives its user"},
	"securityContext.seLinuxOptions":           {reason: reasonLabelled},
	"securityContext.seLinuxChangePolicy":      {lost: true, reason: "no volume is labelled"},
	"securityContext.windowsOptions":           {reason: reasonWindows},
	"securityContext.seccompProfile":           {reason: reasonProfile},
	"securityContext.appArmorProfile":          {reason: reasonProfile},
	"securityContext.runAsGroup":               {reason: "an engine sets a group beside a user only; say runAsUser too"},
	"securityContext.runAsNonRoot":             {reason: "whether the image's user is root is not known before it runs; say runAsUser"},

	"containers[].restartPolicy":            {reason: "a container restarts as its Pod does"},
	"containers[].restartPolicyRules":       {reason: "an engine restarts a container on every failure, or on none"},
	"containers[].resizePolicy":             {lost: true, reason: "an engine changes the resources of a container that runs by itself"},
	"containers[].resources.claims":         {reason: reasonDevices},
	"containers[].resources.limits[]":       {reason: "an engine limits CPU and memory"},
	"containers[].resources.requests[]":     {reason: "an engine reserves CPU and memory"},
	"containers[].imagePullPolicy":          {lost: true, reason: "the nodes of a Swarm pull what the image's name stood for when the service was made"},
	"containers[].stdinOnce":                {lost: true, reason: "the input of a task stays open"},
	"containers[].terminationMessagePath":   {lost: true, reason: "an engine reads no message of a container that ended"},
	"containers[].terminationMessagePolicy": {lost: true, reason: "an engine reads no message of a container that ended"},
	"containers[].livenessProbe":            {lost: true, reason: reasonProbe},
	"containers[].readinessProbe":           {lost: true, reason: reasonProbe},
	"containers[].startupProbe":             {lost: true, reason: reasonProbe},
	"containers[].lifecycle.postStart":      {reason: "an engine runs nothing beside a container's own command when it starts"},
	"containers[].lifecycle.preStop":        {reason: "an engine stops a container by a signal and runs nothing before; hooks that only wait are left out"},
	"containers[].ports[].hostIP":           {reason: "a Swarm publishes on all addresses of a node, or on none"},
	"containers[].volumeDevices":            {reason: reasonDevices},

	"containers[].securityContext.privileged":      {reason: "no task of a Swarm is privileged"},
	"containers[].securityContext.procMount":       {reason: "which paths of the system a task sees cannot be chosen"},
	"containers[].securityContext.seLinuxOptions":  {reason: reasonLabelled},
	"containers[].securityContext.windowsOptions":  {reason: reasonWindows},
	"containers[].securityContext.seccompProfile":  {reason: reasonProfile},
	"containers[].securityContext.appArmorProfile": {reason: reasonProfile},
	"containers[].securityContext.runAsGroup":      {reason: "an engine sets a group beside a user only; say runAsUser too"},
	"containers[].securityContext.runAsNonRoot":    {reason: "whether the image's user is root is not known before it runs; say runAsUser"},

	"containers[].volumeMounts[].subPath":           {reason: "an engine mounts a volume as a whole; parts are known of config maps and secrets only, by their files"},
	"containers[].volumeMounts[].subPathExpr":       {reason: "an engine mounts a volume as a whole"},
	"containers[].volumeMounts[].mountPropagation":  {reason: "mounts made later do not cross between an engine's containers and their host"},
	"containers[].volumeMounts[].recursiveReadOnly": {reason: "whether what is below a mount is read-only is decided by each engine's host"},
	"containers[].volumeMounts[].bindMountOptions":  {reason: "options of a mount are the engine's"},

	"volumes[].emptyDir.medium":                            {reason: "an engine has volumes on disk and in memory"},
	"volumes[].emptyDir.mode":                              {reason: "an engine makes a volume with the mode that the image has there"},
	"volumes[].hostPath.type":                              {lost: true, reason: "an engine mounts what is there, whatever it is, and makes nothing"},
	"volumes[].configMap.defaultUser":                      {reason: reasonOwner},
	"volumes[].configMap.items[].user":                     {reason: reasonOwner},
	"volumes[].secret.defaultUser":                         {reason: reasonOwner},
	"volumes[].secret.items[].user":                        {reason: reasonOwner},
	"volumes[].projected.defaultUser":                      {reason: reasonOwner},
	"volumes[].projected.sources[].configMap.items[].user": {reason: reasonOwner},
	"volumes[].projected.sources[].secret.items[].user":    {reason: reasonOwner},
	"volumes[].projected.sources[].downwardAPI":            {reason: reasonDownward},
	"volumes[].projected.sources[].serviceAccountToken":    {reason: reasonToken},
	"volumes[].projected.sources[].clusterTrustBundle":     {reason: reasonToken},
	"volumes[].projected.sources[].podCertificate":         {reason: reasonToken},
	"volumes[].downwardAPI":                                {reason: reasonDownward},
	"volumes[].ephemeral":                                  {reason: "a claim that lives with its Pod cannot be made on an engine; use emptyDir or a claim"},
	"volumes[].image":                                      {reason: "an engine mounts no images"},
	"volumes[].gitRepo":                                    {reason: reasonKind}, "volumes[].nfs": {reason: reasonKind}, "volumes[].iscsi": {reason: reasonKind},
	"volumes[].glusterfs": {reason: reasonKind}, "volumes[].rbd": {reason: reasonKind}, "volumes[].flexVolume": {reason: reasonKind},
	"volumes[].cinder": {reason: reasonKind}, "volumes[].cephfs": {reason: reasonKind}, "volumes[].flocker": {reason: reasonKind},
	"volumes[].fc": {reason: reasonKind}, "volumes[].azureFile": {reason: reasonKind}, "volumes[].azureDisk": {reason: reasonKind},
	"volumes[].vsphereVolume": {reason: reasonKind}, "volumes[].quobyte": {reason: reasonKind}, "volumes[].csi": {reason: reasonKind},
	"volumes[].photonPersistentDisk": {reason: reasonKind}, "volumes[].portworxVolume": {reason: reasonKind},
	"volumes[].scaleIO": {reason: reasonKind}, "volumes[].storageos": {reason: reasonKind},
	"volumes[].gcePersistentDisk": {reason: reasonKind}, "volumes[].awsElasticBlockStore": {reason: reasonKind},
}
