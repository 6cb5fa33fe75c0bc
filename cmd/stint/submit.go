package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/protobuf/proto"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// submission is what the flags of submit say.
type submission struct {
	id, json, data, contentType, priority, runAt, startBy, subject, fairnessKey string

	delay, lease, runTimeout time.Duration
	attempts                 uint32
	retry                    retryPolicy
	labels, limits           []string
	unique                   uniqueFlags
	lines, wait              bool
}

func newSubmitCommand(g *globals) *cobra.Command {
	s := &submission{}
	c := &cobra.Command{
		Use:   "submit QUEUE",
		Short: "Submit a job, or one for each line of standard input",
		Long: `Submit a job and print its id when it is safe on disk.

With --lines each line of standard input is the payload of a job of its own. The jobs are streamed; their ids are chosen
first, so that a lost connection or a restarted server costs no job and doubles none. A line that is refused is named on
standard error, the others go on. The ids go to standard output unless that is a terminal.

With --unique a job is stored only while no other one of its queue holds the key. Else nothing is stored, standard error
says so, and the id that is printed, or waited for, is that of the job that holds the key; with --on-conflict reject that
is an error.

With --wait the exit code is the job's outcome (see: stint help exit-codes) and standard output shows its result.

` + retryHelp,
		Example: `  stint submit thumbnails --json '{"file": "cat.jpg"}'
  stint submit reports --data @order.xml --subject order/4711 --priority high --wait
  stint submit reports --unique nightly --on-conflict replace-pending --data @latest.xml
  seq 5000 | stint submit numbers --lines`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeQueues(g, 1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := refuseEmpty(c, "json", "id", "run-at", "start-by", "unique", "unique-until", "on-conflict"); err != nil {
				return err
			}
			job, err := s.job(args[0], g.stdin)
			if err != nil {
				return usageError("%w", err)
			}
			ctx := continueTrace(c.Context())
			switch {
			case s.lines:
				return g.stay(ctx, func(ctx context.Context, c *client.Client) error { return g.submitLines(ctx, c, job, s.wait) })
			case s.wait:
				return g.stay(ctx, func(ctx context.Context, c *client.Client) error { return g.submitAndWait(ctx, c, job) })
			}
			return g.call(ctx, func(ctx context.Context, c *client.Client) error { return g.submitOne(ctx, c, job) })
		},
	}
	s.flags(c)
	return c
}

func (s *submission) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&s.json, "json", "", "payload: a JSON text")
	f.StringVar(&s.data, "data", "", "payload: a text, @FILE, or - for standard input")
	f.StringVar(&s.contentType, "content-type", "", "media type of the payload (with --json: application/json)")
	f.BoolVar(&s.lines, "lines", false, "submit one job for each line of standard input")
	f.BoolVar(&s.wait, "wait", false, "wait for the end; print the result; exit with the outcome")
	f.StringVar(&s.id, "id", "", "the job's id, a UUID: submitting it again is harmless (default: a new one)")
	s.terms(c)
	s.unique.register(c)
	c.MarkFlagsMutuallyExclusive("json", "data", "lines")
	c.MarkFlagsMutuallyExclusive("id", "lines")
	c.MarkFlagsMutuallyExclusive("run-at", "delay")
}

// terms are the flags of what may be changed later, too.
func (s *submission) terms(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&s.priority, "priority", "", "very-low, low, normal, high or very-high (default normal)")
	f.DurationVar(&s.delay, "delay", 0, "start it not before this long from now")
	f.StringVar(&s.runAt, "run-at", "", "start it not before this time (2026-01-31T15:04:05Z)")
	f.StringVar(&s.startBy, "start-by", "", "let it expire if it has not started by this time")
	f.DurationVar(&s.lease, "lease", 0, "how long a run may be silent before it is taken for lost (default: the queue's)")
	f.DurationVar(&s.runTimeout, "run-timeout", 0,
		"how long a run may take before it is interrupted and has failed, unless it still succeeds (default: as long as it takes)")
	f.Uint32Var(&s.attempts, "max-attempts", 0, "how many failed attempts it may have (default: the queue's)")
	f.Var(&s.retry, "retry", "how it is tried again, see above (default: the queue's)")
	f.StringArrayVar(&s.labels, "label", nil, "a label KEY=VALUE; may be repeated")
	f.StringVar(&s.subject, "subject", "", "what it is about (order/4711)")
	f.StringArrayVar(&s.limits, "limit", nil,
		"what its runs take: NAME, NAME=KEY, or NAME*UNITS=KEY of a limit made by \"stint limit put\"; may be repeated")
	f.StringVar(&s.fairnessKey, "fairness-key", "", "whose turn it takes (a tenant): the keys of a queue take turns, see \"stint queue set --weight\"")
	c.MarkFlagsMutuallyExclusive("retry", "max-attempts")
	_ = c.RegisterFlagCompletionFunc("priority", cobra.FixedCompletions(
		[]string{"very-low", "low", "normal", "high", "very-high"}, cobra.ShellCompDirectiveNoFileComp))
}

// job is the job that the flags describe.
func (s *submission) job(queue string, stdin io.Reader) (client.Job, error) {
	job := client.Job{
		ID: s.id, Queue: queue, ContentType: s.contentType, Delay: s.delay, Lease: s.lease, Subject: s.subject,
		Timeout: s.runTimeout, Retry: s.retry.RetryPolicy, FairnessKey: s.fairnessKey,
	}
	// The server would call it "timeout", which is a flag of its own.
	if s.runTimeout != 0 && s.runTimeout < time.Millisecond {
		return job, fmt.Errorf("--run-timeout %s: want 1ms or more", s.runTimeout)
	}
	if s.attempts > 0 {
		job.Retry = &stintv1.RetryPolicy{MaxAttempts: s.attempts}
	}
	var err error
	if job.Priority, err = parsePriority(s.priority); err != nil {
		return job, fmt.Errorf("--priority %w", err)
	}
	if job.Labels, err = parseLabels(s.labels); err != nil {
		return job, err
	}
	if job.Limits, err = parseUses(s.limits); err != nil {
		return job, err
	}
	if job.Unique, err = s.unique.unique(); err != nil {
		return job, err
	}
	if job.RunAt, err = parseTime("run-at", s.runAt); err != nil {
		return job, err
	}
	if job.StartBy, err = parseTime("start-by", s.startBy); err != nil {
		return job, err
	}
	if job.ID == "" && !s.lines {
		job.ID = newID()
	}
	err = s.payload(&job, stdin)
	return job, err
}

func (s *submission) payload(job *client.Job, stdin io.Reader) (err error) {
	switch {
	case s.json != "":
		if !json.Valid([]byte(s.json)) {
			return fmt.Errorf("--json: %q is not a JSON text", s.json)
		}
		job.Payload = []byte(s.json)
		if job.ContentType == "" {
			job.ContentType = "application/json"
		}
	case s.data == "-":
		job.Payload, err = io.ReadAll(stdin)
	case strings.HasPrefix(s.data, "@"):
		job.Payload, err = os.ReadFile(s.data[1:])
	default:
		job.Payload = []byte(s.data)
	}
	if err != nil {
		return fmt.Errorf("--data: %w", err)
	}
	return nil
}

// newID chooses a job's id before the first send: the submit may be repeated blindly.
func newID() string { return uuid.Must(uuid.NewV7()).String() }

// continueTrace lets the jobs be part of the trace that the environment names, as in a command that is a job's run.
func continueTrace(ctx context.Context) context.Context {
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{
		"traceparent": os.Getenv("TRACEPARENT"), "tracestate": os.Getenv("TRACESTATE"),
	})
}

// submit stores one job, whatever it takes; it needs the server to be there at first.
func (g *globals) submit(ctx context.Context, c *client.Client, job client.Job) (client.Submitted, error) {
	answers, err := c.Submit(ctx, job)
	if err != nil {
		return client.Submitted{}, err
	}
	return answers[0], answers[0].Err
}

func (g *globals) submitOne(ctx context.Context, c *client.Client, job client.Job) error {
	// The SDK would wait for a server that is away; a person is told at once.
	if err := look(ctx, c); err != nil {
		return err
	}
	answer, err := g.submit(ctx, c, job)
	if err != nil {
		return err
	}
	tellHolder(g.stderr, answer)
	result := submitResult(answer)
	return g.print(&stintv1.SubmitJobsResponse{Results: []*stintv1.SubmitResult{result}}, []proto.Message{result}, func(w io.Writer) {
		fmt.Fprintln(w, answer.Job())
	})
}

// submitResult is an answer as it came over the wire.
func submitResult(s client.Submitted) *stintv1.SubmitResult {
	status := stintv1.SubmitStatus_SUBMIT_STATUS_CREATED
	switch {
	case s.Existing:
		status = stintv1.SubmitStatus_SUBMIT_STATUS_EXISTING
	case s.Replaced:
		status = stintv1.SubmitStatus_SUBMIT_STATUS_REPLACED
	case s.Holder != "":
		status = stintv1.SubmitStatus_SUBMIT_STATUS_KEY_HELD
	}
	return &stintv1.SubmitResult{Id: s.ID, Status: status, State: s.State, HolderId: s.Holder}
}

func (g *globals) submitAndWait(ctx context.Context, c *client.Client, job client.Job) error {
	answer, err := g.submit(ctx, c, job)
	if err != nil {
		return err
	}
	if tellHolder(g.stderr, answer); answer.Holder == "" {
		fmt.Fprintln(g.stderr, "submitted", answer.ID)
	}
	ended, err := c.Wait(ctx, answer.Job())
	if state, known := endOf(answer.State, err); known {
		g.tellEnd(answer.Job(), state)
		return outcomes{state: 1}.exit()
	}
	if err != nil {
		return err
	}
	if g.output == jsons || g.output == jsonl {
		err = g.print(&stintv1.WaitJobResponse{Job: ended, Reached: true}, []proto.Message{ended}, nil)
	} else {
		_, err = g.stdout.Write(content(ended.GetResult()))
	}
	if err != nil {
		return err
	}
	g.tellOutcome(ended)
	return outcomes{ended.GetState(): 1}.exit()
}
