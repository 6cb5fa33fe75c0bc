package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go obey(signals, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// obey asks to stop at the first signal and ends the process by the second, so that whoever waits for it sees which it
// was. It takes both: if the first gave the others back to the system, one that came in between would be lost.
func obey(signals <-chan os.Signal, stop func()) {
	<-signals
	stop()
	second := <-signals
	signal.Reset(second)
	if number, ok := second.(syscall.Signal); !ok || syscall.Kill(os.Getpid(), number) != nil {
		os.Exit(exitSignalled)
	}
}

// run executes one command line and returns its exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	g := &globals{stdin: stdin, stdout: stdout, stderr: stderr}
	root := newRootCommand(g)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err != nil && !g.started {
		// Cobra refused the command line before any command of ours ran.
		err = usageError("%w", err)
	}
	return g.report(err)
}
