// Package envoytest holds tests of the control plane against real Envoys: two gateways with their own CAs, and small
// servers in the place of services, containers, orchestrators and isthmus' own servers.
package envoytest
