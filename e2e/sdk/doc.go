// Package sdk uses docker's libraries as programs use them: the engine's Go clients of today and of before, one that others
// made, and Python's. TestSDK of e2e runs it against a Docker engine and, through two gateways, against Kubernetes.
//
// It is a module of its own, so that what these libraries need is nothing that isthmus needs.
package sdk
