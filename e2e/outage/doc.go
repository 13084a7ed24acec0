// Package outage kills what an access stands on while a network mode is switched for it: the gateway, the orchestrator
// or the link between the gateways, before each change that a switch and its way back ask of the orchestrator. Afterwards
// the target is what it was, with what was written into it, and nothing else is left. It measures as well for how long targets
// are away, and has switches asked for that cannot succeed.
package outage
