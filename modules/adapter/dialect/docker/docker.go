// Package docker is the dialect of the Docker Engine API, Swarm included. Its inbound half serves unmodified docker
// clients on another orchestrator; its outbound half operates an engine or a swarm.
//
// The inbound half follows one rule above all: nothing that a client sends is dropped silently. A request body is read
// as a tree that remembers what was understood; what is left over is reported as a warning, or refused where dropping
// it would change safety or data.
package docker

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Dialect is the Docker Engine API. Its zero value is ready to use.
type Dialect struct {
	// Now is the clock that "Up 5 seconds" is reckoned by; nil is time.Now.
	Now func() time.Time
}

var _ dialect.Inbound = Dialect{}

// Orchestrator is Docker.
func (Dialect) Orchestrator() neutral.Orchestrator { return neutral.Docker }

func (d Dialect) now() time.Time {
	if d.Now != nil {
		return d.Now()
	}
	return time.Now()
}

// Labels that the inbound half adds to what a client inspects. They are no part of an object: a client that sends them
// back, having copied what it inspected, does not set them.
const (
	labelLosses = "isthmus.io/losses"
	labelOwner  = "isthmus.io/owner"
)

// engineHeader is what every answer of an engine carries; clients negotiate their API version by it.
func engineHeader() http.Header {
	return http.Header{
		"Api-Version":         {APIVersion},
		"Docker-Experimental": {"false"},
		"Ostype":              {"linux"},
		"Server":              {"Isthmus"},
	}
}

// jsonMediaType is exact: with a charset the docker CLI prints an error's raw JSON.
const jsonMediaType = "application/json"

// answerJSON renders a body.
func answerJSON(status int, body any) (dialect.Response, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return dialect.Response{}, fault.Wrap(fault.Internal, err, "the answer could not be written")
	}
	header := engineHeader()
	header.Set("Content-Type", jsonMediaType)
	return dialect.Response{Status: status, Header: header, Body: append(raw, '\n')}, nil
}

// answerEmpty is an answer without a body.
func answerEmpty(status int) dialect.Response {
	return dialect.Response{Status: status, Header: engineHeader()}
}
