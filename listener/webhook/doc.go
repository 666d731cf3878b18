// Package webhook posts every death to one URL: a CloudEvent when a NodeDeath is created, one for each phase in which its cleanup
// stops, and one when its cause or reason becomes known better after that. It never delays a cleanup: it reads the NodeDeaths that
// are on record, and what it cannot deliver waits in a bounded queue, is sent again for a while, and is then dropped and counted.
//
// Every event is sent by the replica that owns the death, so once as a rule and perhaps twice after a restart or a fail-over. The event's
// id is the same then. Requests are signed by the rules of Standard Webhooks (github.com/standard-webhooks/standard-webhooks).
package webhook
