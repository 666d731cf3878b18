// Package netconsole is the wire contract: what a kernel's netconsole sends, and what lastgasp says to itself over it.
// It owns neither sockets nor clocks and imports only the standard library, so that both daemons can share it.
//
// # Extended format
//
// Targets with extended=1 (4.2 and later). In ABNF, with SP, DIGIT and LF as usual:
//
//	datagram  = [replay] header ["," "ncfrag=" offset "/" total] ";" body
//	replay    = "** replaying previous printk message **" LF  ; consoles since 7.0
//	header    = [release ","] prefix "," seq "," usec "," flag *("," key "=" value)
//	release   = uname -r, not a number                        ; target with release=1, 6.6 and later
//	prefix    = 1*4DIGIT        ; facility<<3 | level: below 8 the kernel, from 8 on somebody who wrote to /dev/kmsg
//	seq       = 1*DIGIT         ; of all records since boot, also of those not sent
//	usec      = 1*DIGIT         ; since boot; may stand still or step back between CPUs
//	flag      = "-" / "c" / "+" ; "c": not a whole line (LOG_CONT); "+" only before 4.9
//	key       = "caller" / ...  ; caller=T<pid> or caller=C<cpu>, CONFIG_PRINTK_CALLER
//	body      = text LF dictionary userdata sysdata           ; or, with ncfrag, total bytes of that from offset on
//	text      = *( %x20-5B / %x5D-7E / escape )
//	escape    = "\x" 2lowerhex                                ; control bytes, 7F and above, backslash
//	dictionary= [" SUBSYSTEM=" text LF] [" DEVICE=" text LF]  ; dev_printk
//	userdata  = *(" " key "=" value LF)                       ; 6.9 and later; raw: a value may contain anything, LF too
//	sysdata   = [" cpu=" ..] [" taskname=" ..] [" release=" ..] [" msgid=" ..]  ; 6.15 and later; raw as well
//
// A datagram has at most 1000 bytes (MAX_PRINT_CHUNK). A longer record is cut anywhere, also within an escape, and each
// piece carries the whole header. Sources: info_print_ext_header, msg_print_ext_body and msg_add_ext_text in
// kernel/printk/printk.c; send_msg_no_fragmentation and send_fragmented_body in drivers/net/netconsole.c;
// console_prepend_replay in kernel/printk/nbcon.c; Documentation/networking/netconsole.rst and
// Documentation/ABI/testing/dev-kmsg.
//
// Two slips of the kernel show on the wire. Up to 6.12 a datagram of exactly 1000 bytes loses its last one, a newline.
// And text that is longer than the printk buffer when escaped (2048 bytes since 6.3) loses its own newline, so that the
// first userdata line looks like more of the text: the secret must not be the first key of a target.
//
// # Basic format
//
//	datagram  = [replay] ["** " 1*DIGIT " printk messages dropped **" LF] record
//	record    = 1*( lineprefix *OCTET LF )
//	lineprefix= ["<" 1*DIGIT ">"] ["[" seconds "." 6DIGIT "]"] ["[" ("T" / "C") 1*DIGIT "]"] [SP]
//
// Every line of a record repeats its prefix (info_print_prefix and record_print_text in kernel/printk/printk.c), and
// nothing is escaped. A record longer than 1000 bytes is cut blindly, and the pieces behind the first carry no mark
// (write_msg): a piece is what follows a full datagram that lacks its newline, and the loss of a middle piece goes
// unnoticed. Whoever can write to /dev/kmsg can write anything here, which is why a basic record has Prefix -1 and no
// fields. No target should be basic: this is for hearing those that are.
//
// # Telling them apart
//
// A datagram that begins like an extended header, as far as the flag and the comma or semicolon behind it, is one, and
// malformed if the rest is not. Everything else is basic. Mistaken for extended can only be what a basic target sends
// without printk.time, or a piece whose head was lost.
//
// # Canary and acknowledgement
//
//	canary    = "lastgasp: canary v1 nonce=" 32lowerhex 2*(SP key "=" word)
//	ack       = "lastgasp: ack v1 nonce=" 32lowerhex " seq=" 1*DIGIT " node=" node
//	signedack = "lastgasp: ack v2 nonce=" 32lowerhex " seq=" 1*DIGIT " node=" node " sig=" 86base64url
//	hello     = "lastgasp: hello v1"
//	bye       = "lastgasp: bye v1 cause=" word 3*(SP key "=" word)
//	node      = "known" / "unknown"
//	word      = 1*64( %x21-7E )                               ; cluster: up to 100
//
// The canary is the text of a record; instance= and boot= are required, cluster= names whose listener is to answer,
// interval= is the time to the next one in seconds, pad= is there for its length, and the other keys are Facts. The ack is
// a datagram of its own, sent back to where the record came from, and never longer than the canary. node= says whether the
// listener's cluster has a Node that is the sender. The signature of a signed ack (Ed25519) is over nonce, seq, node,
// and what the ack does not repeat: cluster and boot of the canary, and its source address and port (Ack.signed).
//
// # What the configurator sends itself
//
//	own       = "12," seq ",0,-,caller=lastgasp;" text LF userdata ; as in the extended format: instance=, boot=, gasp=
//	obituary  = "lastgasp: died v1 nonce=" 32lowerhex " part=" part "/" parts " size=" bytes 3*(SP key "=" word) LF lines
//
// It comes from the socket that waits for acknowledgements, never through a kernel, whose records have another caller. An obituary
// is the text of such a datagram, whose seq is part and whose userdata names the boot that sends it. boot= is the boot that
// ended, cause= what ended it, by= how the node knows; kernel=, cluster= and time= (Unix seconds) may be missing. lines is a
// piece of the old kernel's last ones; the pieces in order are size bytes, 64 KiB at most. A datagram has at most 1400 bytes. An ack
// with the nonce and the seq of the part answers it, node=known once the whole is recorded. The nonce is a digest of the whole and
// the userdata, so it is the same when a node begins again. A kernel without netconsole has its canaries sent in this form, too,
// with netconsole=0 in them.
//
// The bye, a farewell, is a datagram of lastgasp-configurator itself, which no kernel sends: boot=, instance= and nonce= are
// required, gasp= proves that the node sent it, and by=, command=, sudo=, unit=, event=, due= say who asked for the end of the
// boot, and when it is (Bye). It is acknowledged like a canary, with seq=0.
package netconsole
