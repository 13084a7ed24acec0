package apiserver

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/rand"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// labelHash is of Pods, as the API's own Deployments set it: which template they are of.
const labelHash = appsv1.DefaultDeploymentUniqueLabelKey

// labelService selects the Pods of a workload that no client of the API made.
const labelService = "com.docker.swarm.service.name"

// run is one task of a workload that counts as a Pod: it runs, is to run, or has not ended yet.
type run struct {
	neutral.Task
	hash        string // of its template
	terminating bool
	ready       bool
	ended       bool
}

// runsOf are the runs of each workload, by its id.
func (w *world) runsOf() map[string][]run {
	if w.runs != nil {
		return w.runs
	}
	w.runs = map[string][]run{}
	modes := map[string]neutral.Mode{}
	for i := range w.workloads {
		modes[w.workloads[i].ID] = w.workloads[i].Mode
	}
	for _, t := range w.tasks {
		mode, known := modes[t.Workload]
		if !known {
			continue
		}
		job := mode == neutral.ModeJob || mode == neutral.ModeGlobalJob
		r := run{Task: t, hash: hashOf(t.Container)}
		switch t.State {
		case "complete", "shutdown", "failed", "rejected", "remove", "orphaned":
			r.ended = true
		case "running":
			r.ready = t.Container.State.Health == "" || t.Container.State.Health == "healthy"
		}
		wanted := t.Desired == "running" || t.Desired == "ready" || t.Desired == "accepted"
		r.terminating = !wanted && !r.ended
		if r.terminating {
			r.ready = false
		}
		// What ended in a Deployment was replaced by another task; in a job it is what came of it.
		if r.ended && !job || !wanted && !r.terminating && !job {
			continue
		}
		w.runs[t.Workload] = append(w.runs[t.Workload], r)
	}
	for _, runs := range w.runs {
		slices.SortFunc(runs, func(a, b run) int { return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID)) })
	}
	return w.runs
}

// hashOf names the template that a container is of.
func hashOf(c neutral.Container) string {
	if hash := c.Labels[labelHash]; hash != "" {
		return hash
	}
	told, err := json.Marshal([]any{c.Image, c.Entrypoint, c.Command, c.Env, c.WorkingDir, c.User, c.Mounts, c.Files, c.Resources, c.Labels})
	if err != nil {
		return "0"
	}
	return digest(told)
}

// digest is a short name of a content, without letters that make words.
func digest(content []byte) string {
	h := fnv.New32a()
	_, _ = h.Write(content) // a hash takes everything
	return rand.SafeEncodeString(fmt.Sprint(h.Sum32()))
}

// podName is the name of a run's Pod.
func podName(w *neutral.Workload, r run) string {
	id := r.ID
	if len(id) > 5 {
		id = id[len(id)-5:]
	}
	if w.Mode == neutral.ModeReplicated {
		return w.Name + "-" + r.hash + "-" + id
	}
	return w.Name + "-" + id
}
