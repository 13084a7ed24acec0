package apiserver

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// What a gateway vouches for.
const (
	vouchedPod        = "pod"
	vouchedDeployment = "deployment"
)

// vouch writes into a document that it was judged, and by whom it was written: what is in it may be made again without
// asking, and others can write such labels too.
func (s *Server) vouch(kind string, origin *neutral.Origin, namespace, name string) error {
	var d document
	if err := json.Unmarshal(origin.Spec, &d); err != nil {
		return err
	}
	d.Mark = s.markOf(kind, d.Object, origin.Peer, namespace, name)
	spec, err := json.Marshal(d)
	origin.Spec = spec
	return err
}

// vouched tells whether a document is of this gateway, and of an object of this name that its peer made.
func (s *Server) vouched(kind string, origin *neutral.Origin, namespace, name string) bool {
	var d document
	return origin != nil && json.Unmarshal(origin.Spec, &d) == nil && hmac.Equal(d.Mark, s.markOf(kind, d.Object, origin.Peer, namespace, name))
}

func (s *Server) markOf(kind string, object []byte, peer, namespace, name string) []byte {
	mac := hmac.New(sha256.New, s.key)
	for _, part := range []string{kind, peer, namespace, name} {
		mac.Write([]byte(part))
		mac.Write([]byte{0})
	}
	mac.Write(object)
	return mac.Sum(nil)
}
