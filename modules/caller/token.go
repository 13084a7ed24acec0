package caller

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// minToken is the length of the shortest token that is not guessed.
const minToken = 16

// hashed begins a token of which the file holds the SHA-256 alone, in hexadecimal digits.
const hashed = "sha256:"

// tokens are the owners of tokens by the tokens' hashes: how long it takes to find one tells nothing of the others.
type tokens map[[sha256.Size]byte]string

// owner is the name of a token's owner; "" is nobody.
func (t tokens) owner(token string) string { return t[sha256.Sum256([]byte(token))] }

// parseTokens reads lines of "token,name". Empty lines and those that begin with # are left out. Errors show no token.
func parseTokens(data []byte) (tokens, error) {
	known, first := tokens{}, map[[sha256.Size]byte]int{}
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		hash, name, err := parseToken(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		if before, ok := first[hash]; ok {
			return nil, fmt.Errorf("line %d: the token is there already, on line %d", number, before)
		}
		known[hash], first[hash] = name, number
	}
	return known, nil
}

func parseToken(line string) (hash [sha256.Size]byte, name string, err error) {
	token, name, ok := strings.Cut(line, ",")
	token, name = strings.TrimSpace(token), strings.TrimSpace(name)
	switch {
	case !ok:
		return hash, "", errors.New("a line reads token,name")
	case strings.Contains(name, ","):
		return hash, "", errors.New("a line has a token and a name, and nothing more")
	}
	if err := checkName(name); err != nil {
		return hash, "", err
	}
	if digits, ok := strings.CutPrefix(token, hashed); ok {
		if n, err := hex.Decode(hash[:], []byte(digits)); err != nil || n != len(hash) || len(digits) != 2*len(hash) {
			return hash, "", errors.New("sha256: is followed by 64 hexadecimal digits")
		}
		return hash, name, nil
	}
	if len(token) < minToken {
		return hash, "", fmt.Errorf("a token has at least %d characters", minToken)
	}
	for i := range len(token) {
		if token[i] <= ' ' || token[i] > '~' {
			return hash, "", errors.New("a token has characters that no header carries")
		}
	}
	return sha256.Sum256([]byte(token)), name, nil
}
