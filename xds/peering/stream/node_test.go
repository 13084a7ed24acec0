package stream_test

import (
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

func TestBothReady(t *testing.T) {
	t.Parallel()
	west, east := pairOf(t)
	w := west.start(neutral.Docker, east.as())
	e := east.start(neutral.Kubernetes, west.as())
	w.await("east", "ready", readyAs(neutral.Kubernetes))
	e.await("west", "ready", readyAs(neutral.Docker))
}
