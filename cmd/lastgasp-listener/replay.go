package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lastgasp/lastgasp/listener"
)

func replayCommand(configFile *string) *cobra.Command {
	formats := []string{"auto", "datagrams", "log"}
	var format string
	c := &cobra.Command{
		Use:   "replay FILE…",
		Short: "judge a capture or a kernel log, touch nothing",
		Long: `replay judges captured datagrams or kernel logs as the daemon would, by the rules in the config, too, and prints one JSON
object per incident. Each FILE is judged by itself; - is standard input. A FILE that cannot be read does not stop the others.

  --format=auto       datagrams or log, by the first line
  --format=datagrams  one JSON object per line: {"t": seconds, "src": "ip:port", "payload_b64": "…"}
  --format=log        a kernel log in any form: dmesg, journalctl (with any -o), syslog and container logs, /dev/kmsg, pstore,
                      serial consoles, and what collectors and stores export as JSON, CSV or YAML

A FILE may be compressed with gzip or bzip2, in base64 as EC2's API gives consoles, or in UTF-16.

Hosts that a log names are judged on their own and printed as "src". Its newest line may be first.

If no line looks like a kernel's and nothing was found, replay says so on standard error.`,
		Example: `  lastgasp-listener replay capture.jsonl
  journalctl -k -b -1 -o json | lastgasp-listener replay -
  lastgasp-listener replay --config new-rules.yaml /var/log/kern.log   # try rules on what there was`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("replay wants a FILE, or - for standard input")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(formats, format) {
				return usageError{fmt.Errorf("unknown --format %q; write auto, datagrams or log", format)}
			}
			cfg, err := listener.LoadConfig(*configFile)
			if err != nil {
				return usageError{err}
			}
			var errs []error
			for _, name := range args {
				var reading listener.Reading
				err := replayFile(name, cmd.InOrStdin(), func(in io.Reader) error {
					var err error
					reading, err = listener.Replay(in, cmd.OutOrStdout(), &cfg.Judge, listener.Format(format))
					return err
				})
				errs = append(errs, err)
				if err == nil && reading.Kernel == 0 && reading.Incidents == 0 {
					fmt.Fprintln(cmd.ErrOrStderr(), notUnderstood(name, reading))
				}
			}
			return errors.Join(errs...)
		},
	}
	c.Flags().StringVar(&format, "format", "auto", "auto, datagrams or log")
	complete(c, "format", formats...)
	return c
}

// notUnderstood is the message for an input in which nothing looks like a kernel's.
func notUnderstood(name string, r listener.Reading) string {
	if r.Line == 0 {
		return name + ": no kernel line recognised"
	}
	const enough = 200
	text := strings.ToValidUTF8(r.Text[:min(len(r.Text), enough)], "")
	return fmt.Sprintf("%s:%d: no kernel line recognised; the first other line is %q", name, r.Line, text)
}

// replayFile judges one file. Errors in it are prefixed FILE:LINE.
func replayFile(name string, stdin io.Reader, judge func(io.Reader) error) error {
	in := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	err := judge(in)
	if wrong := new(listener.LineError); errors.As(err, &wrong) {
		return fmt.Errorf("%s:%d: %w", name, wrong.Line, wrong.Err)
	}
	if err != nil {
		return fmt.Errorf("replay %s: %w", name, err)
	}
	return nil
}
