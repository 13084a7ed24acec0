package envoytest

import (
	"strings"
	"testing"
	"time"
)

// rawAbuse is bytes over TCP to an HTTP/1 listener.
type rawAbuse struct {
	abuse
	api bool   // at the listener for the peer's API, not at the edge for services
	raw string // \n stands for CR LF
}

const smuggled = "GET /smuggled HTTP/1.1\nHost: " + secretHost + "\nConnection: close\n\n"

var rawAbuses = []rawAbuse{
	// Names.
	{abuse: abuse{"another peer's service", "`Host: secret…`", "403, closed", ""}, raw: get("/a", secretHost)},
	{abuse: abuse{"forged gateway headers", "`x-isthmus-own-route`, `-peer`, `-destination`, `x-envoy-original-dst-host` to another peer's service", "403, closed", ""},
		raw: get("/a", secretHost, "X-Isthmus-Own-Route: service/shop/secret/main", "X-Isthmus-Own-Peer: spiffe://north.test/cluster/north",
			"x-isthmus-own-destination: 127.0.0.1:1", "x-envoy-original-dst-host: 127.0.0.1:1")},
	{abuse: abuse{"forged headers to an own service", "the same to a service that may be queried", "200, closed", "web GET /a"},
		raw: get("/a", webHost, "X-Isthmus-Own-Route: orchestrator", "x-isthmus-own-peer: north", "x-isthmus-node: n", "x-envoy-retry-on: 5xx")},
	{abuse: abuse{"user information", "`Host: web…@secret…`", "502, closed", ""}, raw: get("/a", webHost+"@"+secretHost)},
	{abuse: abuse{"user information, other way", "`Host: secret…@web…`", "502, closed", ""}, raw: get("/a", secretHost+"@"+webHost)},
	{abuse: abuse{"upper case", "`Host: SECRET…`", "403, closed", ""}, raw: get("/a", strings.ToUpper(secretHost))},
	{abuse: abuse{"trailing dot", "`Host: secret….`", "403, closed", ""}, raw: get("/a", secretHost+".")},
	{abuse: abuse{"two trailing dots", "`Host: secret…..`", "404, closed", ""}, raw: get("/a", secretHost+"..")},
	{abuse: abuse{"port", "`Host: secret…:80`", "403, closed", ""}, raw: get("/a", secretHost+":80")},
	{abuse: abuse{"port with zero", "`Host: secret…:080`", "403, closed", ""}, raw: get("/a", secretHost+":080")},
	{abuse: abuse{"no port after the colon", "`Host: secret…:`", "403, closed", ""}, raw: get("/a", secretHost+":")},
	{abuse: abuse{"two ports", "`Host: web…:80:secret…`", "404, closed", ""}, raw: get("/a", webHost+":80:"+secretHost)},
	{abuse: abuse{"slash in the name", "`Host: web…/secret…`", "400, closed", ""}, raw: get("/a", webHost+"/"+secretHost)},
	{abuse: abuse{"comma in the name", "`Host: web…, secret…`", "400, closed", ""}, raw: get("/a", webHost+", "+secretHost)},
	{abuse: abuse{"address for a name", "`Host: 127.0.0.1:1`", "404, closed", ""}, raw: get("/a", "127.0.0.1:1")},
	{abuse: abuse{"peering by the edge", "`Host: peering.east…`", "404, closed", ""}, raw: get("/a", "peering.east.isthmus.internal")},
	{abuse: abuse{"API by the edge", "`Host: api.east…`", "403, closed", ""}, raw: get(allowedPath, apiHost)},
	{abuse: abuse{"no Host", "HTTP/1.1 without `Host`", "400, closed", ""}, raw: "GET /a HTTP/1.1\nConnection: close\n\n"},
	{abuse: abuse{"empty Host", "`Host:`", "404, closed", ""}, raw: get("/a", "")},
	{abuse: abuse{"Host twice", "`Host: web…` and `Host: secret…`", "403, closed", ""}, raw: get("/a", webHost, "Host: "+secretHost)},
	{abuse: abuse{"Host twice, other order", "`Host: secret…` and `Host: web…`", "403, closed", ""}, raw: get("/a", secretHost, "Host: "+webHost)},
	{abuse: abuse{"absolute form, other Host", "`GET http://secret…/a` with `Host: web…`", "403, closed", ""}, raw: get("http://"+secretHost+"/a", webHost)},
	{abuse: abuse{"absolute form, other way", "`GET http://web…/a` with `Host: secret…`", "200, closed", "web GET /a"}, raw: get("http://"+webHost+"/a", secretHost)},
	{abuse: abuse{"absolute form with user information", "`GET http://web…@secret…/a`", "403, closed", ""}, raw: get("http://"+webHost+"@"+secretHost+"/a", webHost)},
	{api: true, abuse: abuse{"strange name at the API", "`GET http://evil.example/v1/shop/a` with `Host: localhost`", "403, closed", ""}, raw: get("http://evil.example/v1/shop/a", "localhost")},

	// Framing of bodies.
	{abuse: abuse{"length and chunks", "`Content-Length: 6` and `Transfer-Encoding: chunked`", "400, closed", ""},
		raw: post("Content-Length: 6\nTransfer-Encoding: chunked", "0\n\n"+smuggled)},
	{abuse: abuse{"chunks and length", "the same, other order", "400, closed", ""},
		raw: post("Transfer-Encoding: chunked\nContent-Length: 6", "0\n\n"+smuggled)},
	{abuse: abuse{"two lengths", "`Content-Length: 5` and `Content-Length: 6`", "400, closed", ""}, raw: post("Content-Length: 5\nContent-Length: 6", "hello"+smuggled)},
	{abuse: abuse{"list of lengths", "`Content-Length: 5, 6`", "400, closed", ""}, raw: post("Content-Length: 5, 6", "hello"+smuggled)},
	{abuse: abuse{"signed length", "`Content-Length: +5`", "400, closed", ""}, raw: post("Content-Length: +5", "hello"+smuggled)},
	{abuse: abuse{"negative length", "`Content-Length: -1`", "400, closed", ""}, raw: post("Content-Length: -1", smuggled)},
	{abuse: abuse{"hexadecimal length", "`Content-Length: 0x5`", "400, closed", ""}, raw: post("Content-Length: 0x5", "hello"+smuggled)},
	{abuse: abuse{"huge length", "`Content-Length: 99999999999999999999`", "400, closed", ""}, raw: post("Content-Length: 99999999999999999999", smuggled)},
	{abuse: abuse{"unknown coding", "`Transfer-Encoding: xchunked`", "501, closed", ""}, raw: post("Transfer-Encoding: xchunked", "0\n\n"+smuggled)},
	{abuse: abuse{"two codings", "`Transfer-Encoding: chunked, identity`", "501, closed", ""}, raw: post("Transfer-Encoding: chunked, identity", "0\n\n"+smuggled)},
	{abuse: abuse{"coding twice", "`Transfer-Encoding: chunked` twice", "501, closed", ""}, raw: post("Transfer-Encoding: chunked\nTransfer-Encoding: chunked", "0\n\n"+smuggled)},
	{abuse: abuse{"coding in quotes", "`Transfer-Encoding: \"chunked\"`", "501, closed", ""}, raw: post(`Transfer-Encoding: "chunked"`, "0\n\n"+smuggled)},
	{abuse: abuse{"vertical tab before the coding", "`Transfer-Encoding: \\vchunked`", "400, closed", ""}, raw: post("Transfer-Encoding: \vchunked", "0\n\n"+smuggled)},
	{abuse: abuse{"blank before the colon", "`Transfer-Encoding : chunked`", "400, closed", ""}, raw: post("Transfer-Encoding : chunked", "0\n\n"+smuggled)},
	{abuse: abuse{"coding in HTTP/1.0", "`POST … HTTP/1.0` with chunks", "426, closed", ""}, raw: strings.Replace(post("Transfer-Encoding: chunked", "0\n\n"+smuggled), "1.1", "1.0", 1)},
	{abuse: abuse{"huge chunk", "a chunk of `FFFFFFFFFFFFFFFFF` bytes", "400, closed", "web POST /a, which broke off"}, raw: post("Transfer-Encoding: chunked", "FFFFFFFFFFFFFFFFF\nx")},
	{abuse: abuse{"chunk that is longer than it says", "`1` and two bytes, a second request behind", "200, 403, closed", "web POST /a with \"h\""}, raw: post("Transfer-Encoding: chunked", "1\nhi\n0\n\n"+smuggled)},
	{abuse: abuse{"request after the body", "a second request, to another peer's service, behind a whole body", "200, 403, closed", "web POST /a with \"hello\""}, raw: post("Content-Length: 5", "hello"+smuggled)},
	{abuse: abuse{"request in the body", "the same within `Content-Length`", "200, closed", "web POST /a with \"GET /smuggled HTTP/1\""}, raw: post("Connection: close\nContent-Length: 90", pad(smuggled, 90))},
	{abuse: abuse{"body that is too short", "`Content-Length: 10`, five bytes, then silence", "no answer", "web POST /a, which broke off"}, raw: post("Content-Length: 10", "hello")},
	{abuse: abuse{"GET with a body", "a second request as the body of a GET", "200, closed", "web GET /a with \"GET /smuggled HTTP/1\""}, raw: "GET /a HTTP/1.1\nHost: " + webHost + "\nConnection: close\nContent-Length: 90\n\n" + pad(smuggled, 90)},

	// Heads.
	{abuse: abuse{"folded header", "`X: a`, line break, blank, `x-isthmus-own-peer: b`", "200, closed", "web GET /a"}, raw: get("/a", webHost, "X: a", " x-isthmus-own-peer: b")},
	{abuse: abuse{"bare CR in a value", "`X: a\\rHost: secret…`", "200, closed", "web GET /a"}, raw: get("/a", webHost, "X: a\rHost: "+secretHost)},
	{abuse: abuse{"bare CR in a name", "`x-isth\\rmus-peer: a`", "400, closed", ""}, raw: get("/a", webHost, "x-isth\rmus-peer: a")},
	{abuse: abuse{"empty TE", "`TE:`", "502, closed", ""}, raw: get("/a", webHost, "TE:")},
	{abuse: abuse{"NUL in a value", "`X: a\\0b`", "400, closed", ""}, raw: get("/a", webHost, "X: a\x00b")},
	{abuse: abuse{"header without a colon", "`X`", "400, closed", ""}, raw: get("/a", webHost, "X")},
	{abuse: abuse{"blank before the first header", "blank, `Host: secret…`", "400, closed", ""}, raw: "GET /a HTTP/1.1\n Host: " + secretHost + "\nHost: " + webHost + "\n\n"},
	{abuse: abuse{"no such version", "`GET /a HTTP/9.9`", "426, closed", ""}, raw: strings.Replace(get("/a", webHost), "1.1", "9.9", 1)},
	{abuse: abuse{"HTTP/0.9", "`GET /a`", "426, closed", ""}, raw: "GET /a\n\n"},
	{abuse: abuse{"blank in the path", "`GET /a HTTP/1.1 /b HTTP/1.1`", "400, closed", ""}, raw: get("/a HTTP/1.1 /b", webHost)},
	{abuse: abuse{"unknown method", "`STEAL /a`", "400, closed", ""}, raw: strings.Replace(get("/a", webHost), "GET", "STEAL", 1)},
	{abuse: abuse{"not HTTP", "TLS' first bytes", "400, closed", ""}, raw: "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n"},
	{abuse: abuse{"hop-by-hop by name", "`Connection: close, host, x-isthmus-own-peer`", "400, closed", ""}, raw: strings.Replace(get("/a", webHost), "Connection: close", "Connection: close, host, x-isthmus-own-peer", 1)},
	{abuse: abuse{"upgrade to HTTP/2", "`Upgrade: h2c` and another request behind", "200, 403, closed", "web GET /a"}, raw: upgrade("/a", webHost, "h2c") + smuggled},
	{abuse: abuse{"refused WebSocket", "`Upgrade: websocket` that the service refuses, another request behind", "400, closed", "web GET /a"}, raw: upgrade("/a", webHost, "websocket") + smuggled},
	{abuse: abuse{"10,000 headers", "10,000 of 5 bytes", "431, closed", ""}, raw: get("/a", webHost, strings.TrimSuffix(strings.Repeat("a: b\n", 10_000), "\n"))},
	{abuse: abuse{"one header of 200 KB", "200 KB", "431, closed", ""}, raw: get("/a", webHost, "x: "+strings.Repeat("a", 200<<10))},
	{abuse: abuse{"path of 200 KB", "200 KB", "431, closed", ""}, raw: get("/"+strings.Repeat("a", 200<<10), webHost)},

	{abuse: abuse{"96 headers", "96 of 5 bytes, which with those that gateways add are too many", "502, closed", ""}, raw: get("/a", webHost, strings.TrimSuffix(strings.Repeat("a: b\n", 96), "\n"))},

	// CONNECT.
	{abuse: abuse{"CONNECT with 60 KB", "an authority of 60 KB", "431, closed", ""}, raw: connectTo(strings.Repeat("a", 60<<10) + ".shop.ctr.east.isthmus.internal:80")},
	{abuse: abuse{"CONNECT to an HTTP service", "`CONNECT web…:80`", "403, closed", ""}, raw: connectTo(webHost + ":80")},
	{abuse: abuse{"CONNECT to another peer's service", "`CONNECT secret…:80`", "403, closed", ""}, raw: connectTo(secretHost + ":80")},
	{abuse: abuse{"CONNECT to the API", "`CONNECT api.east…:80`", "403, closed", ""}, raw: connectTo(apiHost + ":80")},
	{abuse: abuse{"CONNECT to peering", "`CONNECT peering.east…:80`", "404, closed", ""}, raw: connectTo("peering.east.isthmus.internal:80")},
	{abuse: abuse{"CONNECT to an address", "`CONNECT 127.0.0.1:22`", "404, closed", ""}, raw: connectTo("127.0.0.1:22")},
	{abuse: abuse{"CONNECT with a path", "`CONNECT /v1/shop/a`", "400, closed", ""}, raw: connectTo("/v1/shop/a")},
	{api: true, abuse: abuse{"CONNECT at the API", "`CONNECT localhost:80`", "403, closed", ""}, raw: connectTo("localhost:80")},

	// Paths, where the policy allows what begins with /v1/shop/.
	{api: true, abuse: abuse{"allowed path", "`/v1/shop/a`", "200, closed", "orchestrator GET /v1/shop/a"}, raw: get("/v1/shop/a", "localhost")},
	{api: true, abuse: abuse{"dots", "`/v1/shop/../secrets`", "403, closed", ""}, raw: get("/v1/shop/../secrets", "localhost")},
	{api: true, abuse: abuse{"escaped dots", "`/v1/shop/%2e%2e/secrets`", "403, closed", ""}, raw: get("/v1/shop/%2e%2e/secrets", "localhost")},
	{api: true, abuse: abuse{"half-escaped dots", "`/v1/shop/.%2E/secrets`", "403, closed", ""}, raw: get("/v1/shop/.%2E/secrets", "localhost")},
	{api: true, abuse: abuse{"dots to the top", "`/../../v1/secrets`", "403, closed", ""}, raw: get("/../../v1/secrets", "localhost")},
	{api: true, abuse: abuse{"doubled slash", "`//v1/shop/a`", "403, closed", ""}, raw: get("//v1/shop/a", "localhost")},
	{api: true, abuse: abuse{"case", "`/V1/SHOP/a`", "403, closed", ""}, raw: get("/V1/SHOP/a", "localhost")},
	{api: true, abuse: abuse{"escaped slash", "`/v1%2fshop/a`", "403, closed", ""}, raw: get("/v1%2fshop/a", "localhost")},
	{api: true, abuse: abuse{"dots and an escaped slash", "`/v1/shop/..%2fsecrets`, one segment to Envoy", "200, closed", "orchestrator GET /v1/shop/..%2fsecrets"}, raw: get("/v1/shop/..%2fsecrets", "localhost")},
	{api: true, abuse: abuse{"dots escaped twice", "`/v1/shop/%252e%252e/secrets`", "200, closed", "orchestrator GET /v1/shop/%252e%252e/secrets"}, raw: get("/v1/shop/%252e%252e/secrets", "localhost")},
	{api: true, abuse: abuse{"doubled slash and dots", "`/v1/shop//../secrets`", "200, closed", "orchestrator GET /v1/shop/secrets"}, raw: get("/v1/shop//../secrets", "localhost")},
	{api: true, abuse: abuse{"doubled slash and twice dots", "`/v1/shop//../../secrets`", "403, closed", ""}, raw: get("/v1/shop//../../secrets", "localhost")},
	{api: true, abuse: abuse{"backslashes", "`/v1/shop\\..\\secrets`", "403, closed", ""}, raw: get(`/v1/shop\..\secrets`, "localhost")},
	{api: true, abuse: abuse{"fragment", "`/v1/secrets#/v1/shop/a`", "400, closed", ""}, raw: get("/v1/secrets#/v1/shop/a", "localhost")},
	{api: true, abuse: abuse{"NUL in the path", "`/v1/shop/\\0`", "400, closed", ""}, raw: get("/v1/shop/\x00", "localhost")},
	{api: true, abuse: abuse{"refused upgrade at the API", "an upgrade of an allowed path that the orchestrator refuses, a request for another path behind",
		"400, closed", "orchestrator GET /v1/shop/exec"}, raw: upgrade("/v1/shop/exec", "localhost", "tcp") + "GET /v1/secrets HTTP/1.1\nHost: localhost\nConnection: close\n\n"},
}

func get(path, host string, headers ...string) string {
	return "GET " + path + " HTTP/1.1\nHost: " + host + "\n" + strings.Join(append(headers, "Connection: close"), "\n") + "\n\n"
}

func post(headers, rest string) string {
	return "POST /a HTTP/1.1\nHost: " + webHost + "\n" + headers + "\n\n" + rest
}

func upgrade(path, host, protocol string) string {
	return "GET " + path + " HTTP/1.1\nHost: " + host + "\nConnection: Upgrade\nUpgrade: " + protocol + "\n\n"
}

func connectTo(authority string) string {
	return "CONNECT " + authority + " HTTP/1.1\nHost: " + authority + "\n\n"
}

// pad makes a text, as it is sent, n bytes long.
func pad(text string, n int) string {
	return text + strings.Repeat("x", max(0, n-len(text)-strings.Count(text, "\n")))
}

func requestRows() []abuse {
	var rows []abuse
	for _, a := range rawAbuses {
		rows = append(rows, a.abuse)
	}
	return rows
}

// TestAbuseRequests sends HTTP/1 as nobody should to the listeners of callers.
func TestAbuseRequests(t *testing.T) {
	t.Parallel()
	v := newVictim(t)
	for _, a := range rawAbuses {
		t.Run(a.name, func(t *testing.T) {
			network, address := "tcp", v.west.model.Gateway.Edge
			if a.api {
				network, address = "unix", v.west.model.Peers[0].API
			}
			patience := 2 * time.Second
			if a.want == "no answer" {
				patience = 200 * time.Millisecond
			}
			v.tried(t, a.abuse, say(t, network, address, strings.ReplaceAll(a.raw, "\n", "\r\n"), patience))
		})
	}
}
