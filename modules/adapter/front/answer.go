package front

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/isthmus-mesh/isthmus/xds/names"
)

// statusLimit bounds the answers that are looked into: what an Envoy says by itself is some hundred bytes.
const statusLimit = 64 << 10

// unify makes an answer one that a docker client understands: without what gateways say to each other, and with
// docker's form of an error where an Envoy on the way answered by itself.
func (s *Server) unify(response *http.Response) {
	stripGateway(response.Header)
	switch mediaType := response.Header.Get("Content-Type"); {
	case response.StatusCode < http.StatusBadRequest:
	case strings.HasPrefix(mediaType, "text/plain"):
		s.unifyText(response)
	case strings.HasPrefix(mediaType, "application/json"):
		unifyStatus(response)
	}
}

// unifyText replaces what Envoy writes where it gave up: that is for its operator, and can name addresses.
func (s *Server) unifyText(response *http.Response) {
	if response.Header.Get("Server") != "envoy" {
		return
	}
	switch response.StatusCode {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
	default:
		return
	}
	said, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
	s.config.Log.Warn("the gateways could not carry a request", "status", response.StatusCode, "said", string(said))
	replaceBody(response, errorBody("peer "+s.config.Peer+" is not reachable from this gateway, or its orchestrator is not"))
}

// unifyStatus gives a Kubernetes Status as docker's error. The gateways' Envoys do not know which kind of caller they
// refuse, and say it in a form that kubectl prints and that docker's clients would read only by luck.
func unifyStatus(response *http.Response) {
	if response.Header.Get("Content-Encoding") != "" || response.Request != nil && response.Request.Method == http.MethodHead {
		return
	}
	said, err := io.ReadAll(io.LimitReader(response.Body, statusLimit))
	var status struct{ Kind, APIVersion, Message, Reason string }
	if err != nil || json.Unmarshal(said, &status) != nil || status.Kind != "Status" || status.APIVersion != "v1" {
		response.Body = readCloser{Reader: io.MultiReader(bytes.NewReader(said), response.Body), Closer: response.Body}
		return
	}
	message := status.Message
	if message == "" {
		message = status.Reason
	}
	if message == "" {
		message = http.StatusText(response.StatusCode)
	}
	replaceBody(response, errorBody(message))
}

// replaceBody puts a docker error in the place of an answer's body. The type is exact: with a charset the docker CLI
// prints the raw JSON.
func replaceBody(response *http.Response, body []byte) {
	_ = response.Body.Close()
	response.Header.Set("Content-Type", "application/json")
	response.Header.Set("Content-Length", strconv.Itoa(len(body)))
	response.Body, response.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
}

// stripGateway removes headers that are no business of a docker client.
func stripGateway(header http.Header) {
	for key := range header {
		if k := strings.ToLower(key); strings.HasPrefix(k, names.HeaderPrefix) || strings.HasPrefix(k, "x-envoy-") {
			delete(header, key)
		}
	}
}
