// Package lastboot finds out how the previous boot of this machine ended: in good order, in words that the old kernel left
// behind, by a watchdog or a hardware fault, or without a word.
//
// A ledger in /var/lib/lastgasp names the boot that runs. Only a system shutdown marks it as ending: if the next boot finds it
// unmarked, the boot died. The old kernel's words are in pstore, also where systemd-pstore has moved them, and in kdump's dmesg.
// What was there when the boot began is not about its end.
//
// Everything that is read is bounded, and nothing is believed of another machine: images and volumes are copied.
package lastboot
