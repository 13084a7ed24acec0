package modules

import (
	"errors"

	"github.com/isthmus-mesh/isthmus/modules/fault"
)

// maxCaller bounds the name of a caller; a SPIFFE ID and a service account's name are shorter.
const maxCaller = 512

// CheckCaller tells what is wrong with the name of a caller: it has to stand in a header and in a line of a log as it is.
func CheckCaller(name string) error {
	switch {
	case name == "":
		return errors.New("a caller's name is empty")
	case len(name) > maxCaller:
		return errors.New("a caller's name is longer than 512 bytes")
	case name[0] == ' ' || name[len(name)-1] == ' ':
		return errors.New("a caller's name begins or ends with a space")
	}
	for i := range len(name) {
		if name[i] < ' ' || name[i] > '~' {
			return errors.New("a caller's name has characters that are not printable ASCII")
		}
	}
	return nil
}

// CallerOf is the caller that a peer's header names; "" where it names none.
func CallerOf(header []string) (string, error) {
	switch len(header) {
	case 0:
		return "", nil
	case 1:
		if err := CheckCaller(header[0]); err != nil {
			return "", fault.Wrap(fault.Invalid, err, "the peer's gateway names its caller in a way that cannot be: %v", err)
		}
		return header[0], nil
	}
	return "", fault.New(fault.Invalid, "the peer's gateway names more than one caller")
}
