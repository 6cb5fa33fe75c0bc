package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/stintrun/stint/internal/demo"
)

func newDemoCommand(g *globals) *cobra.Command {
	var c demo.Config
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run real work, kill the server in the middle, compare every result",
		Long: `Start a server as a child process and submit a job for every file of the Go installation's source tree, about eleven
thousand. Workers compute each file's SHA-256 and its size under gzip. With half of the jobs done, the server is killed
with SIGKILL, while workers hold runs and submits are under way, and is started again.

At the end every result is compared with a direct computation, and the server's history with what the workers were told.
It ends with 1 if anything is missing, wrong or accepted twice, or if no run outlived the crash.`,
		Example: `  stint demo
  stint demo --files /usr/share/doc --workers 2 --data ./demo-data --keep`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if c.Workers < 1 || c.Workers > 64 {
				return usageError("--workers %d: want 1 to 64", c.Workers)
			}
			if isTerminal(g.stderr) {
				c.Progress = g.stderr
			}
			return g.demo(cmd.Context(), c)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&c.Data, "data", "", "fresh directory for the server's data (default: a temporary one)")
	flags.StringVar(&c.Files, "files", "", "directory whose files are the work (default: the source tree of go env GOROOT)")
	flags.IntVar(&c.Workers, "workers", 4, "workers; each executes four runs at once")
	flags.BoolVar(&c.Keep, "keep", false, "leave the data directory behind")
	return cmd
}

// demo gives the demo and shows its report, also when the comparison failed.
func (g *globals) demo(ctx context.Context, c demo.Config) error {
	if c.Files == "" {
		root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
		if err != nil {
			return usageError("go env GOROOT: %w; name a directory with --files", err)
		}
		c.Files = filepath.Join(strings.TrimSpace(string(root)), "src")
	}
	if g.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, g.timeout)
		defer cancel()
	}
	report, err := demo.Run(ctx, c)
	if report.Files > 0 {
		if failed := report.Write(g.stdout); err == nil {
			err = failed
		}
	}
	if err != nil && ctx.Err() == nil {
		// The server was the demo's own: that it is away is no matter of where to look for it.
		return &exitError{exitFailed, fmt.Sprintf("demo: %v", err)}
	}
	return err
}
