// Command forward accepts TCP connections on an inherited listener and joins
// each to one dialled from within another network namespace. The half-close
// of either side is passed on, which attach and exec streams live by.
package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
)

const dialTimeout = 5 * time.Second

func main() {
	log.SetFlags(log.LstdFlags | log.LUTC)
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: forward NAMESPACE-FILE ADDRESS, with a listener as descriptor 3")
		os.Exit(2)
	}
	listener, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		log.Fatalf("inherited listener: %v", err)
	}
	namespace, err := os.Open(os.Args[1])
	if err != nil {
		log.Fatalf("network namespace: %v", err)
	}
	requests := make(chan request)
	go dial(namespace, os.Args[2], requests)
	log.Printf("%s is forwarded to %s in %s", listener.Addr(), os.Args[2], os.Args[1])
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Fatalf("accept: %v", err)
		}
		go serve(conn.(*net.TCPConn), requests)
	}
}

type request struct {
	result chan<- result
}

type result struct {
	conn net.Conn
	err  error
}

// dial owns the one thread that is in the other namespace.
func dial(namespace *os.File, address string, requests <-chan request) {
	runtime.LockOSThread()
	if err := setNetworkNamespace(namespace); err != nil {
		log.Fatalf("enter network namespace: %v", err)
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	for r := range requests {
		conn, err := dialer.Dial("tcp", address)
		r.result <- result{conn, err}
	}
}

func serve(client *net.TCPConn, requests chan<- request) {
	defer func() { _ = client.Close() }()
	answer := make(chan result, 1)
	requests <- request{answer}
	dialled := <-answer
	if dialled.err != nil {
		log.Printf("dial: %v", dialled.err)
		_ = client.SetLinger(0) // the client sees a reset, not an orderly end
		return
	}
	target := dialled.conn.(*net.TCPConn)
	defer func() { _ = target.Close() }()
	var both sync.WaitGroup
	both.Go(func() { pass(target, client) })
	both.Go(func() { pass(client, target) })
	both.Wait()
}

// pass copies one direction to its end. After an error nothing that follows
// can arrive in either direction, so both ends are reset.
func pass(to, from *net.TCPConn) {
	_, err := io.Copy(to, from)
	if err == nil {
		err = to.CloseWrite()
	}
	if err != nil && !errors.Is(err, net.ErrClosed) {
		_, _ = to.SetLinger(0), from.SetLinger(0)
		_, _ = to.Close(), from.Close()
	}
}

// setNetworkNamespace moves the calling thread.
func setNetworkNamespace(namespace *os.File) error {
	_, _, errno := syscall.RawSyscall(setns, namespace.Fd(), syscall.CLONE_NEWNET, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
