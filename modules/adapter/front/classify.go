package front

import (
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"
)

type kind int

const (
	kindOrdinary kind = iota
	kindSession       // docker hijacks the connection
	kindUnserved      // an upgrade that cannot cross
)

// classify tells what becomes of the connection. Docker hijacks with "Upgrade: tcp", and older clients without any
// upgrade on the two paths where an engine hijacks.
func classify(r *http.Request) kind {
	call := callOf(r.URL.Path)
	upgrade := ""
	if httpguts.HeaderValuesContainsToken(r.Header["Connection"], "Upgrade") {
		upgrade = strings.ToLower(r.Header.Get("Upgrade"))
	}
	switch {
	case call == callBuild || upgrade == "websocket":
		return kindUnserved
	case r.Method != http.MethodPost:
		return kindOrdinary
	case upgrade == "tcp" || call == callAttach || call == callExec:
		return kindSession
	}
	return kindOrdinary
}

type call int

const (
	callOther  call = iota
	callAttach      // POST /containers/{id}/attach
	callExec        // POST /exec/{id}/start
	callLogs        // GET /containers|services|tasks/{id}/logs
	callBuild       // /session, /grpc: HTTP/2 inside an upgrade
)

// callOf knows the few paths of the Engine API that are streams in docker's own framing.
func callOf(path string) call {
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	if isVersion(segments[0]) {
		segments = segments[1:]
	}
	switch {
	case len(segments) == 1 && (segments[0] == "session" || segments[0] == "grpc"):
		return callBuild
	case len(segments) != 3:
		return callOther
	case segments[0] == "containers" && segments[2] == "attach":
		return callAttach
	case segments[0] == "exec" && segments[2] == "start":
		return callExec
	case segments[2] == "logs" && (segments[0] == "containers" || segments[0] == "services" || segments[0] == "tasks"):
		return callLogs
	}
	return callOther
}

// isVersion tells an API version, "v1.41".
func isVersion(segment string) bool {
	if len(segment) < 2 || segment[0] != 'v' {
		return false
	}
	for _, c := range segment[1:] {
		if c != '.' && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}
