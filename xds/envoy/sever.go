package envoy

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isthmus-mesh/isthmus/xds/names"
)

// Sever ends every TCP connection that the running Envoy has to one of the addresses, or that has one of the marks
// (names.TunnelMark), with all that is under way on it, and tells how many they were. Envoy itself has no such order: a cluster that is removed lets its streams go on for as
// long as they like, and so what a peer answers would pass after the trust in it has ended.
//
// It takes the sockets from the process, which the kernel grants to whom it would let debug it: to root, and in most
// settings to the user that Envoy was started by.
func (s *Supervisor) Sever(addresses []netip.AddrPort, marks ...int) (int, error) {
	s.mu.Lock()
	pid := s.status.PID
	s.mu.Unlock()
	if pid == 0 || len(addresses)+len(marks) == 0 {
		return 0, nil
	}
	process, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("sever connections of envoy: %w", err)
	}
	defer func() { _ = unix.Close(process) }()
	folder := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	files, err := os.ReadDir(folder)
	if err != nil {
		return 0, fmt.Errorf("sever connections of envoy: %w", err)
	}
	severed := 0
	for _, f := range files {
		number, err := strconv.Atoi(f.Name())
		if err != nil {
			continue
		}
		if what, err := os.Readlink(filepath.Join(folder, f.Name())); err != nil || !strings.HasPrefix(what, "socket:") {
			continue // closed since, or no socket
		}
		ended, err := sever(process, number, addresses, marks)
		if err != nil {
			return severed, fmt.Errorf("sever connections of envoy: %w", err)
		}
		if ended {
			severed++
		}
	}
	return severed, nil
}

// sever ends one socket of a process if it is connected to one of the addresses, or connected and marked.
func sever(process, number int, addresses []netip.AddrPort, marks []int) (bool, error) {
	socket, err := unix.PidfdGetfd(process, number, 0)
	switch {
	case errors.Is(err, unix.EBADF), errors.Is(err, unix.ESRCH):
		return false, nil // closed since, or the process ended
	case err != nil:
		return false, err
	}
	defer func() { _ = unix.Close(socket) }()
	name, err := unix.Getpeername(socket)
	if err != nil {
		return false, nil // it listens, or is not connected any more
	}
	var to netip.AddrPort
	switch n := name.(type) {
	case *unix.SockaddrInet4:
		to = netip.AddrPortFrom(netip.AddrFrom4(n.Addr), uint16(n.Port)) //nolint:gosec // a port
	case *unix.SockaddrInet6:
		to = netip.AddrPortFrom(netip.AddrFrom16(n.Addr).Unmap(), uint16(n.Port)) //nolint:gosec // a port
	default:
		return false, nil
	}
	if !slices.Contains(addresses, to) {
		mark, err := unix.GetsockoptInt(socket, unix.IPPROTO_TCP, names.SocketMark)
		if err != nil || !slices.Contains(marks, mark) {
			return false, nil
		}
	}
	if err := unix.Shutdown(socket, unix.SHUT_RDWR); err != nil && !errors.Is(err, unix.ENOTCONN) {
		return false, err
	}
	return true, nil
}
