package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/sidecar"
)

const (
	// emptyPause is how long --until-empty waits before it looks at the queues again.
	emptyPause = 200 * time.Millisecond
	// ackGrace is how long a stopping worker waits for the server to take the last outcomes.
	ackGrace = 5 * time.Second
)

// workFlags is what `stint work` can be told.
type workFlags struct {
	concurrency, maxRuns int
	untilEmpty, tee      bool
	name, build          string
	grace, snooze        time.Duration
	labels               []string
	codes                sidecar.Codes
}

func newWorkCommand(g *globals) *cobra.Command {
	f := &workFlags{codes: sidecar.Codes{Release: []int{75}}}
	c := &cobra.Command{
		Use:   "work QUEUE... -- COMMAND [ARG...]",
		Short: "Run a program once for each job of some queues",
		Long: `Run a program once for each job of some queues, until SIGTERM or SIGINT.

The program gets the payload on standard input and the job's particulars in STINT_* variables. What it writes to file
descriptor 3, or to the file named by STINT_RESULT_FILE, is the job's result. No shell is involved.

  exit code 0         the job has succeeded
  75                  the job is given back, to be tried again after --snooze; --release-code changes the list
  anything else       a failed attempt, tried again by the job's retry policy; kept with the last 4 KiB of standard error

When a run is interrupted, or this worker is stopped, the program's process group gets SIGTERM, and SIGKILL after the
interrupt's grace, or --grace if it names none; level and reason stand in $STINT_INTERRUPT_FILE. An interrupt of a higher
level rewrites that file and repeats the signal. Any end after the signal is an interruption, unless a result was written
before it. When the run is no longer this worker's, its group is killed at once.`,
		Example: `  stint work thumbnails --concurrency 4 -- ./thumbnail.sh
  stint work numbers --until-empty -- sh -c 'cat >/dev/null'`,
		Args: func(c *cobra.Command, args []string) error {
			dash := c.ArgsLenAtDash()
			if dash < 1 || dash == len(args) {
				return usageError("want: stint %s", c.Use)
			}
			return nil
		},
		ValidArgsFunction: completeQueues(g, -1),
		RunE: func(c *cobra.Command, args []string) error {
			dash := c.ArgsLenAtDash()
			return f.work(c.Context(), g, args[:dash], args[dash], args[dash+1:])
		},
	}
	flags := c.Flags()
	flags.IntVar(&f.concurrency, "concurrency", 1, "runs at the same time")
	flags.IntVar(&f.maxRuns, "max-runs", 0, "stop after this many runs; 0: go on")
	flags.BoolVar(&f.untilEmpty, "until-empty", false, "stop when nothing in the queues is ready, running or to be retried")
	flags.BoolVar(&f.tee, "tee", false, "show what the programs write to standard output and standard error")
	flags.StringVar(&f.name, "name", "", "name of the worker, for people (default: the program's)")
	flags.StringVar(&f.build, "build", "", "which build of the work this is: a new one releases what the one before has parked")
	flags.StringArrayVar(&f.labels, "label", nil, "a label KEY=VALUE of the worker; may be repeated")
	flags.DurationVar(&f.grace, "grace", sidecar.DefaultGrace, "time between SIGTERM and SIGKILL when this worker stops, and where an interrupt names none")
	flags.DurationVar(&f.snooze, "snooze", 30*time.Second, "when a job that was given back is tried again")
	flags.IntSliceVar(&f.codes.Fatal, "fail-code", nil, "exit codes that fail the job for good")
	flags.IntSliceVar(&f.codes.Park, "park-code", nil, "exit codes that park the job for a person")
	flags.IntSliceVar(&f.codes.Release, "release-code", f.codes.Release, "exit codes that give the job back")
	return c
}

// check says what is wrong with the flags and the queues.
func (f *workFlags) check(queues []string) error {
	if len(slices.Compact(slices.Sorted(slices.Values(queues)))) < len(queues) {
		return usageError("a queue is named twice")
	}
	if len(queues) > 64 {
		return usageError("%d queues: a worker serves at most 64", len(queues))
	}
	if f.concurrency < 1 || f.concurrency > 4096 {
		return usageError("--concurrency %d: want 1 to 4096", f.concurrency)
	}
	if f.maxRuns < 0 {
		return usageError("--max-runs %d: want 0 or more", f.maxRuns)
	}
	if f.grace <= 0 || f.snooze <= 0 {
		return usageError("--grace and --snooze must be positive")
	}
	if err := f.codes.Validate(); err != nil {
		return usageError("--fail-code, --park-code, --release-code: %w", err)
	}
	return nil
}

// work runs the program for jobs until it is told to stop. The program is looked up before anything is claimed: that
// it is missing is the fault of this host.
func (f *workFlags) work(ctx context.Context, g *globals, queues []string, program string, args []string) error {
	if err := f.check(queues); err != nil {
		return err
	}
	labels, err := parseLabels(f.labels)
	if err != nil {
		return usageError("%w", err)
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return &exitError{exitNoCommand, fmt.Sprintf("%v; nothing was claimed", err)}
	}
	s := &sidecarWorker{
		snooze: f.snooze, stopping: ctx.Done(), running: map[*client.Run]*commandRun{},
		command: sidecar.Command{Path: path, Args: args, Server: g.server, Grace: f.grace, Codes: f.codes},
	}
	if f.tee {
		s.command.Stdout, s.command.Stderr = os.Stdout, os.Stderr
	}
	if f.name == "" {
		f.name = program
	}
	return g.stay(context.WithoutCancel(ctx), func(limit context.Context, c *client.Client) error {
		w := c.NewWorker(client.WorkerConfig{
			Name: f.name, BuildID: f.build, Labels: labels, MaxRuns: f.maxRuns,
			Logger: slog.New(slog.NewTextHandler(g.stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
			// Commands are asked to end by their handlers, as soon as this process is.
			ShutdownGrace: f.grace, CancelGrace: f.grace + ackGrace,
		})
		w.HandlePool(queues, f.concurrency, s.handle)
		w.Listen(s.observe, client.RunStopped, client.RunInterrupted)
		defer s.abandon()
		return f.run(ctx, limit, g, c, w, queues)
	})
}

// run runs the worker until it is stopped: by a signal, which ends ctx, by --timeout, which ends limit, or because it
// has done what it was for.
func (f *workFlags) run(ctx, limit context.Context, g *globals, c *client.Client, w *client.Worker, queues []string) error {
	watch, unwatch := context.WithCancel(limit)
	defer unwatch()
	stop := context.AfterFunc(ctx, func() {
		w.Stop()
		unwatch()
	})
	defer stop()
	var watching sync.WaitGroup
	if f.untilEmpty {
		watching.Go(func() {
			if awaitEmpty(watch, c, w, queues) {
				w.Stop()
			}
		})
	}
	err := w.Run(limit)
	unwatch()
	watching.Wait()
	stats := w.Stats()
	fmt.Fprintf(g.stderr, "%d runs, %d outcomes recorded\n", stats.Assigned, stats.Recorded)
	if err != nil {
		return err
	}
	if limit.Err() != nil {
		return limit.Err()
	}
	return nil
}

// awaitEmpty returns true once nothing in the queues is ready, running or waiting for a retry, and false when ctx ends.
// What is scheduled for later, or parked, is left.
func awaitEmpty(ctx context.Context, c *client.Client, w *client.Worker, queues []string) bool {
	for empty := 0; empty < 2; { // a second look, for a job of one queue may submit to another
		select {
		case <-w.Idle():
		case <-ctx.Done():
			return false
		}
		if unfinished(ctx, c, queues) {
			empty = 0
			pause := time.NewTimer(emptyPause)
			select {
			case <-pause.C:
			case <-ctx.Done():
				pause.Stop()
				return false
			}
			continue
		}
		empty++
	}
	return true
}

// unfinished reports whether the queues hold something to wait for; also when that cannot be known, because the server
// is away.
func unfinished(ctx context.Context, c *client.Client, queues []string) bool {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for _, name := range queues {
		answer, err := c.Queues().GetQueue(ctx, &stintv1.GetQueueRequest{Name: name})
		if status.Code(err) == codes.NotFound {
			continue
		}
		counts := answer.GetQueue().GetCounts()
		if err != nil || counts.GetReady()+counts.GetRunning()+counts.GetBackoff() > 0 {
			return true
		}
	}
	return false
}

// sidecarWorker runs a command for each run.
type sidecarWorker struct {
	command  sidecar.Command
	snooze   time.Duration
	stopping <-chan struct{} // closed when this process is to end

	mu      sync.Mutex
	running map[*client.Run]*commandRun
	gone    bool // the worker has given up
	runs    sync.WaitGroup
}

// commandRun is the command of one run.
type commandRun struct {
	ctx        context.Context // of the handler; its cause is the first interrupt
	kill       func()
	interrupts chan sidecar.Interrupt // has room for one: what was not read yet is replaced

	// Guarded by sidecarWorker.mu.
	stopped bool // it was told that this process is to end
	last    *client.InterruptError
}

// handle does one run.
func (s *sidecarWorker) handle(ctx context.Context, run *client.Run) error {
	owned, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	r := &commandRun{ctx: ctx, kill: kill, interrupts: make(chan sidecar.Interrupt, 1)}
	if !s.enter(run, r) {
		return client.NotMe("the worker has given up")
	}
	ended := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() { s.watch(ctx, ended, r) })
	defer func() {
		s.mu.Lock()
		delete(s.running, run)
		s.mu.Unlock()
		close(ended)
		watching.Wait()
		s.runs.Done()
	}()
	return s.report(ctx, run, s.command.Run(owned, r.interrupts, jobOf(run)))
}

// enter makes the run one of those that are told, and waited for; false if the worker has given up.
func (s *sidecarWorker) enter(run *client.Run, r *commandRun) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return false
	}
	s.runs.Add(1)
	s.running[run] = r
	return true
}

// watch tells the command of one run to end when the run is interrupted, which observe may be too early for, or when
// this process is to end; it kills the command if the run may be somebody else's.
func (s *sidecarWorker) watch(ctx context.Context, ended <-chan struct{}, r *commandRun) {
	stopping := s.stopping
	for {
		select {
		case <-ended:
			return
		case <-stopping:
			stopping = nil
			s.mu.Lock()
			r.stopped = true
			r.ask(sidecar.Interrupt{Level: "RETRY", Reason: "the worker is stopping", Grace: s.command.Grace})
			s.mu.Unlock()
		case <-ctx.Done():
			s.mu.Lock()
			defer s.mu.Unlock()
			var why *client.InterruptError
			if !errors.As(context.Cause(ctx), &why) {
				r.kill()
				return
			}
			s.interrupt(r, why)
			return
		}
	}
}

// interrupt tells the command of a run of an interrupt, if that is news, or kills it if the run may be somebody else's.
// Caller holds mu.
func (s *sidecarWorker) interrupt(r *commandRun, why *client.InterruptError) {
	switch {
	case why.Source == client.SourceLostContact:
		r.kill()
	case why == r.last, r.last != nil && why.Level < r.last.Level, r.stopped && why.Source == client.SourceShutdown:
	default:
		r.last = why
		r.ask(sidecar.Interrupt{
			Level:  strings.TrimPrefix(why.Level.String(), "INTERRUPT_LEVEL_"),
			Reason: why.Reason, Grace: cmp.Or(why.Grace, s.command.Grace),
		})
	}
}

// ask passes an interrupt on. It takes the place of one that the command has not been told yet, whose grace holds if it
// is shorter. Calls are serialized by sidecarWorker.mu.
func (r *commandRun) ask(i sidecar.Interrupt) {
	select {
	case older := <-r.interrupts:
		i.Grace = min(i.Grace, older.Grace)
	default:
	}
	r.interrupts <- i
}

// observe tells the commands what becomes of their runs: that one is no longer ours, or is interrupted, also once more.
func (s *sidecarWorker) observe(e client.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.running[e.Run]
	if r == nil {
		return
	}
	switch e.Kind {
	case client.RunStopped:
		r.kill()
	case client.RunInterrupted:
		if why, ok := errors.AsType[*client.InterruptError](e.Err); ok {
			s.interrupt(r, why)
		}
	default:
	}
}

// abandon kills the commands that are left when the worker has given up, so that none outlives it.
func (s *sidecarWorker) abandon() {
	s.mu.Lock()
	s.gone = true
	for _, r := range s.running {
		r.kill()
	}
	s.mu.Unlock()
	s.runs.Wait()
}

func jobOf(run *client.Run) sidecar.Job {
	return sidecar.Job{
		ID: run.JobID, Queue: run.Queue, Run: run.Number, Fence: run.Fence, Subject: run.Subject,
		Priority: int32(run.Priority), Labels: run.Labels, Payload: run.Payload, ContentType: run.ContentType,
		Traceparent: run.TraceContext.GetTraceparent(), Tracestate: run.TraceContext.GetTracestate(),
	}
}

// report turns how the command ended into how the run did.
func (s *sidecarWorker) report(ctx context.Context, run *client.Run, o sidecar.Outcome) error {
	exit := &stintv1.ProcessExit{ExitCode: int32(o.Exit.Code), Signal: o.Exit.Signal, StderrTail: o.Exit.StderrTail} //nolint:gosec // an exit code
	switch o.Kind {
	case sidecar.Succeeded:
		if o.Result != nil {
			run.SetResult(o.Result, "")
		}
		return nil
	case sidecar.Released:
		return client.Release(s.snooze, o.Reason)
	case sidecar.Interrupted:
		return client.Interrupted(o.Reason)
	case sidecar.Lost:
		return context.Cause(ctx)
	case sidecar.NotStarted:
		return client.NotMe(o.Reason)
	default:
		kind := "exit"
		if o.Exit.Signal != "" {
			kind = "signal"
		}
		return client.WithFailure(&stintv1.Failure{Type: kind, Message: o.Reason, Final: o.Final, Park: o.Park, Process: exit})
	}
}
