package modules

import (
	"encoding/json"
	"net/http"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Subject is who asks: a peer, and the caller that the peer says it is.
type Subject struct {
	Peer, Caller string
	Groups       Groups // of the caller
}

// Policy is who may do what, as modules ask it. Implementations are immutable and safe for concurrent use.
type Policy interface {
	// Judge decides about a verb on an object that is fully known.
	Judge(Subject, neutral.Verb, neutral.Object) Judgement
	// Foresee judges before the object was looked up, when name, labels and spec may be missing: it denies only what no
	// rule could allow whatever the object is. An Open judgement depends on the object.
	Foresee(Subject, neutral.Verb, neutral.Object) Judgement
	// MayKnow tells whether the subject may learn that the object exists.
	MayKnow(Subject, neutral.Object) bool
}

// Judgement is what policy says.
type Judgement struct {
	Allowed bool
	Open    bool   // of Foresee only
	Rule    string // the rule that allowed it
	Reason  string // why it is denied, for the caller
	Detail  error  // why it is denied, for the admin: it may name policies
	// Pause is what a pause does, by the policy that allows it.
	Pause neutral.PauseMode
	// Mode is the network mode in which a container is accessed, by that policy; "" for any.
	Mode neutral.NetworkMode
	// Switch is whether a container's network mode may be switched, by that policy, and whether it is switched back.
	Switch neutral.SwitchMode
	// ShowAddresses tells that the policy that allows it lets addresses of this cluster reach the peer.
	ShowAddresses bool
}

// Err is the refusal that a denial becomes; nil when allowed.
func (j Judgement) Err() error {
	if j.Allowed {
		return nil
	}
	return fault.Wrap(fault.Denied, j.Detail, "no permission: %s", j.Reason)
}

// Refusal is a fault for a caller whose dialect is not known: a Kubernetes Status that docker's clients read as well,
// for both look for "message".
func Refusal(err error) Answer { return RefusalAs(fault.Of(err).Kind.Status(), err) }

// RefusalAs is Refusal with another status.
func RefusalAs(status int, err error) Answer {
	f := fault.Of(err)
	body, mErr := json.Marshal(map[string]any{
		"kind": "Status", "apiVersion": "v1", "metadata": struct{}{}, "status": "Failure",
		"message": f.Message, "reason": f.Kind.String(), "code": status,
	})
	if mErr != nil { // strings and numbers always marshal
		body = []byte(`{"message":"internal error of the gateway"}`)
	}
	answer := Answer{Status: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: body}
	if status == http.StatusTooManyRequests {
		answer.Header.Set("Retry-After", "1")
	}
	return answer
}
