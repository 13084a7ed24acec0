package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/isthmus-mesh/isthmus/modules/adapter/dialect"
	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// Media types of the API.
const (
	mediaProtobuf = "application/vnd.kubernetes.protobuf"
	mediaJSON     = "application/json"
	acceptBoth    = mediaProtobuf + ", " + mediaJSON
)

var protobufCodec = protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)

// decodeObject reads a native answer into object; a native error answer becomes a fault.
func decodeObject(response dialect.Response, object runtime.Object) error {
	if response.Status >= http.StatusBadRequest {
		return statusFault(response)
	}
	return decodeBody(response.Body, object)
}

func decodeBody(body []byte, object runtime.Object) error {
	ok, _, _ := protobufCodec.RecognizesData(body) // it fails for no input
	var err error
	if ok {
		_, _, err = protobufCodec.Decode(body, nil, object)
	} else {
		err = json.Unmarshal(body, object)
	}
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "the orchestrator's answer could not be read")
	}
	return nil
}

// statusFault reads an error answer.
func statusFault(response dialect.Response) error {
	var status metav1.Status
	if err := decodeBody(response.Body, &status); err != nil || status.Code == 0 {
		return fault.Wrap(fault.FromStatus(response.Status), fmt.Errorf("status %d: %.512s", response.Status, response.Body),
			"the orchestrator refused the request with status %d", response.Status)
	}
	return nativeFault(&apierrors.StatusError{ErrStatus: status})
}

// nativeFault turns an error of the API into a fault. What a Status says is about the caller's objects and may be
// told; anything else can carry addresses and goes to the logs only.
func nativeFault(err error) error {
	var known *fault.Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			return fault.Of(err)
		}
		return fault.Wrap(fault.Unavailable, err, "the orchestrator could not be reached")
	}
	s := status.Status()
	kind := fault.FromStatus(int(s.Code))
	switch s.Reason {
	case metav1.StatusReasonForbidden:
		// An admission refusal (quota, policy) is about the request; a missing right is the peer's, or the gateway's own.
		return fault.Wrap(fault.Denied, err, "the cluster refuses it: %s", withoutAccount(s.Message))
	case metav1.StatusReasonUnauthorized:
		return fault.Wrap(fault.Unavailable, err, "the cluster does not accept the gateway's credential")
	case metav1.StatusReasonNotFound, metav1.StatusReasonAlreadyExists, metav1.StatusReasonConflict,
		metav1.StatusReasonInvalid, metav1.StatusReasonBadRequest:
		return fault.Wrap(kind, err, "%s", withoutAccount(s.Message))
	case metav1.StatusReasonTimeout, metav1.StatusReasonServerTimeout:
		return fault.Wrap(fault.Timeout, err, "the orchestrator did not answer in time")
	case metav1.StatusReasonTooManyRequests:
		return fault.Wrap(fault.Exhausted, err, "the orchestrator has too much to do")
	}
	return fault.Wrap(kind, err, "the orchestrator refused the request (%s)", s.Reason)
}

var (
	// accountUser is whom an authorizer says no to, `User "system:serviceaccount:isthmus:gateway" (groups=[...])`.
	accountUser = regexp.MustCompile(`\b([Uu]ser "(?:[^"\\]|\\.)*")(?: \(groups=\[[^\]]*\]\))?`)
	// peerUser is a peer to the cluster, who may know what it is called.
	peerUser = regexp.MustCompile(`^[Uu]ser "` + peerIdentity + `[a-z0-9-]+"`)
	// accountName is a service account wherever else one is named.
	accountName = regexp.MustCompile(`"?system:serviceaccounts?(?::[a-z0-9.-]*[a-z0-9])*"?`)
	// accountRoles is what an authorizer adds about the roles that it could not read.
	accountRoles = regexp.MustCompile(`(?s):? RBAC: .*$`)
)

// withoutAccount leaves in a message what may not be done and which peer may not do it, and takes out who the gateway is
// to the cluster.
func withoutAccount(message string) string {
	message = accountRoles.ReplaceAllLiteralString(message, "")
	message = accountUser.ReplaceAllStringFunc(message, func(user string) string {
		if peer := peerUser.FindString(user); peer != "" {
			return peer
		}
		return "the gateway"
	})
	return accountName.ReplaceAllLiteralString(message, "the gateway's account")
}
