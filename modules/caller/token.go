package caller

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/isthmus-mesh/isthmus/modules"
)

// minToken is the length of the shortest token that is not guessed.
const minToken = 16

// hashed begins a token of which the file holds the SHA-256 alone, in hexadecimal digits.
const hashed = "sha256:"

// tokens are the owners of tokens by the tokens' hashes: how long it takes to find one tells nothing of the others.
type tokens map[[sha256.Size]byte]Identity

// owner is a token's owner.
func (t tokens) owner(token string) Identity { return t[sha256.Sum256([]byte(token))] }

// parseTokens reads lines of "token,name" or "token,name,group,group ...". Empty lines and those that begin with # are left out. Errors show no token.
func parseTokens(data []byte) (tokens, error) {
	known, first := tokens{}, map[[sha256.Size]byte]int{}
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		hash, who, err := parseToken(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		if before, ok := first[hash]; ok {
			return nil, fmt.Errorf("line %d: the token is there already, on line %d", number, before)
		}
		known[hash], first[hash] = who, number
	}
	return known, nil
}

func parseToken(line string) (hash [sha256.Size]byte, who Identity, err error) {
	fields := strings.Split(line, ",")
	for i := range fields {
		fields[i] = strings.TrimSpace(fields[i])
	}
	if len(fields) < 2 {
		return hash, who, errors.New("a line reads token,name or token,name,group,group ...")
	}
	token := fields[0]
	if err := checkName(fields[1]); err != nil {
		return hash, who, err
	}
	who.Name = fields[1]
	if who.Groups, err = parseGroups(fields[2:]); err != nil {
		return hash, who, err
	}
	if digits, ok := strings.CutPrefix(token, hashed); ok {
		if n, err := hex.Decode(hash[:], []byte(digits)); err != nil || n != len(hash) || len(digits) != 2*len(hash) {
			return hash, who, errors.New("sha256: is followed by 64 hexadecimal digits")
		}
		return hash, who, nil
	}
	if len(token) < minToken {
		return hash, who, fmt.Errorf("a token has at least %d characters", minToken)
	}
	for i := range len(token) {
		if token[i] <= ' ' || token[i] > '~' {
			return hash, who, errors.New("a token has characters that no header carries")
		}
	}
	return sha256.Sum256([]byte(token)), who, nil
}

func parseGroups(groups []string) (modules.Groups, error) {
	for _, group := range groups {
		if err := modules.CheckCaller(group); err != nil {
			return "", fmt.Errorf("a group: %w", err)
		}
		if groupReserved(group) {
			return "", fmt.Errorf("the group %s is for callers that are known in another way", group)
		}
	}
	joined, left := modules.JoinGroups(groups)
	if left > 0 {
		return "", errors.New("there are too many groups")
	}
	return joined, nil
}
