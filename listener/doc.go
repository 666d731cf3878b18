// Package listener is lastgasp-listener apart from receiving (listener/receive), judging (listener/detect) and acting
// (listener/cleanup): its config, metrics and admin server, the coverage of the fleet, the directory for incidents where
// there is no cluster, the shipping of all kernel records, and the replay of captures.
package listener
