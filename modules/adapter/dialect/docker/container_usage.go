package docker

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/isthmus-mesh/isthmus/modules/fault"
	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// extraPS is where a caller's arguments of ps ride.
const extraPS = "ps_args"

func (a *action) topContainer(ctx context.Context) (neutral.Result, error) {
	found, err := a.findContainer(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	top, err := a.api.ContainerTop(ctx, found.id, client.ContainerTopOptions{Arguments: strings.Fields(a.op.Extra[extraPS])})
	if err != nil {
		return neutral.Result{}, faultOf(err)
	}
	return neutral.Result{Top: &neutral.ProcessTable{Titles: top.Titles, Processes: top.Processes}}, nil
}

// containerUsage tells what a container uses.
func (a *action) containerUsage(ctx context.Context, session neutral.Session) (neutral.Result, error) {
	options := neutral.UsageOptions{}
	if a.op.Usage != nil {
		options = *a.op.Usage
	}
	found, err := a.findContainer(ctx)
	if err != nil {
		return neutral.Result{}, err
	}
	stats, err := a.api.ContainerStats(ctx, found.id, client.ContainerStatsOptions{Stream: options.Stream, IncludePreviousSample: !options.Stream && !options.Once})
	if err != nil {
		return neutral.Result{}, faultOf(err)
	}
	defer func() { _ = stats.Body.Close() }()
	decoder := json.NewDecoder(stats.Body)
	for {
		var native container.StatsResponse
		err := decoder.Decode(&native)
		switch {
		case ctx.Err() != nil:
			return neutral.Result{}, ctx.Err()
		case errors.Is(err, io.EOF):
			return neutral.Result{}, nil
		case err != nil:
			return neutral.Result{}, fault.Wrap(fault.Unavailable, err, "the orchestrator's answer broke off")
		}
		all := []neutral.Usage{usageFromNative(found, native.Read, native.CPUStats, native)}
		if !options.Stream && !options.Once { // the measurement before comes along
			all = slices.Insert(all, 0, usageFromNative(found, native.PreRead, native.PreCPUStats, native))
		}
		for _, usage := range all {
			ok, err := neutral.Measured(session, usage)
			if !ok {
				return neutral.Result{}, fault.New(fault.Unsupported, "the use of resources has no form for this caller")
			}
			if err != nil {
				return neutral.Result{}, err
			}
		}
	}
}

func usageFromNative(l *located, at time.Time, cpu container.CPUStats, native container.StatsResponse) neutral.Usage {
	counted := func(n uint64) int64 { return int64(min(n, 1<<62)) }
	memory := native.MemoryStats
	u := neutral.Usage{
		At: at, ID: l.id, Name: l.name,
		CPU: time.Duration(counted(cpu.CPUUsage.TotalUsage)), UserCPU: time.Duration(counted(cpu.CPUUsage.UsageInUsermode)),
		KernelCPU: time.Duration(counted(cpu.CPUUsage.UsageInKernelmode)), HostCPU: time.Duration(counted(cpu.SystemUsage)), CPUs: int(cpu.OnlineCPUs),
		Memory: counted(memory.Usage), MemoryLimit: counted(memory.Limit), Processes: counted(native.PidsStats.Current),
	}
	for _, key := range []string{"inactive_file", "total_inactive_file"} { // of the two versions of control groups
		if n, ok := memory.Stats[key]; ok {
			u.Cache = counted(n)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(native.Networks)) {
		n := native.Networks[name]
		if u.Networks == nil {
			u.Networks = map[string]neutral.Traffic{}
		}
		u.Networks[name] = neutral.Traffic{ReceivedBytes: n.RxBytes, ReceivedPackets: n.RxPackets, SentBytes: n.TxBytes, SentPackets: n.TxPackets}
	}
	for _, entry := range native.BlkioStats.IoServiceBytesRecursive {
		switch strings.ToLower(entry.Op) {
		case "read":
			u.BlockRead += counted(entry.Value)
		case "write":
			u.BlockWritten += counted(entry.Value)
		}
	}
	return u
}
