package adapter

import (
	"encoding/json"
	"net/http"

	"github.com/isthmus-mesh/isthmus/modules/adapter/mask"
)

// failure holds an answer back by which an orchestrator refuses a session, until it is whole and shows no address. What a
// session carries itself goes through.
type failure struct {
	http.ResponseWriter
	mask   *mask.Mask
	status int // of an answer that is held back
	body   []byte
}

func (f *failure) WriteHeader(status int) {
	if status < http.StatusBadRequest {
		f.ResponseWriter.WriteHeader(status)
		return
	}
	f.status = status
}

func (f *failure) Write(p []byte) (int, error) {
	if f.status == 0 {
		return f.ResponseWriter.Write(p)
	}
	if len(f.body)+len(p) > textLimit {
		return 0, mask.ErrTooLarge
	}
	f.body = append(f.body, p...)
	return len(p), nil
}

// Unwrap gives http.ResponseController what it flushes.
func (f *failure) Unwrap() http.ResponseWriter { return f.ResponseWriter }

// tell writes what was held back.
func (f *failure) tell() error {
	if f.status == 0 {
		return nil
	}
	body := f.body
	if json.Valid(body) {
		body = f.mask.Value(&mask.Rules{}, body)
	} else {
		body = f.mask.Text(body)
	}
	f.Header().Del("Content-Length")
	f.ResponseWriter.WriteHeader(f.status)
	_, err := f.ResponseWriter.Write(body)
	return err
}
