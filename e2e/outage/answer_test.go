package outage

import (
	"encoding/binary"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"time"
)

// blink is how long nobody looks for an answer.
const blink = 50 * time.Millisecond

// presence tells of a database of a port, in whatever container and network, whether it takes a session: it is asked at its
// socket, which is the same in every network mode.
type presence struct {
	port int
	last []string // where it was found
}

func (p *presence) answers() bool {
	if slices.ContainsFunc(p.last, p.welcomes) {
		return true
	}
	p.last = postmasters(p.port)
	return slices.ContainsFunc(p.last, p.welcomes)
}

// welcomes asks one database for a session, as psql does.
func (p *presence) welcomes(process string) bool {
	socket := filepath.Join(process, "root/var/run/postgresql", fmt.Sprintf(".s.PGSQL.%d", p.port))
	conn, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	const version, answer = 3 << 16, 'R' // of the protocol; how a server begins that lets a user in
	parameters := "user\x00postgres\x00\x00"
	hello := binary.BigEndian.AppendUint32(nil, uint32(8+len(parameters)))
	hello = append(binary.BigEndian.AppendUint32(hello, version), parameters...)
	if _, err := conn.Write(hello); err != nil {
		return false
	}
	var first [1]byte
	if _, err := conn.Read(first[:]); err != nil || first[0] != answer {
		return false
	}
	_, err = conn.Write([]byte{'X', 0, 0, 0, 4}) // the end of the session
	return err == nil
}
