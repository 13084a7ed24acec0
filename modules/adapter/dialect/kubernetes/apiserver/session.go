package apiserver

import (
	"io"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// stirring is the session of one who is to know as soon as something happens.
type stirring struct {
	noting
	stirred chan<- struct{}
}

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

func (s stirring) Event(e neutral.Event) error {
	s.stir()
	return s.noting.Event(e)
}

// noting is the session of one who remembers what happens.
type noting struct{ server *Server }

func (noting) Accept() error              { return nil }
func (noting) Output(neutral.Chunk) error { return nil }
func (n noting) Event(e neutral.Event) error {
	n.server.happened.add(e)
	return nil
}
func (noting) Progress(string, string) error { return nil }
func (noting) Stdin() io.Reader              { return nil }
func (noting) Resizes() <-chan neutral.Size  { return nil }

// quiet is the session of one who waits for the end alone.
type quiet struct{}

func (quiet) Accept() error                 { return nil }
func (quiet) Output(neutral.Chunk) error    { return nil }
func (quiet) Event(neutral.Event) error     { return nil }
func (quiet) Progress(string, string) error { return nil }
func (quiet) Stdin() io.Reader              { return nil }
func (quiet) Resizes() <-chan neutral.Size  { return nil }
