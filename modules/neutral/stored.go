package neutral

import "time"

// StoredFile is a secret or a config: a small file that is kept by its name. What is in a secret is told to nobody.
type StoredFile struct {
	ID, Name  string
	Namespace string `json:",omitempty"`
	Labels    map[string]string
	Data      []byte `json:"-"`
	Version   string // optimistic lock
	Created   time.Time
	Updated   time.Time `json:",omitzero"`
	Origin    *Origin   `json:",omitempty"`
}

// MountedFile is a secret or a config in a container.
type MountedFile struct {
	Kind   Kind // KindSecret, KindConfig
	Name   string
	Target string // absolute
	Mode   uint32 // permission bits
}
