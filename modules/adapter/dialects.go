package adapter

import (
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/docker"
	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect/kubernetes"
)

// Dialects is the list of dialects. A new orchestrator is one folder and one line here.
var Dialects = []dialect.Dialect{
	docker.Dialect{},
	kubernetes.Dialect{},
}
