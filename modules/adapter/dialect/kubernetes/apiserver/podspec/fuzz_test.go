package podspec

import (
	"encoding/json"
	"reflect"
	"regexp"
	"testing"

	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

var longExponent = regexp.MustCompile(`[eE][-+]?[0-9]{4}`)

// FuzzDecode reads what may come in a body: nothing panics, the caller's spec stays as it is, and two readings are one.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{}`), false)
	f.Add([]byte(`{"containers":[{"env":[{"valueFrom":{}}],"envFrom":[{}],"lifecycle":{"preStop":{"exec":{}}},"livenessProbe":{}}],"volumes":[{"projected":{"sources":[{}]}}]}`), true)
	f.Add([]byte(`{"containers":[{"securityContext":{"capabilities":{}},"volumeMounts":[{"name":"a","mountPath":"a"},{"name":"a","subPath":"/.."}],"resources":{"limits":{"cpu":"1e99"}}}],"volumes":[{"name":"a","secret":{"items":[{}]}},{"name":"a"}],"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{}]}}}}`), false)
	for _, folder := range []string{"decode", "default"} {
		goldens := archives(f, folder)
		for _, in := range goldens {
			var c decodeCase
			if yaml.Unmarshal(in, &c) != nil || len(c.Spec.Containers) == 0 {
				_ = yaml.Unmarshal(in, &c.Spec)
			}
			text, err := json.Marshal(c.Spec)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text, c.Target.Swarm)
		}
	}
	f.Fuzz(func(t *testing.T, body []byte, swarm bool) {
		if longExponent.Match(body) {
			t.Skip("reading a quantity of many digits takes long before Decode sees it")
		}
		var spec corev1.PodSpec
		if json.Unmarshal(body, &spec) != nil {
			return
		}
		before := spec.DeepCopy()
		target := Target{Swarm: swarm}
		result, errs := Decode(&spec, field.NewPath("spec"), target)
		again, errsAgain := Decode(&spec, field.NewPath("spec"), target)
		if !reflect.DeepEqual(before, &spec) {
			t.Error("the caller's spec was changed")
		}
		if !reflect.DeepEqual(result.Container, again.Container) || errs.ToAggregate() != nil && errs.ToAggregate().Error() != errsAgain.ToAggregate().Error() {
			t.Errorf("two readings differ: %v, %v", errs, errsAgain)
		}
		result.Resolve(objects{})
		Encode(result.Container)
		DefaultPod(&spec)
	})
}

// archives are the inputs of goldens.
func archives(f *testing.F, folder string) [][]byte {
	f.Helper()
	var inputs [][]byte
	for _, file := range files(f, folder) {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		inputs = append(inputs, archive.Files[0].Data)
	}
	return inputs
}
