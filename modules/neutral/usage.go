package neutral

import "time"

// UsageOptions say how often a container's use of its host is told.
type UsageOptions struct {
	Stream bool // until the caller is gone
	Once   bool // one measurement at once; else a second one after a second, by which rates are reckoned
}

// Usage is what a container has used of its host, and what it uses now.
type Usage struct {
	At                      time.Time
	ID, Name                string
	CPU, UserCPU, KernelCPU time.Duration
	HostCPU                 time.Duration // of all CPUs of the host, idle or not
	CPUs                    int
	Memory, Cache           int64 // bytes; Cache is what of it can be had back at once
	MemoryLimit             int64
	Processes               int64
	Networks                map[string]Traffic
	BlockRead, BlockWritten int64 // bytes
}

// Traffic is what passed a network interface.
type Traffic struct{ ReceivedBytes, ReceivedPackets, SentBytes, SentPackets uint64 }

// Measured gives a session one measurement. ok is false for a session that has no form for it.
func Measured(s Session, usage Usage) (ok bool, err error) {
	m, ok := s.(interface{ Measured(usage Usage) error })
	if !ok {
		return false, nil
	}
	return true, m.Measured(usage)
}
