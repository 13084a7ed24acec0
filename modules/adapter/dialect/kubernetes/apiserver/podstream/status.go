package podstream

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/remotecommand"

	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// reasons are the API's words for what ends a stream. What is not here has none: the code says it.
var reasons = map[fault.Kind]metav1.StatusReason{
	fault.Internal:    metav1.StatusReasonInternalError,
	fault.Invalid:     metav1.StatusReasonBadRequest,
	fault.Denied:      metav1.StatusReasonForbidden,
	fault.NotFound:    metav1.StatusReasonNotFound,
	fault.Conflict:    metav1.StatusReasonConflict,
	fault.Unavailable: metav1.StatusReasonServiceUnavailable,
	fault.Timeout:     metav1.StatusReasonTimeout,
}

// outcome is the Status that ends an exec or attach.
func outcome(code int, err error) metav1.Status {
	if err != nil {
		f := fault.Of(err)
		return metav1.Status{Status: metav1.StatusFailure, Message: f.Message, Reason: reasons[f.Kind], Code: int32(f.Kind.Status())}
	}
	if code == 0 {
		return metav1.Status{Status: metav1.StatusSuccess}
	}
	return metav1.Status{
		Status: metav1.StatusFailure, Reason: remotecommand.NonZeroExitCodeReason,
		Message: fmt.Sprintf("command terminated with non-zero exit code: exit code %d", code),
		Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{
			{Type: remotecommand.ExitCodeCauseType, Message: strconv.Itoa(code & 0xff)}, // clients read eight bits
		}},
	}
}

// cause is why ctx ended, in words for the caller: err, unless that only says that it ended.
func cause(ctx context.Context, err error) error {
	if why := context.Cause(ctx); why != nil && errors.Is(err, context.Canceled) {
		return why
	}
	return err
}
