package hijack

import (
	"errors"
	"io"
	"net/http"
	"strconv"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/xds/names"
)

// BodyLimit bounds the original request's body of a session: an exec's start options are some bytes.
const BodyLimit = 1 << 20

// Protocol is the only upgrade that a session stands for.
const Protocol = "tcp"

// ReadSession splits a session's stream: the body of the original request, and what the client types after it. A
// session that ends inside the body is invalid.
func ReadSession(r *http.Request) (body []byte, stdin io.Reader, err error) {
	if protocol := r.Header.Get(names.HeaderSession); protocol != Protocol {
		return nil, nil, fault.New(fault.Invalid, "the session's protocol is %q, want %q", protocol, Protocol)
	}
	size, err := sessionBody(r.Header.Values(names.HeaderSessionBody))
	if err != nil {
		return nil, nil, err
	}
	stdin = r.Body
	if stdin == nil {
		stdin = http.NoBody
	}
	if size == 0 {
		return nil, stdin, nil
	}
	body = make([]byte, size)
	if _, err := io.ReadFull(stdin, body); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, nil, fault.New(fault.Invalid, "the session ended inside its request's body")
		}
		return nil, nil, fault.Wrap(fault.Unavailable, err, "the session broke off inside its request's body")
	}
	return body, stdin, nil
}

// sessionBody reads the length of the original body; none is 0.
func sessionBody(values []string) (int, error) {
	if len(values) == 0 {
		return 0, nil
	}
	if len(values) > 1 {
		return 0, fault.New(fault.Invalid, "the session's body length is given twice")
	}
	size, err := strconv.ParseUint(values[0], 10, 31)
	if err != nil {
		return 0, fault.New(fault.Invalid, "the session's body length is no number")
	}
	if size > BodyLimit {
		return 0, fault.New(fault.TooLarge, "the session's request passes %d bytes", BodyLimit)
	}
	return int(size), nil
}
