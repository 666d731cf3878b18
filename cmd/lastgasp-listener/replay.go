package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/lastgasp/lastgasp/listener"
	"github.com/lastgasp/lastgasp/listener/detect"
)

func replayCommand(configFile *string) *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "replay FILE…",
		Short: "judge a capture or a kernel log, touch nothing",
		Long: `replay gives captured datagrams or plain kernel log text the same judgement as the daemon, the config's rules
included, and prints one JSON object per incident. Each FILE is judged by itself; - is standard input.

  --format=datagrams  one JSON object per line: {"t": seconds, "src": "ip:port", "payload_b64": "…"}
  --format=log        text as dmesg or a serial console prints it`,
		Example: `  lastgasp-listener replay capture.jsonl
  dmesg | lastgasp-listener replay --format=log -
  lastgasp-listener replay --format=log --config new-rules.yaml /var/log/kern.log   # try rules on what there was`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{errors.New("replay wants a FILE, or - for standard input")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			judge := map[string]func(io.Reader, io.Writer, *detect.Config) error{
				"datagrams": listener.ReplayDatagrams, "log": listener.ReplayLog,
			}[format]
			if judge == nil {
				return usageError{fmt.Errorf("unknown --format %q; write datagrams or log", format)}
			}
			cfg, err := listener.LoadConfig(*configFile)
			if err != nil {
				return usageError{err}
			}
			for _, name := range args {
				err := replayFile(name, cmd.InOrStdin(), func(in io.Reader) error {
					return judge(in, cmd.OutOrStdout(), &cfg.Judge)
				})
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().StringVar(&format, "format", "datagrams", "datagrams or log")
	return c
}

// replayFile judges one file. What is wrong in it is told as FILE:LINE.
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
