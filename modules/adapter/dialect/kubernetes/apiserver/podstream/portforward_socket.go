package podstream

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync"
)

// forwardChannels forwards one connection to each port, in two channels of a WebSocket: one for data, one for what goes
// wrong. It ends when all have, or when the caller does.
func forwardChannels(ctx context.Context, cancel context.CancelCauseFunc, c channels, ports []uint16, dial Dial) error {
	readers := make([]*io.PipeReader, len(ports))
	writers := make([]*io.PipeWriter, len(ports))
	for i := range ports {
		readers[i], writers[i] = io.Pipe()
	}
	var group, forwards sync.WaitGroup
	group.Go(func() { c.watch(ctx, cancel, c.beat) })
	group.Go(func() {
		_ = c.listen(func(channel byte, data io.Reader) { // however it ended, the caller is gone
			if i := int(channel) / 2; i < len(ports) && channel%2 == 0 {
				_, _ = io.Copy(writers[i], data) // a connection that has ended takes nothing
			}
		}, func(byte) {})
		cancel(errGone)
	})
	for i, port := range ports {
		forwards.Go(func() {
			data, failures := byte(2*i), byte(2*i+1)
			defer func() { _ = readers[i].Close() }() // never fails
			number := binary.LittleEndian.AppendUint16(nil, port)
			if c.write(data, number) != nil || c.write(failures, number) != nil {
				return
			}
			conn, err := dial(ctx, port)
			if err == nil {
				err = c.carry(ctx, data, readers[i], conn)
			}
			if err != nil && ctx.Err() == nil {
				_ = c.write(failures, []byte(forwardFailure(port, err))) // the client may be gone
			}
		})
	}
	forwards.Wait()
	gone := ctx.Err() != nil
	c.finish(ctx)
	var err error
	if gone {
		err = forwardEnd(ctx)
	}
	cancel(errEnded)
	group.Wait()
	return err
}

// carry copies both ways until the container has said all: the client cannot end one direction.
func (c channels) carry(ctx context.Context, channel byte, input *io.PipeReader, conn io.ReadWriteCloser) error {
	var group sync.WaitGroup
	defer group.Wait()
	defer func() { _ = input.Close() }() // never fails
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	group.Go(func() {
		_, _ = io.Copy(conn, input) // a connection that broke says so to its reader
		_ = input.Close()           // never fails
	})
	buffer := make([]byte, frameSize)
	for {
		n, err := conn.Read(buffer)
		if n > 0 {
			if c.write(channel, buffer[:n]) != nil {
				return errGone
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return errBroken
		}
	}
}
