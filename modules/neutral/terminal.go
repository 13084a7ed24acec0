package neutral

// Terminal tells a session, before Accept, that the container has a terminal: its output is one raw stream. A session
// whose framing differs by it has a method Terminal(); a session that wraps another passes it on.
func Terminal(s Session) {
	if t, ok := s.(interface{ Terminal() }); ok {
		t.Terminal()
	}
}
