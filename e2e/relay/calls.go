package relay

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"strings"
	"sync/atomic"
	"time"

	peeringv1 "github.com/isthmus-mesh/isthmus/proto/gen/isthmus/peering/v1"
)

// Call is a call of the peering service that has reached the relay.
type Call struct {
	// Context ends when the caller has given the call up.
	Context context.Context
	// Method is Hello, Configure, Heartbeat or Goodbye.
	Method string
	// Request is the message without gRPC's frame.
	Request []byte

	calls  *Calls
	header http.Header
	host   string
}

// Answer is what came of a call. The zero one is silence: the caller hears nothing until it gives up.
type Answer struct {
	Status          int
	Header, Trailer http.Header
	// Message is without gRPC's frame; nil where the answer is an error.
	Message []byte
	// Whole is how many bytes of the framed message arrive before the stream is cut; 0 for all, and no cut.
	Whole int
	// Broken is an answer that breaks off before it begins.
	Broken bool
}

// Fault decides what becomes of a call. It runs beside other calls, and may pass its call any number of times, also
// when the caller is gone.
type Fault func(*Call) Answer

// Pass is the Fault that is none.
func Pass(c *Call) Answer { return c.Pass(c.Context, c.Request) }

// Refusal is an answer of gRPC's code 14, as an Envoy gives it that reaches nobody.
func Refusal() Answer {
	return Answer{Status: http.StatusOK, Header: http.Header{
		"Content-Type": {"application/grpc"}, "Grpc-Status": {"14"}, "Grpc-Message": {"refused by the relay"}}}
}

// Calls stands between isthmus and its Envoy, on the socket by which isthmus calls its peers. There what gateways say
// to each other is not encrypted. What is no call of the peering service passes as it is.
type Calls struct {
	server    *http.Server
	transport *http.Transport
	proxy     *httputil.ReverseProxy
	fault     atomic.Pointer[Fault]
}

// Interpose takes the place of the Unix socket at path, on which a server listens already. Who has a connection to it
// keeps that one.
func Interpose(path string) (*Calls, error) {
	behind := path + ".behind"
	if err := os.Rename(path, behind); err != nil {
		return nil, err
	}
	listener, err := net.Listen("unix", path) //nolint:noctx // it waits for nothing
	if err != nil {
		return nil, errors.Join(err, os.Rename(behind, path))
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false) // by then another one may be there
	c := &Calls{}
	c.transport = &http.Transport{Protocols: new(http.Protocols), DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", behind)
		}}
	c.transport.Protocols.SetUnencryptedHTTP2(true)
	quiet := log.New(io.Discard, "", 0)
	c.proxy = &httputil.ReverseProxy{Transport: c.transport, FlushInterval: -1, ErrorLog: quiet, Rewrite: func(p *httputil.ProxyRequest) {
		p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "http", p.In.Host, p.In.Host
	}}
	c.server = &http.Server{Handler: c, ReadHeaderTimeout: time.Minute, Protocols: new(http.Protocols), ErrorLog: quiet}
	c.server.Protocols.SetHTTP1(true)
	c.server.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = c.server.Serve(listener) }() // ends by Close
	return c, nil
}

// Set decides what becomes of calls from now on; nil passes them.
func (c *Calls) Set(f Fault) {
	if f == nil {
		c.fault.Store(nil)
		return
	}
	c.fault.Store(&f)
}

// Close ends the relay and every call in it. The socket behind it is not put back.
func (c *Calls) Close() error {
	err := c.server.Close()
	c.transport.CloseIdleConnections()
	return err
}

// ServeHTTP takes a call, or passes what is none.
func (c *Calls) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method, is := strings.CutPrefix(r.URL.Path, "/"+peeringv1.PeeringService_ServiceDesc.ServiceName+"/")
	if !is {
		c.proxy.ServeHTTP(w, r)
		return
	}
	request, err := unframe(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler) // the caller broke off
	}
	fault := Pass
	if f := c.fault.Load(); f != nil {
		fault = *f
	}
	answer := fault(&Call{Context: r.Context(), Method: method, Request: request, calls: c, header: r.Header, host: r.Host})
	switch {
	case answer.Broken:
		panic(http.ErrAbortHandler)
	case answer.Status == 0:
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	}
	answer.write(w)
}

// Pass brings a request to the peer and its answer back; a broken one when the call broke off.
func (c *Call) Pass(ctx context.Context, request []byte) Answer {
	url := "http://" + c.host + "/" + peeringv1.PeeringService_ServiceDesc.ServiceName + "/" + c.Method
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(string(frame(request))))
	if err != nil {
		return Answer{Broken: true}
	}
	r.Header = c.header.Clone()
	r.Header.Set("Te", "trailers")
	response, err := c.calls.transport.RoundTrip(r)
	if err != nil {
		return Answer{Broken: true}
	}
	defer func() { _ = response.Body.Close() }()
	message, err := unframe(response.Body)
	if err != nil && !errors.Is(err, io.EOF) {
		return Answer{Broken: true}
	}
	return Answer{Status: response.StatusCode, Header: response.Header, Trailer: response.Trailer, Message: message}
}

func (a Answer) write(w http.ResponseWriter) {
	for key, values := range a.Header {
		w.Header()[key] = values
	}
	w.Header().Del("Content-Length")
	w.WriteHeader(a.Status)
	if a.Message == nil { // gRPC's errors are a head and nothing else, not even an empty body
		return
	}
	body := frame(a.Message)
	if a.Whole > 0 {
		body = body[:min(a.Whole, len(body))]
	}
	_, err := w.Write(body)
	if err == nil {
		err = http.NewResponseController(w).Flush()
	}
	if err != nil || a.Whole > 0 {
		panic(http.ErrAbortHandler)
	}
	for key, values := range a.Trailer {
		w.Header()[http.TrailerPrefix+key] = values
	}
}

// messageLimit bounds a message; the gateways' own limit is far below it.
const messageLimit = 4 << 20

// unframe reads a message out of its gRPC frame; io.EOF is no message.
func unframe(body io.Reader) ([]byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(body, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[1:])
	if head[0] != 0 || size > messageLimit {
		return nil, fmt.Errorf("a frame of kind %d and %d bytes", head[0], size)
	}
	message := make([]byte, size)
	if _, err := io.ReadFull(body, message); err != nil {
		return nil, io.ErrUnexpectedEOF
	}
	if _, err := io.Copy(io.Discard, body); err != nil { // to the trailers
		return nil, err
	}
	return message, nil
}

func frame(message []byte) []byte {
	b := make([]byte, 5, 5+len(message))
	binary.BigEndian.PutUint32(b[1:], uint32(len(message))) //nolint:gosec // bounded by messageLimit
	return append(b, message...)
}
