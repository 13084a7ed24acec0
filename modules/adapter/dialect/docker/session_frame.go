package docker

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/events"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// The streams of a multiplexed stream.
const (
	frameStdout byte = 1
	frameStderr byte = 2
	frameError  byte = 3
)

func streamByte(stream neutral.Stream) byte {
	if stream == neutral.Stderr {
		return frameStderr
	}
	return frameStdout
}

// frame puts docker's header before a payload: the stream, three zeros, the length.
func frame(stream byte, payload []byte) []byte {
	framed := make([]byte, 8, 8+len(payload))
	framed[0] = stream
	binary.BigEndian.PutUint32(framed[4:], uint32(len(payload)))
	return append(framed, payload...)
}

// timeFormat keeps all nine digits, so that lines stay aligned.
const timeFormat = "2006-01-02T15:04:05.000000000Z07:00"

// linePrefix is what stands before a log line: its time, then its context, each when asked for.
func linePrefix(op neutral.Operation, chunk neutral.Chunk) []byte {
	var prefix []byte
	if op.Logs.Timestamps && !chunk.Time.IsZero() {
		prefix = append(prefix, chunk.Time.UTC().Format(timeFormat)...)
		prefix = append(prefix, ' ')
	}
	if op.Logs.Details {
		if t := chunk.Context; t != nil {
			node := t.NodeID
			if node == "" {
				node = t.Node
			}
			prefix = append(prefix, "com.docker.swarm.node.id="+node+",com.docker.swarm.service.id="+t.Workload+
				",com.docker.swarm.task.id="+t.ID...)
		}
		prefix = append(prefix, ' ')
	}
	return prefix
}

// eventMessage is events.Message with the fields that clients of API versions before 1.52 still read.
type eventMessage struct {
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
	events.Message
}

// eventToDocker renders an event; ok is false when the caller's filters leave it out.
func eventToDocker(op neutral.Operation, e neutral.Event) (eventMessage, bool) {
	kind := typeOfEvent(e.Kind)
	if !eventWanted(op.Filter, e) {
		return eventMessage{}, false
	}
	m := eventMessage{Message: events.Message{
		Type: kind, Action: events.Action(e.Action), Actor: events.Actor{ID: e.ID, Attributes: labelled(e.Attributes)},
		Scope: "local", Time: e.Time.Unix(), TimeNano: e.Time.UnixNano(),
	}}
	switch kind {
	case events.ServiceEventType, events.NodeEventType, events.SecretEventType, events.ConfigEventType:
		m.Scope = "swarm"
	case events.ContainerEventType, events.ImageEventType:
		m.Status, m.ID, m.From = e.Action, e.ID, e.Attributes["image"]
	default:
	}
	return m, true
}

func typeOfEvent(kind neutral.Kind) events.Type {
	for name, k := range eventKinds {
		if k == kind && kind != neutral.KindOther {
			return events.Type(name)
		}
	}
	return events.Type(kind)
}

// eventWanted matches an event with the caller's filters as an engine does.
func eventWanted(f neutral.Filter, e neutral.Event) bool {
	if len(f.Kinds) > 0 && !slices.Contains(f.Kinds, e.Kind) {
		return false
	}
	action, _, _ := strings.Cut(e.Action, ":")
	if len(f.Actions) > 0 && !slices.Contains(f.Actions, e.Action) && !slices.Contains(f.Actions, action) {
		return false
	}
	of := func(wanted []string, kind neutral.Kind) bool {
		return len(wanted) == 0 || e.Kind == kind && slices.ContainsFunc(wanted, func(w string) bool {
			return strings.HasPrefix(e.ID, w) || e.Attributes["name"] == strings.TrimPrefix(w, "/")
		})
	}
	return of(f.Containers, neutral.KindContainer) && of(f.Workloads, neutral.KindWorkload) && of(f.Nodes, neutral.KindNode) &&
		labelsMatch(f.Labels, e.Attributes)
}
