// Package handshake tests the ten steps under fire: two whole gateways, isthmus and Envoy as processes, with relays
// between the two Envoys and between each isthmus and its Envoy, which do to the handshake what networks and peers do.
package handshake
