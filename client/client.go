package client

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// Version is what a worker tells the server about the SDK it uses.
const Version = "stint-go/0.1.0"

const (
	// maxSend is the server's limit for one message.
	maxSend = 4 << 20
	// maxReceive is larger: a FULL view of a job may hold payload, result and two hundred failures.
	maxReceive = 16 << 20
	// maxItems is how many jobs, ids or finishes the server takes in one message.
	maxItems = 1000
	// maxBatchBytes bounds what is put together into one message; a single larger item goes alone.
	maxBatchBytes = 2 << 20
	// waitSilence is how long WaitJob may be silent: the server answers every 15 s.
	waitSilence = 45 * time.Second
)

// serviceConfig repeats calls that are harmless to repeat, some because they are named (see naming), and only when the
// server was not there. Streams are not listed: Submitter and Worker reopen theirs themselves, with what was not answered.
const serviceConfig = `{"methodConfig": [{
  "name": [
    {"service": "stint.v1.JobService", "method": "GetJob"},
    {"service": "stint.v1.JobService", "method": "ListJobs"},
    {"service": "stint.v1.JobService", "method": "CountJobs"},
    {"service": "stint.v1.JobService", "method": "InterruptJobs"},
    {"service": "stint.v1.JobService", "method": "RetryJobs"},
    {"service": "stint.v1.JobService", "method": "ParkJobs"},
    {"service": "stint.v1.JobService", "method": "UpdateJob"},
    {"service": "stint.v1.WorkerService", "method": "HeartbeatRuns"},
    {"service": "stint.v1.WorkerService", "method": "FinishRuns"},
    {"service": "stint.v1.WorkerService", "method": "CheckLease"},
    {"service": "stint.v1.WorkerService", "method": "ListWorkers"},
    {"service": "stint.v1.WorkerService", "method": "DrainWorkers"},
    {"service": "stint.v1.QueueService", "method": "ListQueues"},
    {"service": "stint.v1.QueueService", "method": "GetQueue"},
    {"service": "stint.v1.QueueService", "method": "PauseQueue"},
    {"service": "stint.v1.QueueService", "method": "ResumeQueue"}
  ],
  "retryPolicy": {
    "maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "2s", "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"]
  }
}]}`

// Client speaks to one Stint server. It is safe for concurrent use.
type Client struct {
	jobs    stintv1.JobServiceClient
	workers stintv1.WorkerServiceClient
	queues  stintv1.QueueServiceClient
	events  stintv1.EventServiceClient
	conn    io.Closer // nil if the caller owns the connection
}

// Dial makes a client for the server at addr ("127.0.0.1:7707"). It does not block and does not fail because the server
// is away: calls do. The connection is in plain text unless opts say otherwise; opts are applied after the defaults
// (keepalive every 30 s, messages of at most 4 MiB out and 16 MiB in, reconnects with full jitter up to 5 s, repeats of
// harmless unary calls on UNAVAILABLE). The caller closes it with Close.
func Dial(addr string, opts ...grpc.DialOption) (*Client, error) {
	defaults := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(maxSend), grpc.MaxCallRecvMsgSize(maxReceive)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: 30 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true,
		}),
		// Jitter 1 spreads each delay over twice its nominal length from zero: full jitter up to 5 s.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 2, Jitter: 1, MaxDelay: 2500 * time.Millisecond},
			MinConnectTimeout: 5 * time.Second,
		}),
		// Fixed windows spare the pings that estimate them.
		grpc.WithInitialWindowSize(1 << 20),
		grpc.WithInitialConnWindowSize(4 << 20),
	}
	conn, err := grpc.NewClient(addr, append(defaults, opts...)...)
	if err != nil {
		return nil, err
	}
	c := New(conn)
	c.conn = conn
	return c, nil
}

// New makes a client over a connection that the caller owns and closes.
func New(cc grpc.ClientConnInterface) *Client {
	cc = naming{cc}
	return &Client{
		jobs:    stintv1.NewJobServiceClient(cc),
		workers: stintv1.NewWorkerServiceClient(cc),
		queues:  stintv1.NewQueueServiceClient(cc),
		events:  stintv1.NewEventServiceClient(cc),
	}
}

// Close closes the connection that Dial made; calls and streams under way end with an error. It does nothing for a
// client made by New.
func (c *Client) Close() error {
	if c.conn == nil {
		return nil
	}
	return c.conn.Close()
}

// Jobs returns the generated client of JobService, for what Client does not wrap. InterruptJobs, RetryJobs, ParkJobs
// and UpdateJob get a request_id, a UUIDv7, if they have none; so no job is changed twice when the connection is lost and
// they are repeated.
func (c *Client) Jobs() stintv1.JobServiceClient { return c.jobs }

// Workers returns the generated client of WorkerService, for what Client does not wrap.
func (c *Client) Workers() stintv1.WorkerServiceClient { return c.workers }

// Queues returns the generated client of QueueService.
func (c *Client) Queues() stintv1.QueueServiceClient { return c.queues }

// Events returns the generated client of EventService, for what Client does not wrap.
func (c *Client) Events() stintv1.EventServiceClient { return c.events }

// Get reads a job with everything the server knows of it. ReasonOf the error is REASON_JOB_NOT_FOUND if there is none.
func (c *Client) Get(ctx context.Context, id string) (*stintv1.Job, error) {
	resp, err := c.jobs.GetJob(ctx, &stintv1.GetJobRequest{Id: id, View: stintv1.JobView_JOB_VIEW_FULL})
	if err != nil {
		return nil, err
	}
	return resp.GetJob(), nil
}

// Wait waits until a job is terminal or PARKED and returns it whole. It outlasts lost connections and restarts of the
// server, until ctx ends.
func (c *Client) Wait(ctx context.Context, id string) (*stintv1.Job, error) {
	return c.WaitUntil(ctx, id, stintv1.WaitUntil_WAIT_UNTIL_END)
}

// WaitUntil waits as Wait does until a job has come as far as until says.
func (c *Client) WaitUntil(ctx context.Context, id string, until stintv1.WaitUntil) (*stintv1.Job, error) {
	var pause pacer
	for {
		job, err := c.waitOnce(ctx, id, until, &pause)
		if err == nil {
			return job, nil
		}
		if !transient(ctx, err) {
			return nil, err
		}
		if err := pause.wait(ctx, err); err != nil {
			return nil, err
		}
	}
}

// waitOnce waits over one stream. A stream that is silent for longer than the server's promise is given up.
func (c *Client) waitOnce(ctx context.Context, id string, until stintv1.WaitUntil, pause *pacer) (*stintv1.Job, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream, err := c.jobs.WaitJob(ctx, &stintv1.WaitJobRequest{
		Id: id, Until: until, View: stintv1.JobView_JOB_VIEW_FULL,
	}, grpc.WaitForReady(true))
	if err != nil {
		return nil, err
	}
	silence := time.AfterFunc(waitSilence, func() { cancel(errSilent) })
	defer silence.Stop()
	for {
		resp, err := stream.Recv()
		if errors.Is(context.Cause(ctx), errSilent) {
			return nil, errSilent
		}
		if err != nil {
			return nil, err
		}
		pause.reset()
		silence.Reset(waitSilence)
		if resp.GetReached() {
			return resp.GetJob(), nil
		}
	}
}

// Interrupt asks jobs to stop: RETRY stops their runs and lets them come back, CANCEL ends them. Results are in the
// order of ids; a job that could not be interrupted has an error in its result. On an error the results so far are
// returned with it; to call Interrupt again is another request, which stops the runs that there are then. To name a
// requester, or the request, call Jobs().InterruptJobs.
func (c *Client) Interrupt(ctx context.Context, level stintv1.InterruptLevel, reason string, ids ...string) ([]*stintv1.InterruptResult, error) {
	var results []*stintv1.InterruptResult
	for len(ids) > 0 {
		n := min(len(ids), maxItems)
		resp, err := c.jobs.InterruptJobs(ctx, &stintv1.InterruptJobsRequest{Ids: ids[:n], Level: level, Reason: reason})
		if err != nil {
			return results, err
		}
		results = append(results, resp.GetResults()...)
		ids = ids[n:]
	}
	return results, nil
}

// Park sets jobs aside for a person: waiting ones are PARKED now, running ones are interrupted with RETRY and PARKED when
// their runs end. Results are in the order of ids; a job that could not be parked has an error in its result. On an error
// the results so far are returned with it; to call Park again is another request. To name a requester, or the request,
// call Jobs().ParkJobs.
func (c *Client) Park(ctx context.Context, reason string, ids ...string) ([]*stintv1.JobResult, error) {
	var results []*stintv1.JobResult
	for len(ids) > 0 {
		n := min(len(ids), maxItems)
		resp, err := c.jobs.ParkJobs(ctx, &stintv1.ParkJobsRequest{Ids: ids[:n], Reason: reason})
		if err != nil {
			return results, err
		}
		results = append(results, resp.GetResults()...)
		ids = ids[n:]
	}
	return results, nil
}
