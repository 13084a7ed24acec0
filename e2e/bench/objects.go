package bench

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/isthmus-mesh/isthmus/e2e/bench/load"
	"github.com/isthmus-mesh/isthmus/e2e/testbed"
)

// objectName is the name of the backend's Service and of the Pod that stands for it.
const objectName = "hello"

// podCount is how many Pods are listed.
const podCount = 100

// exported puts the backend into east's catalogue.
const exported = `
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec:
  ports: [{name: http, port: 80, targetPort: %[2]d}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: %[1]s-backend
  labels: {kubernetes.io/service-name: %[1]s}
addressType: IPv4
ports: [{name: http, port: %[2]d, protocol: TCP}]
endpoints:
- addresses: ["%[3]s"]
  conditions: {ready: true}
---
apiVersion: multicluster.x-k8s.io/v1alpha1
kind: ServiceExport
metadata: {name: %[1]s}
`

// populate makes east's objects: an exported Service that leads to the backend, and Pods. No Pod runs: a scheduling gate
// holds it, and its status says what a kubelet would say. The first one's address is the backend's.
func (s *site) populate(ctx context.Context) error {
	if err := s.east.ApplyServiceExportCRD(ctx); err != nil {
		return err
	}
	if err := s.east.Apply(ctx, fmt.Sprintf(exported, objectName, backendPort, s.east.NodeAddress())); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", s.east.HostKubeconfig)
	if err != nil {
		return fmt.Errorf("client of east: %w", err)
	}
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("client of east: %w", err)
	}
	pods := client.CoreV1().Pods("default")
	for i := range podCount {
		name, address := fmt.Sprintf("%s-%d", objectName, i), fmt.Sprintf("10.99.%d.%d", i/200, i%200+1)
		if i == 0 {
			name, address = objectName, s.east.NodeAddress()
		}
		made, err := pods.Create(ctx, pod(name), metav1.CreateOptions{})
		if err != nil {
			return fmt.Errorf("make a pod: %w", err)
		}
		made.Status = running(address)
		if _, err := pods.UpdateStatus(ctx, made, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("make a pod: %w", err)
		}
	}
	return nil
}

// pod is about as large as pods are.
func pod(name string) *corev1.Pod {
	no := false
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Labels: map[string]string{"app": objectName, "app.kubernetes.io/part-of": "bench", "tier": "web"},
			Annotations: map[string]string{"prometheus.io/scrape": "true", "prometheus.io/port": strconv.Itoa(backendPort)},
		},
		Spec: corev1.PodSpec{
			SchedulingGates:              []corev1.PodSchedulingGate{{Name: "bench.isthmus.test/never"}},
			AutomountServiceAccountToken: &no,
			Containers: []corev1.Container{{
				Name: "web", Image: testbed.Image, Command: []string{"sh", "-c", "exec httpd -f -p 8080"},
				Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: backendPort}},
				Env:   []corev1.EnvVar{{Name: "MODE", Value: "production"}, {Name: "REGION", Value: "east"}},
				Resources: corev1.ResourceRequirements{
					Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("50m"), corev1.ResourceMemory: resource.MustParse("32Mi")},
					Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")},
				},
				ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{
					HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromString("http")},
				}},
			}},
		},
	}
}

func running(address string) corev1.PodStatus {
	now := metav1.Now()
	started := true
	status := corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: address, PodIPs: []corev1.PodIP{{IP: address}}, StartTime: &now,
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: "web", Ready: true, Started: &started, Image: testbed.Image,
			ImageID:     "sha256:3b1f0c2d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9",
			ContainerID: "containerd://9f8e7d6c5b4a39281706f5e4d3c2b1a09f8e7d6c5b4a39281706f5e4d3c2b1a0",
			State:       corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		}},
	}
	for _, c := range []corev1.PodConditionType{
		corev1.PodScheduled, corev1.PodInitialized, corev1.PodReadyToStartContainers, corev1.ContainersReady, corev1.PodReady,
	} {
		status.Conditions = append(status.Conditions, corev1.PodCondition{Type: c, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	return status
}

// listConnections are few: lists are large, and who lists is a person or a dashboard.
const listConnections = 4

// lists are the arms that list east's Pods: docker ps in west, and the same list of the API server's own.
func (s *site) lists(_ context.Context) (*group, error) {
	pids, err := s.gatewayRoles()
	if err != nil {
		return nil, err
	}
	apiServer := []int{s.bed.Process("east", "kube-apiserver").PID}
	pids[roleAPIServer] = apiServer
	socket := s.mesh.Gateway("west").Socket("east")
	listed := s.list(armList, pids, load.Target{
		Dial: func(ctx context.Context) (net.Conn, error) { return s.west.DialIn(ctx, "unix", socket) },
		Request: []byte("GET /v1.49/containers/json HTTP/1.1\r\nHost: docker\r\nUser-Agent: Docker-Client/28.2.2 (linux)\r\n" +
			"Accept: application/json\r\n\r\n"),
	})
	config, err := clientcmd.BuildConfigFromFlags("", s.east.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("credential of east: %w", err)
	}
	secure, err := rest.TLSConfigFor(config)
	if err != nil {
		return nil, fmt.Errorf("credential of east: %w", err)
	}
	secure.NextProtos = []string{"http/1.1"}
	if secure.ServerName == "" {
		secure.ServerName, _, _ = net.SplitHostPort(s.east.Server())
	}
	direct := s.list(armDirect, map[string][]int{roleAPIServer: apiServer}, load.Target{
		Dial: func(ctx context.Context) (net.Conn, error) {
			conn, err := s.east.DialIn(ctx, "tcp", s.east.Server())
			if err != nil {
				return nil, err
			}
			return tls.Client(conn, secure), nil
		},
		Request: []byte("GET /api/v1/namespaces/default/pods HTTP/1.1\r\nHost: " + s.east.Server() +
			"\r\nUser-Agent: kubectl/v1.34.2\r\nAccept: application/json\r\n\r\n"),
	})
	return &group{
		name: "lists", connections: listConnections, arms: []*arm{direct, listed},
		comparisons: []comparison{{"docker ps of 100 pods to kube-apiserver", listed, direct}},
	}, nil
}

func (s *site) list(name string, pids map[string][]int, target load.Target) *arm {
	return &arm{
		name: name, roles: pids, target: target, want: []byte(objectName + "-" + strconv.Itoa(podCount-1)),
		saturate: func(ctx context.Context, duration time.Duration) (int, float64, error) {
			r, err := load.Closed(ctx, target, listConnections, duration)
			if err != nil {
				return 0, 0, err
			}
			if r.Errors > 0 {
				return 0, 0, fmt.Errorf("%d of %d requests failed; the first: %w", r.Errors, r.Errors+len(r.Latencies), r.Err)
			}
			return len(r.Latencies), r.Rate(), nil
		},
	}
}
