package apiserver

import (
	"io"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// stirring is the session of somebody who wants to know that something happens, and not what.
type stirring struct{ stirred chan<- struct{} }

func (s stirring) stir() {
	select {
	case s.stirred <- struct{}{}:
	default: // it is known already
	}
}

func (s stirring) Accept() error {
	s.stir() // what came before is not told
	return nil
}
func (s stirring) Output(neutral.Chunk) error { return nil }
func (s stirring) Event(neutral.Event) error {
	s.stir()
	return nil
}
func (s stirring) Progress(string, string) error { return nil }
func (s stirring) Stdin() io.Reader              { return nil }
func (s stirring) Resizes() <-chan neutral.Size  { return nil }
