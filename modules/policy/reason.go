package policy

import "fmt"

// denial says why nothing allows a request: what the rule that came nearest lacks.
func denial(r Request, furthest failure, nearest *rule, problem error) string {
	switch furthest {
	case peer:
		return "no policy is for peer " + word(r.Peer)
	case caller:
		return fmt.Sprintf("no policy is for caller %s of peer %s", word(r.Caller), word(r.Peer))
	case verb:
		return fmt.Sprintf("no rule for this caller allows %s", word(string(r.Verb)))
	case object:
		return fmt.Sprintf("no rule that allows %s is for %s", word(string(r.Verb)), subject(r.Object))
	case when:
		if problem != nil {
			return fmt.Sprintf("the condition of %s does not hold: %v", nearest.name, problem)
		}
		return fmt.Sprintf("the condition of %s is false", nearest.name)
	}
	return "there is no policy"
}
