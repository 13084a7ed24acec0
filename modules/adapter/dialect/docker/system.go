package docker

import (
	"context"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// system tells who the engine is. What it counts are its own containers, whoever may see them.
func (a *action) system(ctx context.Context) (neutral.Result, error) {
	system, err := a.System(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	return neutral.Result{System: &system}, nil
}
