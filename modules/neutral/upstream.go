package neutral

// Upstream is where an orchestrator's API is.
type Upstream struct {
	Socket     string // a Unix socket, or
	Address    string // host:port
	CA         []byte // PEM; nil with an Address is plaintext
	Cert, Key  []byte // PEM client certificate; nil for none
	ServerName string
	Token      string // bearer token set on each request; "" for none. Never logged.
	Host       string // the authority that the API expects
}
