package mask

import (
	"io"
	"strings"
	"testing"
)

// BenchmarkDocument reads a list of a hundred Pods.
func BenchmarkDocument(b *testing.B) {
	m := New(key)
	pod := `{"metadata":{"name":"web-5d4f8c7b6-abcde","namespace":"default","uid":"2c7e1a4e-3f0f-4c3b-9c0e-1a2b3c4d5e6f",` +
		`"managedFields":[{"manager":"kubelet","time":"2026-11-30T10:00:00Z","fieldsV1":{"f:status":{"f:podIPs":{"k:{\"ip\":\"10.244.0.12\"}":{".":{},"f:ip":{}}}}}}]},` +
		`"spec":{"containers":[{"name":"web","image":"nginx:1.27","env":[{"name":"A","value":"b"}],"volumeMounts":[{"name":"kube-api-access-x","readOnly":true,` +
		`"mountPath":"/var/run/secrets/kubernetes.io/serviceaccount"}]}],"nodeName":"node-a","tolerations":[{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute"}]},` +
		`"status":{"hostIP":"172.18.0.2","podIP":"10.244.0.12","podIPs":[{"ip":"10.244.0.12"}],"conditions":[{"type":"Ready","status":"True","lastTransitionTime":"2026-11-30T10:00:00Z"}]}}`
	list := `{"kind":"PodList","items":[` + strings.Repeat(pod+",", 99) + pod + `]}`
	r := reader(m, 1<<20)
	b.SetBytes(int64(len(list)))
	b.ReportAllocs()
	for b.Loop() {
		if err := r.Document(io.Discard, strings.NewReader(list)); err != nil {
			b.Fatal(err)
		}
	}
}
