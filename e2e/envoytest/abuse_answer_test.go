package envoytest

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/isthmus-mesh/isthmus/modules/neutral"
)

// rudeHost is a service that answers with whatever it was told.
const rudeHost = "rude.shop.svc.east.isthmus.internal"

// answerAbuse is what a service of the target answers with; \n stands for CR LF.
type answerAbuse struct {
	abuse
	raw string
}

const noContent = "Content-Length: 0\n\n"

var answerAbuses = []answerAbuse{
	{abuse{"upgrade that nobody asked for", "`101 Switching Protocols`", "502, closed", ""}, "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: tcp\n\nhello"},
	{abuse{"status 000", "`HTTP/1.1 000`", "502, closed", ""}, "HTTP/1.1 000 What\n" + noContent},
	{abuse{"status 1000", "`HTTP/1.1 1000`", "502, closed", ""}, "HTTP/1.1 1000 What\n" + noContent},
	{abuse{"TE in an answer", "`TE: gzip`", "502, closed", ""}, "HTTP/1.1 200 OK\nTE: gzip\n" + noContent},
	{abuse{"empty TE in an answer", "`TE:`", "502, closed", ""}, "HTTP/1.1 200 OK\nTE:\n" + noContent},
	{abuse{"pseudo-header in an answer", "`:status: 300`", "502, closed", ""}, "HTTP/1.1 200 OK\n:status: 300\n" + noContent},
	{abuse{"length and chunks in an answer", "`Content-Length` and `Transfer-Encoding`", "502, closed", ""},
		"HTTP/1.1 200 OK\nContent-Length: 5\nTransfer-Encoding: chunked\n\n5\nhello\n0\n\n"},
	{abuse{"two lengths in an answer", "`Content-Length: 5` and `Content-Length: 6`", "502, closed", ""}, "HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 6\n\nhello!"},
	{abuse{"answer behind an answer", "a second answer behind a whole one", "200, closed", ""}, "HTTP/1.1 200 OK\nContent-Length: 5\n\nhelloHTTP/1.1 200 OK\n\n"},
	{abuse{"109 headers in an answer", "109 of 5 bytes", "502, closed", ""}, "HTTP/1.1 200 OK\n" + strings.Repeat("a: b\n", 109) + noContent},
	{abuse{"99 headers in an answer", "99 of 5 bytes, which with those that gateways add are too many", "502, closed", ""}, "HTTP/1.1 200 OK\n" + strings.Repeat("a: b\n", 98) + noContent},
	{abuse{"large header in an answer", "200 KB", "502, closed", ""}, "HTTP/1.1 200 OK\nx: " + strings.Repeat("a", 200<<10) + "\n" + noContent},
	{abuse{"many informational answers", "500 times `103 Early Hints`, then `200`", "200, closed", ""}, strings.Repeat("HTTP/1.1 103 Early Hints\n\n", 500) + "HTTP/1.1 200 OK\n" + noContent},
	{abuse{"forged gateway headers in an answer", "`x-isthmus-own-exchange: 1`", "200, closed", ""}, "HTTP/1.1 200 OK\nx-isthmus-own-exchange: 1\n" + noContent},
	{abuse{"answer that is not HTTP", "`hello`", "502, closed", ""}, "hello"},
}

func answerRows() []abuse {
	var rows []abuse
	for _, a := range answerAbuses {
		rows = append(rows, a.abuse)
	}
	return rows
}

// TestAbuseAnswers is a service that answers as none should; callers of others must not notice.
func TestAbuseAnswers(t *testing.T) {
	t.Parallel()
	v := newVictim(t)
	at := tcpServer(t, func(c *net.TCPConn) {
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		var which int
		if _, err := fmt.Sscanf(r.URL.Path, "/%d", &which); err == nil {
			_, _ = c.Write([]byte(strings.ReplaceAll(answerAbuses[which].raw, "\n", "\r\n")))
		}
	})
	v.east.export("rude", neutral.HTTP1, at, id("west"))
	v.east.set()
	for i, a := range answerAbuses {
		t.Run(a.name, func(t *testing.T) {
			text := strings.ReplaceAll(get(fmt.Sprint("/", i), rudeHost), "\n", "\r\n")
			if i == 0 { // the service may not be there yet
				eventually(t, waits, func() error {
					if saw := say(t, "tcp", v.west.model.Gateway.Edge, text, waits); saw != a.want {
						return fmt.Errorf("the sender saw %q", saw)
					}
					return nil
				})
			}
			v.tried(t, a.abuse, say(t, "tcp", v.west.model.Gateway.Edge, text, waits))
		})
	}
}
