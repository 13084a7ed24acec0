package apiserver

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// readDeadline bounds the reading of the whole orchestrator.
const readDeadline = 30 * time.Second

// world is the orchestrator as it was read at one time.
type world struct {
	cluster    string
	now        time.Time
	nodes      []neutral.Node
	workloads  []neutral.Workload
	tasks      []neutral.Task
	containers []neutral.Container
	configs    []neutral.StoredFile
	secrets    []neutral.StoredFile
	volumes    []neutral.Volume
	events     []neutral.Event

	runs map[string][]run // by workload, once they are asked for
	pods []entry          // once they are asked for
	// beginning are the Pods among them that may not have begun wholly: those that were never started, and all of several
	// containers.
	beginning []*neutral.Container
}

// readWorld asks for all at once. What the orchestrator does not have is empty: an engine that is no swarm has no workloads.
func (s *Server) readWorld(ctx context.Context) (*world, error) {
	ctx, cancel := context.WithTimeout(ctx, readDeadline)
	defer cancel()
	w := &world{cluster: s.cluster, now: s.now()}
	group, ctx := errgroup.WithContext(ctx)
	ask := func(action neutral.Action, filter neutral.Filter, take func(neutral.Result)) {
		group.Go(func() error {
			result, err := s.under.Do(ctx, neutral.Operation{Action: action, Verb: action.Verb(),
				Object: neutral.Object{Kind: action.Kind()}, Filter: filter})
			if fault.Is(err, fault.Unsupported) {
				return nil
			}
			if err == nil {
				take(result)
			}
			return err
		})
	}
	ask(neutral.NodeList, neutral.Filter{}, func(r neutral.Result) { w.nodes = r.Nodes })
	ask(neutral.WorkloadList, neutral.Filter{}, func(r neutral.Result) { w.workloads = r.Workloads })
	ask(neutral.TaskList, neutral.Filter{}, func(r neutral.Result) { w.tasks = r.Tasks })
	ask(neutral.ContainerList, neutral.Filter{All: true}, func(r neutral.Result) { w.containers = r.Containers })
	ask(neutral.ConfigList, neutral.Filter{}, func(r neutral.Result) { w.configs = r.Stored })
	ask(neutral.SecretList, neutral.Filter{}, func(r neutral.Result) { w.secrets = r.Stored })
	ask(neutral.VolumeList, neutral.Filter{}, func(r neutral.Result) { w.volumes = r.Volumes })
	if err := group.Wait(); err != nil {
		return nil, err
	}
	w.events = s.happened.since(w.now.Add(-eventAge))
	return w, nil
}

// projections are the kinds in the order in which a reading changes them: what a caller learns of first stands on what it
// learns of next.
var projections = []schema.GroupResource{
	namespaceResource, nodeResource, claimResource, configMapResource, secretResource,
	deploymentResource, daemonSetResource, jobResource, replicaSetResource, podResource,
	serviceResource, sliceResource, eventResource,
}
