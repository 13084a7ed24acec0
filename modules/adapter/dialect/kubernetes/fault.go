package kubernetes

import (
	"context"
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// apiFault is the fault that an error of the API client stands for. subject is what was asked about, in words that
// the caller may read. The API server's own text stays in the cause: it can carry addresses.
func apiFault(err error, subject string) error {
	var f *fault.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &f):
		return err
	case errors.Is(err, context.DeadlineExceeded), apierrors.IsTimeout(err), apierrors.IsServerTimeout(err):
		return fault.Wrap(fault.Timeout, err, "%s: the orchestrator did not answer in time", subject)
	case errors.Is(err, context.Canceled):
		return fault.Wrap(fault.Unavailable, err, "%s: the request was cancelled", subject)
	case apierrors.IsNotFound(err):
		return fault.Wrap(fault.NotFound, err, "%s does not exist", subject)
	case apierrors.IsUnauthorized(err):
		return fault.Wrap(fault.Unavailable, err, "%s: the orchestrator does not accept the gateway's credentials", subject)
	case apierrors.IsForbidden(err):
		return fault.Wrap(fault.Denied, err, "%s: the orchestrator does not permit this to the gateway", subject)
	case apierrors.IsConflict(err):
		return fault.Wrap(fault.Conflict, err, "%s was changed meanwhile", subject)
	case apierrors.IsAlreadyExists(err):
		return fault.Wrap(fault.Conflict, err, "%s exists already", subject)
	case apierrors.IsInvalid(err):
		return fault.Wrap(fault.Unprocessable, err, "%s is not valid to the orchestrator", subject)
	case apierrors.IsBadRequest(err):
		return fault.Wrap(fault.Invalid, err, "%s: the orchestrator does not understand the request", subject)
	case apierrors.IsTooManyRequests(err):
		return fault.Wrap(fault.Exhausted, err, "%s: the orchestrator is busy", subject)
	case apierrors.IsServiceUnavailable(err):
		return fault.Wrap(fault.Unavailable, err, "%s: the orchestrator is not available", subject)
	}
	if status := apierrors.APIStatus(nil); errors.As(err, &status) {
		return fault.Wrap(fault.FromStatus(int(status.Status().Code)), err, "%s: the orchestrator refused the request", subject)
	}
	return fault.Wrap(fault.Unavailable, err, "%s: the orchestrator cannot be reached", subject)
}
