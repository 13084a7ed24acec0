package docker

import (
	"net/http"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// errorBody is the Engine API's error, https://docs.docker.com/reference/api/engine/.
type errorBody struct {
	Message string `json:"message"`
}

// retryAfter is what a caller that goes over a limit is told to wait, in seconds.
const retryAfter = "1"

// Refuse renders err as dockerd does.
func (Dialect) Refuse(head dialect.Request, err error) dialect.Response {
	f := fault.Of(err)
	status := refusalStatus(f.Kind)
	if status == http.StatusNotModified {
		return answerEmpty(status)
	}
	response, mErr := answerJSON(status, errorBody{Message: refusalMessage(f)})
	if mErr != nil { // a string always marshals
		return answerEmpty(http.StatusInternalServerError)
	}
	if f.Kind == fault.Exhausted {
		response.Header.Set("Retry-After", retryAfter)
	}
	if head.Method == http.MethodHead {
		response.Body = nil
	}
	return response
}

// refusalStatus is the HTTP status that dockerd gives for a kind of fault.
func refusalStatus(kind fault.Kind) int {
	switch kind {
	case fault.Unprocessable:
		return http.StatusBadRequest
	case fault.Timeout:
		// Docker clients know no 504; 503 is what they retry.
		return http.StatusServiceUnavailable
	default:
		return kind.Status()
	}
}

// refusalMessage is what the caller reads. It never carries a cause.
func refusalMessage(f *fault.Error) string {
	message := f.Message
	if message == "" {
		message = f.Kind.String()
	}
	if f.Field != "" && !strings.Contains(message, f.Field) {
		message = f.Field + ": " + message
	}
	if f.Kind == fault.Denied && !strings.HasPrefix(message, "no permission") {
		message = "no permission: " + message
	}
	return message
}
