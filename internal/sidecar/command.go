package sidecar

import (
	"cmp"
	"context"
	"io"
	"os"
	"time"
)

const (
	// DefaultGrace is how long an interrupted command has to end before it is killed.
	DefaultGrace = 10 * time.Second
	// MaxResult is the largest result in bytes; a command that writes more has failed.
	MaxResult = 1 << 20
	// tailSize is how many bytes of standard error a failure keeps.
	tailSize = 4 << 10
	// drainDelay is how long the standard error of an ended command is still read while others hold it open.
	drainDelay = time.Second
)

// Command is a program to run once for each job. It may run many times at once.
type Command struct {
	// Path is the program's file, as exec.LookPath found it.
	Path string
	// Args are its arguments, without the program's name.
	Args []string
	// Server is the server's address, for programs that submit or ask; they find it in STINT_SERVER.
	Server string
	// Grace is the time between SIGTERM and SIGKILL. 0: DefaultGrace.
	Grace time.Duration
	// Codes says what exit codes mean.
	Codes Codes
	// Stdout gets what the program writes to standard output. Nil: it is discarded.
	Stdout *os.File
	// Stderr gets what the program writes to standard error, in the order written by one run; runs at the same time
	// interleave, so it must be safe for use by several goroutines, as an *os.File is. Nil: it is discarded, but for
	// the tail that a failure keeps.
	Stderr io.Writer
}

// Job is what a run needs to know of its job. The lease token is not part of it: a program never sees it.
type Job struct {
	ID          string
	Queue       string
	Run         uint32 // The run's number in its job, from 1.
	Fence       uint64
	Subject     string
	Priority    int32
	Labels      map[string]string
	Payload     []byte
	ContentType string
	Traceparent string
	Tracestate  string
}

// Run runs the command for a job and says how that ended. What is left of the run's group is killed before it returns.
//
// The first interrupt asks the command to end. A later one replaces what its interrupt file says and repeats the signal;
// of the graces the one that ends first holds. The end of ctx says that the run no longer owns its job, or may not: its
// group is killed at once.
func (c *Command) Run(ctx context.Context, interrupts <-chan Interrupt, job Job) Outcome {
	files, err := newFiles(job.Payload)
	if err != nil {
		return Outcome{Kind: NotStarted, Reason: err.Error(), Err: err}
	}
	defer files.remove()
	p, err := c.start(job, files)
	if err != nil {
		return Outcome{Kind: NotStarted, Reason: err.Error(), Err: err}
	}
	defer p.close()
	select {
	case <-p.exited:
	case why := <-interrupts:
		if !p.hasExited() {
			return c.interrupt(ctx, p, files, why, interrupts)
		}
	case <-ctx.Done():
		return p.lose()
	}
	p.drain()
	return c.Codes.outcome(p, files)
}

// interrupt ends a run that is asked to stop; more are the interrupts that may follow.
func (c *Command) interrupt(ctx context.Context, p *process, files *files, why Interrupt, more <-chan Interrupt) Outcome {
	resultFirst := files.hasResult()
	grace, cancel := context.WithCancel(ctx)
	defer cancel()
	ask := func(why Interrupt) (stop func() bool) {
		if err := files.writeInterrupt(why); err != nil {
			p.note("stint: cannot write the interrupt file: " + err.Error())
		}
		p.terminate()
		return time.AfterFunc(cmp.Or(why.Grace, c.Grace, DefaultGrace), cancel).Stop
	}
	defer ask(why)()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.awaitGroup(grace.Done())
	}()
	for waiting := true; waiting; {
		select {
		case <-ended:
			waiting = false
		case why = <-more:
			defer ask(why)() // few: for each level, and when a grace is cut short
		}
	}
	if ctx.Err() != nil {
		return p.lose()
	}
	p.kill()
	<-p.exited
	p.drain()
	if resultFirst && p.exit().ok() {
		return c.Codes.outcome(p, files)
	}
	return Outcome{Kind: Interrupted, Reason: why.Reason, Exit: p.exit()}
}
