// Package listener is what lastgasp-listener is made of besides receiving (listener/receive), judging (listener/detect) and
// acting (listener/cleanup): its config, its metrics and admin server, the coverage of the fleet, the directory that records
// go to without a cluster, the shipping of all kernel records, and the replay of captures.
package listener
