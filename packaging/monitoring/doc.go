// Package monitoring checks alerts and dashboard with Prometheus' own parser and rule engine. It is a module of its own
// because of what that needs.
package monitoring
