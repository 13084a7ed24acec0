package kubernetes

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"

	"github.com/isthmus-mesh/isthmus/modules/adapter/replica"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/freezer"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// parsed is an object as the API gives it.
func parsed(t testing.TB, text string) map[string]any {
	t.Helper()
	var object map[string]any
	if err := utiljson.Unmarshal([]byte(text), &object); err != nil {
		t.Fatal(err)
	}
	return object
}

func TestNetworkModeOfASpec(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spec string
		to   neutral.NetworkMode
		want string
	}{
		"to the host": {
			`{"dnsPolicy":"ClusterFirst","containers":[{"name":"a","ports":[{"containerPort":80,"protocol":"TCP"},{"containerPort":53,"protocol":"UDP"}]},{"name":"b"}]}`,
			neutral.NetworkHost,
			`{"hostNetwork":true,"dnsPolicy":"ClusterFirstWithHostNet","containers":[{"name":"a","ports":[{"containerPort":80,"hostPort":80,"protocol":"TCP"},
				{"containerPort":53,"hostPort":53,"protocol":"UDP"}]},{"name":"b"}]}`},
		"names of its own": {`{"dnsPolicy":"None","containers":[]}`, neutral.NetworkHost, `{"hostNetwork":true,"dnsPolicy":"None","containers":[]}`},
		"a port that leads elsewhere": {`{"containers":[{"ports":[{"containerPort":80,"hostPort":8080}]}]}`, neutral.NetworkHost,
			`{"hostNetwork":true,"dnsPolicy":"ClusterFirstWithHostNet","containers":[{"ports":[{"containerPort":80,"hostPort":80}]}]}`},
		"a sidecar, and fields of another day": {`{"x":{"y":[1,2.5]},"initContainers":[{"restartPolicy":"Always","ports":[{"containerPort":90}]}]}`, neutral.NetworkHost,
			`{"x":{"y":[1,2.5]},"hostNetwork":true,"dnsPolicy":"ClusterFirstWithHostNet","initContainers":[{"restartPolicy":"Always","ports":[{"containerPort":90,"hostPort":90}]}]}`},
		"to the pod network": {`{"hostNetwork":true,"dnsPolicy":"ClusterFirstWithHostNet","containers":[{"ports":[{"containerPort":80,"hostPort":80}]}]}`,
			neutral.NetworkPod, `{"dnsPolicy":"ClusterFirst","containers":[{"ports":[{"containerPort":80}]}]}`},
		"the host's names": {`{"hostNetwork":true,"dnsPolicy":"Default"}`, neutral.NetworkPod, `{"dnsPolicy":"Default"}`},
	} {
		spec := parsed(t, c.spec)
		got := withMode(spec, c.to)
		if diff := cmp.Diff(parsed(t, c.want), got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if diff := cmp.Diff(parsed(t, c.spec), spec); diff != "" {
			t.Errorf("%s: the spec itself was changed: %s", name, diff)
		}
	}
}

func FuzzNetworkModeOfASpec(f *testing.F) {
	f.Add([]byte(`{"dnsPolicy":"ClusterFirst","containers":[{"ports":[{"containerPort":80}]}]}`))
	f.Add([]byte(`{"hostNetwork":"yes","containers":[7,{"ports":{}},{"ports":[null,{"hostPort":"x"}]}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var spec map[string]any
		if utiljson.Unmarshal(raw, &spec) != nil || spec == nil {
			return
		}
		before := replica.Clone(spec)
		for _, to := range []neutral.NetworkMode{neutral.NetworkHost, neutral.NetworkPod} {
			next := withMode(spec, to)
			if modeOf(next) != to || !sameNative(withMode(next, to), next) {
				t.Errorf("in %s: %v", to, next)
			}
		}
		_, _, _ = hostPortsOf(spec, 1), movedPorts(spec), shortLived(spec)
		if !sameNative(before, spec) {
			t.Error("the spec itself was changed")
		}
	})
}

func TestStrategyThatEndsTheOldFirst(t *testing.T) {
	t.Parallel()
	const first = `{"type":"RollingUpdate","rollingUpdate":{"maxSurge":0,"maxUnavailable":1}}`
	for _, c := range []struct{ kind, was, want string }{
		{kindDeployment, `{"type":"RollingUpdate","rollingUpdate":{"maxSurge":"25%","maxUnavailable":"25%"}}`, first},
		{kindDeployment, `{"type":"RollingUpdate"}`, first},
		{kindDeployment, `{"type":"RollingUpdate","rollingUpdate":{"maxSurge":0,"maxUnavailable":3}}`, `{"type":"RollingUpdate","rollingUpdate":{"maxSurge":0,"maxUnavailable":3}}`},
		{kindDeployment, `{"type":"Recreate"}`, `{"type":"Recreate"}`},
		{kindDaemonSet, `{"type":"RollingUpdate","rollingUpdate":{"maxSurge":1,"maxUnavailable":0}}`, first},
		{kindStatefulSet, `{"type":"RollingUpdate","rollingUpdate":{"partition":0}}`, `{"type":"RollingUpdate","rollingUpdate":{"partition":0}}`},
	} {
		if diff := cmp.Diff(parsed(t, c.want), oldFirst(c.kind, parsed(t, c.was))); diff != "" {
			t.Errorf("%s %s: %s", c.kind, c.was, diff)
		}
	}
}

func TestOwnerOfASwitch(t *testing.T) {
	t.Parallel()
	by := func(version, kind string) *metav1.OwnerReference {
		return &metav1.OwnerReference{APIVersion: version, Kind: kind, Name: "o"}
	}
	for _, c := range []struct {
		kind       string
		controller *metav1.OwnerReference
		want       ownerStep
		reason     string
	}{
		{kindPod, nil, ownerNone, ""},
		{kindPod, by("apps/v1", "ReplicaSet"), ownerBetween, ""},
		{kindPod, by("apps/v1", "StatefulSet"), ownerActed, ""},
		{kindPod, by("apps/v1", "DaemonSet"), ownerActed, ""},
		{kindPod, by("batch/v1", "Job"), ownerRefused, "template of a Job cannot be changed"},
		{kindPod, by("v1", "Node"), ownerRefused, "static"},
		{kindPod, by("v1", "ReplicationController"), ownerRefused, "replicationcontroller o"},
		{kindPod, by("example.com/v1", "StatefulSet"), ownerRefused, "statefulset o, whose controller would undo"},
		{kindReplicaSet, nil, ownerRefused, "do not follow a change of its template"},
		{kindReplicaSet, by("apps/v1", "Deployment"), ownerActed, ""},
		{kindReplicaSet, by("argoproj.io/v1alpha1", "Rollout"), ownerRefused, "rollout o"},
		{kindDeployment, nil, ownerNone, ""},
		{kindDeployment, by("example.com/v1", "Shop"), ownerRefused, "shop o"},
		{kindStatefulSet, by("postgresql.example.com/v1", "Cluster"), ownerRefused, "cluster o"},
	} {
		got, reason := judgeOwner(c.kind, "x", c.controller)
		if got != c.want || !strings.Contains(reason, c.reason) || (c.reason == "") != (reason == "") {
			t.Errorf("%s of %v: %d %q", c.kind, c.controller, got, reason)
		}
	}
}

// aSubject is a switch that nothing stands against.
func aSubject(t *testing.T, kind string) *switchSubject {
	pod := newPod("web", "10.0.0.1")
	s := &switchSubject{need: neutral.NetworkNeed{Mode: neutral.NetworkHost, Layer: neutral.LayerDiscard}, to: neutral.NetworkHost, pod: pod, free: -1,
		pods: []corev1.Pod{*pod}, note: &switchNote{Kind: kind, Name: "web", Namespace: "a"}}
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(pod)
	if err != nil {
		t.Fatal(err)
	}
	s.owner, s.spec = &unstructured.Unstructured{Object: object}, replica.Object(object, "spec")
	if kind != kindPod {
		s.owner.Object = parsed(t, `{"apiVersion":"apps/v1","kind":"`+kind+`","metadata":{"name":"web"},
			"spec":{"replicas":1,"strategy":{"type":"RollingUpdate"},"updateStrategy":{"type":"RollingUpdate"}},
			"status":{"replicas":1,"updatedReplicas":1,"readyReplicas":1,"desiredNumberScheduled":1,"updatedNumberScheduled":1,"numberReady":1}}`)
	}
	return s
}

func TestRefusalsOfASwitch(t *testing.T) {
	t.Parallel()
	workload := func(path []string, value any) func(*switchSubject) {
		return func(s *switchSubject) {
			if err := unstructured.SetNestedField(s.owner.Object, value, path...); err != nil {
				panic(err)
			}
		}
	}
	now := metav1.Now()
	volume := func(text string) func(*switchSubject) {
		return func(s *switchSubject) { s.spec["volumes"], s.need.Layer = []any{parsed(t, text)}, neutral.LayerRefuse }
	}
	for name, c := range map[string]struct {
		kind  string
		spoil func(*switchSubject)
		want  []string
	}{
		"nothing, deployment":  {kindDeployment, nil, nil},
		"nothing, daemonset":   {kindDaemonSet, nil, nil},
		"nothing, statefulset": {kindStatefulSet, nil, nil},
		"nothing, pod":         {kindPod, nil, nil},
		"files of a workload":  {kindDeployment, func(s *switchSubject) { s.need.Layer = neutral.LayerRefuse }, nil},
		"isolated":             {kindDeployment, func(s *switchSubject) { s.need.Mode, s.to = "", "" }, []string{"isolated Pods are not switched"}},
		"none":                 {kindDeployment, func(s *switchSubject) { s.need.Mode, s.to = neutral.NetworkNone, "" }, []string{`no network mode "none"`}},
		"already":              {kindDeployment, func(s *switchSubject) { s.to = neutral.NetworkPod }, []string{"in the network mode pod already"}},
		"commit":               {kindDeployment, func(s *switchSubject) { s.need.Layer = neutral.LayerCommit }, []string{"(commit)"}},
		"ended":                {kindPod, func(s *switchSubject) { s.pod.Status.Phase = corev1.PodSucceeded }, []string{"does not run"}},
		"paused by a caller": {kindPod, func(s *switchSubject) {
			s.pod.Status.ContainerStatuses[0].ContainerID = "c1"
			s.pod.Status.Conditions = append(s.pod.Status.Conditions, corev1.PodCondition{Type: freezer.Condition,
				Message: freezer.Report{"main": {State: freezer.Frozen, Instance: "c1"}}.String()})
		}, []string{"pod web is paused"}},
		"going":          {kindPod, func(s *switchSubject) { s.pod.DeletionTimestamp = &now }, []string{"is being removed"}},
		"workload going": {kindDeployment, func(s *switchSubject) { s.owner.SetDeletionTimestamp(&now) }, []string{"deployment web is being removed"}},
		"switched": {kindDeployment, func(s *switchSubject) { s.owner.SetAnnotations(map[string]string{annotationSwitch: "l9"}) },
			[]string{"in a switch already (lease l9)"}},
		"paused":      {kindDeployment, workload([]string{"spec", "paused"}, true), []string{"is paused"}},
		"under way":   {kindDeployment, workload([]string{"status", "updatedReplicas"}, int64(0)), []string{"is not at rest: 0 of 1 Pods are of its template"}},
		"not ready":   {kindDaemonSet, workload([]string{"status", "numberReady"}, int64(0)), []string{"is not at rest: 0 of 1 Pods are ready"}},
		"on delete":   {kindStatefulSet, workload([]string{"spec", "updateStrategy", "type"}, "OnDelete"), []string{"OnDelete"}},
		"on delete 2": {kindDaemonSet, workload([]string{"spec", "updateStrategy", "type"}, "OnDelete"), []string{"OnDelete"}},
		"partition":   {kindStatefulSet, workload([]string{"spec", "updateStrategy", "rollingUpdate", "partition"}, int64(1)), []string{"partition"}},
		"emptyDir":    {kindDeployment, volume(`{"name":"tmp","emptyDir":{}}`), []string{"volume tmp lives as long as its Pod"}},
		"ephemeral":   {kindStatefulSet, volume(`{"name":"tmp","ephemeral":{}}`), []string{"volume tmp lives as long as its Pod"}},
		"claim":       {kindDeployment, volume(`{"name":"data","persistentVolumeClaim":{"claimName":"data"}}`), nil},
		"finalizer":   {kindPod, func(s *switchSubject) { s.pod.Finalizers = []string{"example.com/hold"} }, []string{"finalizer example.com/hold"}},
		"files":       {kindPod, func(s *switchSubject) { s.need.Layer = neutral.LayerRefuse }, []string{"container main may have changed files"}},
		"no files": {kindPod, func(s *switchSubject) {
			yes := true
			s.need.Layer, s.pod.Spec.Containers[0].SecurityContext = neutral.LayerRefuse, &corev1.SecurityContext{ReadOnlyRootFilesystem: &yes}
		}, nil},
		"too many":    {kindDeployment, func(s *switchSubject) { workload([]string{"spec", "replicas"}, int64(3))(s); s.free = 2 }, []string{"not at rest", "has 3 Pods, and two cannot"}},
		"port taken":  {kindPod, func(s *switchSubject) { s.free, s.taken = 0, []string{"80/tcp"} }, []string{"on its node the ports that it needs are taken: 80/tcp"}},
		"ports taken": {kindDaemonSet, func(s *switchSubject) { s.free, s.taken = 0, []string{"80/tcp"} }, []string{"only 0 nodes on which their ports are free; taken are 80/tcp"}},
		"room":        {kindDeployment, func(s *switchSubject) { s.free, s.taken = 1, []string{"80/tcp"} }, nil},
		"all at once": {kindDeployment, func(s *switchSubject) {
			workload([]string{"spec", "paused"}, true)(s)
			s.need.Layer, s.free = neutral.LayerCommit, 0
		}, []string{"(commit)", "is paused", "there are 0 nodes"}},
	} {
		s := aSubject(t, c.kind)
		if c.spoil != nil {
			c.spoil(s)
		}
		s.judge()
		if len(s.refusals) != len(c.want) {
			t.Errorf("%s: %q", name, s.refusals)
			continue
		}
		for i, want := range c.want {
			if !strings.Contains(s.refusals[i], want) {
				t.Errorf("%s: %q does not say %q", name, s.refusals[i], want)
			}
		}
		for _, sentence := range append(s.refusals, s.lost()...) { // they are put one after the other
			begins := strings.HasPrefix(sentence, "Kubernetes") || strings.ToLower(sentence[:1]) == sentence[:1]
			if !begins || strings.HasSuffix(sentence, ".") || strings.Contains(sentence, "10.0.0.1") {
				t.Errorf("%s: %q is no sentence for a caller", name, sentence)
			}
		}
	}
}

func TestRefusalsByTheCluster(t *testing.T) {
	t.Parallel()
	s := aSubject(t, kindPod)
	if err := s.refuseBy(fault.New(fault.Denied, "pods is forbidden")); err != nil || !slices.Equal(s.refusals, []string{"pods is forbidden"}) {
		t.Errorf("%q, %v", s.refusals, err)
	}
	if err := s.refuseBy(fault.New(fault.Unavailable, "gone")); !fault.Is(err, fault.Unavailable) || len(s.refusals) != 1 {
		t.Errorf("%q, %v", s.refusals, err)
	}
}

func TestCostOfASwitch(t *testing.T) {
	t.Parallel()
	s := aSubject(t, kindPod)
	s.pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	s.spec["volumes"] = []any{map[string]any{"name": "tmp", "emptyDir": map[string]any{}}}
	replica.List(s.spec, "containers")[0].(map[string]any)["ports"] = []any{map[string]any{"containerPort": int64(80), "hostPort": int64(8080)}}
	s.pod.Annotations = map[string]string{annotationNetworks: `[{"Name":"front"}]`}
	lost := strings.Join(s.lost(), "\n")
	for _, want := range []string{"another address", "NetworkPolicy", "port 8080 of its node leads to port 80", "files that container main changed",
		"volume tmp", "names on network front", "begins anew, each way"} {
		if !strings.Contains(lost, want) {
			t.Errorf("%q is not in\n%s", want, lost)
		}
	}
	if away := s.away(); away != 33*time.Second {
		t.Errorf("away %s", away)
	}
	s = aSubject(t, kindDeployment)
	s.pod.Spec.Containers[0].ReadinessProbe = &corev1.Probe{InitialDelaySeconds: 4}
	if away := s.away(); away != 7*time.Second {
		t.Errorf("away %s", away)
	}
	if o := s.object(); o.Kind != neutral.KindWorkload || o.Resource != "apps/deployments" || o.Name != "web" || o.Namespace != "a" {
		t.Errorf("object %+v", o)
	}
}

func TestPortsOfANode(t *testing.T) {
	t.Parallel()
	wanted := hostPortsOf(parsed(t, `{"containers":[{"ports":[{"containerPort":80},{"containerPort":53,"protocol":"UDP"}]}]}`), 5432)
	if diff := cmp.Diff(map[hostPortKey]bool{{80, "TCP"}: true, {53, "UDP"}: true, {5432, "TCP"}: true}, wanted); diff != "" {
		t.Error(diff)
	}
	pod := func(node string, host bool, phase corev1.PodPhase, port corev1.ContainerPort) *corev1.Pod {
		p := newPod("p", "")
		p.Spec.NodeName, p.Spec.HostNetwork, p.Status.Phase = node, host, phase
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{port}
		return p
	}
	taken := map[string]map[hostPortKey]bool{}
	for _, p := range []*corev1.Pod{
		pod("in its network", true, corev1.PodRunning, corev1.ContainerPort{ContainerPort: 80}),
		pod("by a map", false, corev1.PodRunning, corev1.ContainerPort{ContainerPort: 9, HostPort: 53, Protocol: corev1.ProtocolUDP}),
		pod("inside", false, corev1.PodRunning, corev1.ContainerPort{ContainerPort: 80}),
		pod("ended", true, corev1.PodFailed, corev1.ContainerPort{ContainerPort: 80}),
		pod("another", true, corev1.PodRunning, corev1.ContainerPort{ContainerPort: 53}),
	} {
		takePorts(taken, p, wanted)
	}
	if diff := cmp.Diff(map[string]map[hostPortKey]bool{"in its network": {{80, "TCP"}: true}, "by a map": {{53, "UDP"}: true}}, taken); diff != "" {
		t.Error(diff)
	}
}

func TestRolledOut(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ text, want string }{
		{`{"kind":"Deployment","metadata":{"generation":2},"status":{"observedGeneration":1}}`, "its controller has not seen it yet"},
		{`{"kind":"Deployment","metadata":{"generation":2},"spec":{"replicas":2},"status":{"observedGeneration":2,"replicas":3,"updatedReplicas":2,"readyReplicas":3}}`, "1 old Pods have not gone"},
		{`{"kind":"Deployment","metadata":{"generation":2},"spec":{"replicas":2},"status":{"observedGeneration":2,"replicas":2,"updatedReplicas":1,"readyReplicas":2}}`, "1 of 2 Pods are of its template"},
		{`{"kind":"Deployment","metadata":{"generation":2},"spec":{"replicas":2},"status":{"observedGeneration":2,"replicas":2,"updatedReplicas":2,"readyReplicas":1}}`, "1 of 2 Pods are ready"},
		{`{"kind":"Deployment","spec":{"replicas":0},"status":{}}`, ""},
		{`{"kind":"Deployment","spec":{},"status":{"replicas":1,"updatedReplicas":1,"readyReplicas":1}}`, ""},
		{`{"kind":"StatefulSet","spec":{"replicas":1},"status":{"replicas":1,"readyReplicas":1,"currentRevision":"a","updateRevision":"a"}}`, ""},
		{`{"kind":"StatefulSet","spec":{"replicas":1},"status":{"replicas":1,"readyReplicas":1,"updatedReplicas":1,"currentRevision":"a","updateRevision":"b"}}`, "its controller has not closed the rollout yet"},
		{`{"kind":"StatefulSet","spec":{"replicas":1},"status":{"replicas":1,"readyReplicas":1,"currentRevision":"a","updateRevision":"b"}}`, "0 of 1 Pods are of its template"},
		{`{"kind":"DaemonSet","status":{"desiredNumberScheduled":2,"updatedNumberScheduled":2,"numberReady":1}}`, "1 of 2 Pods are ready"},
		{`{"kind":"DaemonSet","status":{"desiredNumberScheduled":2,"updatedNumberScheduled":2,"numberReady":2}}`, ""},
	} {
		done, state := rolledOut(&unstructured.Unstructured{Object: parsed(t, c.text)})
		if state != c.want || done != (c.want == "") {
			t.Errorf("%s: %v %q", c.text, done, state)
		}
	}
}

func TestRestored(t *testing.T) {
	t.Parallel()
	pod := func(host, ready, going bool) corev1.Pod {
		p := corev1.Pod{Spec: corev1.PodSpec{HostNetwork: host}, Status: corev1.PodStatus{Phase: corev1.PodRunning}}
		if ready {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		}
		if going {
			p.DeletionTimestamp = &metav1.Time{}
		}
		return p
	}
	for name, c := range map[string]struct {
		pods   []corev1.Pod
		wanted int64
		want   string
	}{
		"back":                          {[]corev1.Pod{pod(false, true, false)}, 1, ""},
		"back beside one that goes":     {[]corev1.Pod{pod(false, true, false), pod(false, true, true)}, 1, ""},
		"only one that goes":            {[]corev1.Pod{pod(false, true, true)}, 1, "0 of 1 Pods are ready"},
		"none, and none of it was said": {nil, 1, "0 of 1 Pods are ready"},
		"none wanted":                   {nil, 0, ""},
		"the other mode":                {[]corev1.Pod{pod(false, true, false), pod(true, true, true)}, 1, "Pods of the other network mode have not gone"},
	} {
		if done, state := restored(c.pods, neutral.NetworkPod, c.wanted); state != c.want || done != (c.want == "") {
			t.Errorf("%s: %v %q", name, done, state)
		}
	}
}

func TestWhatHindersAPod(t *testing.T) {
	t.Parallel()
	waiting := func(reason string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Status.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: "10.0.0.7 refuses"}}
		}
	}
	unplaced := func(message string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: message}}
		}
	}
	for _, c := range []struct {
		spoil   func(*corev1.Pod)
		want    string
		lasting bool
	}{
		{waiting("ImagePullBackOff"), "container main of pod web: ImagePullBackOff", true},
		{waiting("ContainerCreating"), "container main of pod web is not ready", false},
		{unplaced("0/1 nodes are available: 1 node(s) didn't have free ports"), "no node takes pod web: 0/1 nodes are available: 1 node(s) didn't have free ports", true},
		{unplaced("node 10.0.0.7:80 is full"), "no node takes pod web: Unschedulable", true},
		{func(p *corev1.Pod) { p.Status.Phase, p.Status.Reason = corev1.PodFailed, "NodePorts" }, "its node refuses pod web (NodePorts)", true},
		{func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }, "pod web has ended", true},
		{func(p *corev1.Pod) { p.Status.ContainerStatuses[0].Ready = true }, "", false},
	} {
		pod := newPod("web", "10.0.0.1")
		c.spoil(pod)
		if why, lasting := podHindrance(pod); why != c.want || lasting != c.lasting {
			t.Errorf("%q %v, want %q", why, lasting, c.want)
		}
	}
}

// TestPatienceWithAHindrance holds that what comes and goes, as a container does that is started again and again, counts as
// one hindrance, and that what passes does not.
func TestPatienceWithAHindrance(t *testing.T) {
	t.Parallel()
	began := time.Now()
	for name, c := range map[string]struct {
		looks string // one a second: x is hindered, o is not
		want  int
	}{
		"lasts":          {strings.Repeat("x", 20), 16},
		"comes and goes": {strings.Repeat("xxo", 8), 16},
		"passes":         {"xxxx" + strings.Repeat("o", 10) + "xxxx" + strings.Repeat("o", 10), -1},
	} {
		var h hindered
		got := -1
		for i, letter := range c.looks {
			if h.see(look{lasting: letter == 'x'}, began.Add(time.Duration(i)*time.Second)) && got < 0 {
				got = i
			}
		}
		if got != c.want {
			t.Errorf("%s: after %d s, want %d", name, got, c.want)
		}
	}
}
