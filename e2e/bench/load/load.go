// Package load sends one HTTP/1.1 request over and over on connections that are kept, on a schedule (Open) or as fast as
// answers come (Closed), and tells how long answers took.
package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Target is who is asked, and what.
type Target struct {
	Dial func(context.Context) (net.Conn, error)
	// Request is a whole request as it goes onto the wire.
	Request []byte
}

// Result is what came of a load. A request that failed has no latency.
type Result struct {
	Latencies []time.Duration // sorted
	Took      time.Duration
	// Late are requests that the generator, not the target, sent too late to be counted for what they are.
	Late   int
	Errors int
	// Err is the first of the errors.
	Err error
}

// Quantile is the latency below which the share q of all answers came; 0 when there were none.
func (r Result) Quantile(q float64) time.Duration {
	if len(r.Latencies) == 0 {
		return 0
	}
	return r.Latencies[min(int(q*float64(len(r.Latencies))), len(r.Latencies)-1)]
}

// Rate is the number of answers a second.
func (r Result) Rate() float64 { return float64(len(r.Latencies)) / r.Took.Seconds() }

// answerTimeout is how long one answer may take.
const answerTimeout = 10 * time.Second

// connection is one kept connection and what was measured on it.
type connection struct {
	target Target
	conn   net.Conn
	reader *bufio.Reader

	latencies []time.Duration
	errors    int
	err       error
}

func connect(ctx context.Context, target Target, n int) (all []*connection, err error) {
	for range n {
		c := &connection{target: target, latencies: make([]time.Duration, 0, 1<<12)}
		if err := c.dial(ctx); err != nil {
			disconnect(all)
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

func disconnect(all []*connection) {
	for _, c := range all {
		if c.conn != nil {
			c.conn.Close()
		}
	}
}

func (c *connection) dial(ctx context.Context) error {
	conn, err := c.target.Dial(ctx)
	if err != nil {
		return fmt.Errorf("connect the load: %w", err)
	}
	if c.reader == nil {
		c.reader = bufio.NewReaderSize(conn, 32<<10)
	} else {
		c.reader.Reset(conn)
	}
	c.conn = conn
	return nil
}

// measure sends the request and records what passed from since until the answer was read.
func (c *connection) measure(ctx context.Context, since time.Time) {
	err := c.ask(ctx)
	if err == nil {
		c.latencies = append(c.latencies, time.Since(since))
		return
	}
	if ctx.Err() != nil {
		return // the run is over
	}
	c.errors++
	if c.err == nil {
		c.err = err
	}
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

func (c *connection) ask(ctx context.Context) error {
	if c.conn == nil {
		if err := c.dial(ctx); err != nil {
			return err
		}
	}
	if err := c.conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	if _, err := c.conn.Write(c.target.Request); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(response.Body, 512))
		return fmt.Errorf("the answer is %s: %s", response.Status, body)
	}
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if response.Close {
		return errors.New("the target ends the connection, which is to be kept")
	}
	return nil
}

// gather joins what was measured on all connections.
func gather(all []*connection, took time.Duration) Result {
	r := Result{Took: took}
	for _, c := range all {
		r.Latencies = append(r.Latencies, c.latencies...)
		r.Errors += c.errors
		if r.Err == nil {
			r.Err = c.err
		}
	}
	slices.Sort(r.Latencies)
	return r
}

// Once sends the request once and gives the answer's body.
func Once(ctx context.Context, target Target) ([]byte, error) {
	conn, err := target.Dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return nil, fmt.Errorf("ask: %w", err)
	}
	if _, err := conn.Write(target.Request); err != nil {
		return nil, fmt.Errorf("ask: %w", err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer is %s: %s", response.Status, body[:min(len(body), 512)])
	}
	return body, nil
}

// Closed keeps n connections busy: each asks again as soon as it was answered. It finds out what a target can do at
// most; its latencies say nothing of a target that is not saturated.
func Closed(ctx context.Context, target Target, n int, duration time.Duration) (Result, error) {
	all, err := connect(ctx, target, n)
	if err != nil {
		return Result{}, err
	}
	defer disconnect(all)
	begin := time.Now()
	var group sync.WaitGroup
	for _, c := range all {
		group.Go(func() {
			for time.Since(begin) < duration && ctx.Err() == nil {
				c.measure(ctx, time.Now())
			}
		})
	}
	group.Wait()
	return gather(all, time.Since(begin)), ctx.Err()
}
