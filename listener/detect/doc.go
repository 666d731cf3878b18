// Package detect turns kernel log records into incidents: claims that a kernel is dying, wounded or sick. A LogReader
// turns the lines of any log into such records.
//
// It is a state machine that is fed records and the time and owns neither sockets nor clocks. A Source holds what is
// known of one sender: the last lines it sent, for the trace of its death, and the incident that is being collected.
//
// What a message means is said by the rules in rules_dying.go, rules_oops.go and rules_sick.go; which function is to blame
// by helpers.go. Text that merely talks about a panic is everywhere (audit records, firewall prefixes, process names, other
// machines' consoles), and a wrong answer deletes pods that are alive. Three things keep it out:
//
//   - A rule matches from the first byte of a message, where the kernel's own format string begins. Text that others
//     control is further right, behind the prefix of whoever printed it.
//   - In the extended format only facility 0 is judged. Nothing written to /dev/kmsg can have it.
//   - Lines after a newline inside a message are never judged: user-supplied strings are printed with their newlines.
package detect
