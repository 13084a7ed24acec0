package docker

import (
	"github.com/moby/moby/api/types/container"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// Measured writes what a container uses; see neutral.Measured. A client reckons rates by the measurement before, which
// comes along; without a stream it is not told of its own.
func (s *session) Measured(usage neutral.Usage) error {
	now := usageToDocker(usage)
	s.mu.Lock()
	before := s.before
	s.before = &now
	s.mu.Unlock()
	if before == nil && s.op.Usage != nil && !s.op.Usage.Stream && !s.op.Usage.Once {
		return s.Accept()
	}
	if before != nil {
		now.PreRead, now.PreCPUStats = before.Read, before.CPUStats
	}
	return s.writeJSON(now)
}

func usageToDocker(u neutral.Usage) container.StatsResponse {
	counted := func(n int64) uint64 { return uint64(max(n, 0)) }
	r := container.StatsResponse{ID: u.ID, Name: "/" + u.Name, OSType: "linux", Read: u.At.UTC(),
		CPUStats: container.CPUStats{SystemUsage: counted(int64(u.HostCPU)), OnlineCPUs: uint32(max(u.CPUs, 0)),
			CPUUsage: container.CPUUsage{TotalUsage: counted(int64(u.CPU)), UsageInUsermode: counted(int64(u.UserCPU)),
				UsageInKernelmode: counted(int64(u.KernelCPU))}},
		MemoryStats: container.MemoryStats{Usage: counted(u.Memory), Limit: counted(u.MemoryLimit),
			Stats: map[string]uint64{"inactive_file": counted(u.Cache)}},
		PidsStats: container.PidsStats{Current: counted(u.Processes)},
		BlkioStats: container.BlkioStats{IoServiceBytesRecursive: []container.BlkioStatEntry{
			{Op: "read", Value: counted(u.BlockRead)}, {Op: "write", Value: counted(u.BlockWritten)}}},
	}
	if len(u.Networks) > 0 {
		r.Networks = map[string]container.NetworkStats{}
		for name, t := range u.Networks {
			r.Networks[name] = container.NetworkStats{RxBytes: t.ReceivedBytes, RxPackets: t.ReceivedPackets, TxBytes: t.SentBytes, TxPackets: t.SentPackets}
		}
	}
	return r
}
