package containerd

import (
	"context"
	"fmt"

	taskevents "github.com/containerd/containerd/api/events"
	events "github.com/containerd/containerd/api/services/events/v1"
	"google.golang.org/protobuf/proto"
)

const (
	topicPaused  = "/tasks/paused"
	topicResumed = "/tasks/resumed"
)

// Follow tells of each container that was paused or resumed, by whomever, until the stream breaks.
func (r *Runtime) Follow(ctx context.Context, changed func(id string)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	filter := func(topic string) string { return `namespace==` + kubeletNamespace + `,topic=="` + topic + `"` }
	stream, err := events.NewEventsClient(r.connection).Subscribe(ctx, &events.SubscribeRequest{Filters: []string{filter(topicPaused), filter(topicResumed)}})
	if err != nil {
		return fmt.Errorf("containerd: %w", err)
	}
	for {
		envelope, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("containerd: %w", err)
		}
		var about interface {
			proto.Message
			GetContainerID() string
		}
		switch envelope.GetTopic() {
		case topicPaused:
			about = &taskevents.TaskPaused{}
		case topicResumed:
			about = &taskevents.TaskResumed{}
		default:
			continue
		}
		if err := proto.Unmarshal(envelope.GetEvent().GetValue(), about); err != nil {
			return fmt.Errorf("containerd: an event: %w", err)
		}
		changed(about.GetContainerID())
	}
}
