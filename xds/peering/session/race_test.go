//go:build race

package session

// The race detector finds nothing in a pure function, and makes it ten times slower.
func init() { raceShallower = 1 }
