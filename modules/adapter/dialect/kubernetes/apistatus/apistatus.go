// Package apistatus has the Kubernetes API's words for faults.
package apistatus

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/modules/fault"
)

var reasons = map[fault.Kind]metav1.StatusReason{
	fault.Internal:      metav1.StatusReasonInternalError,
	fault.Invalid:       metav1.StatusReasonBadRequest,
	fault.Denied:        metav1.StatusReasonForbidden,
	fault.NotFound:      metav1.StatusReasonNotFound,
	fault.Conflict:      metav1.StatusReasonConflict,
	fault.Unsupported:   "NotImplemented", // the API has no constant for 501
	fault.Unavailable:   metav1.StatusReasonServiceUnavailable,
	fault.Timeout:       metav1.StatusReasonTimeout,
	fault.TooLarge:      metav1.StatusReasonRequestEntityTooLarge,
	fault.Unprocessable: metav1.StatusReasonInvalid,
	fault.Exhausted:     metav1.StatusReasonTooManyRequests,

	fault.Unauthenticated: metav1.StatusReasonUnauthorized,
}

// Of is a fault as the API tells it. kubectl prints "Error from server (<reason>): <message>", and the causes instead of
// the message where a request is well formed and yet refused.
func Of(f *fault.Error) metav1.Status {
	status := metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
		Message: f.Message, Reason: reasons[f.Kind], Code: int32(f.Kind.Status()), Details: &metav1.StatusDetails{},
	}
	if f.Kind == fault.Unprocessable {
		status.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseTypeFieldValueInvalid, Message: f.Message, Field: f.Field}}
	}
	return status
}
