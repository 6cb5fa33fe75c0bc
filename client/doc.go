// Package client is the Go SDK of Stint: it submits jobs, waits for them, and does their work.
//
// # Producers
//
// Dial makes a Client; it does not block, and outlasts restarts of the server. Submit stores jobs in one call,
// SubmitStream stores many over one stream. Both choose a job's id before the first send and repeat by themselves, so a
// job is stored once however often the connection breaks. A refused job is an *ItemError in its own answer; the others
// go on. Wait returns a job when it has ended. Interrupt stops jobs: RETRY lets them come back, CANCEL ends them.
// InterruptMatching, RetryMatching, ParkMatching and DeleteMatching act on all jobs that a filter selects.
//
//	c, err := client.Dial("127.0.0.1:7707")
//	answers, err := c.Submit(ctx, client.Job{Queue: "mail", Payload: []byte("hello")})
//	job, err := c.Wait(ctx, answers[0].ID)
//
// Watch follows what happens to jobs, runs, queues, limits and workers, without a gap over broken connections.
//
// What the Client does not wrap is reached through the generated clients: Jobs, Workers, Queues, Events. ReasonOf reads the
// reason out of any error; decide by it, not by texts.
//
// # Workers
//
// A Worker holds one session with the server. Handle gives it a handler for a queue and says how many of its runs may
// be in flight; HandlePool shares that room among several queues. Run works until its context ends.
//
//	w := c.NewWorker(client.WorkerConfig{Name: "mailer"})
//	w.Handle("mail", 50, func(ctx context.Context, run *client.Run) error {
//		return send(ctx, run.Payload)
//	})
//	err := w.Run(ctx)
//
// A run is in flight from its assignment until its outcome is acknowledged, after it was made durable. With very short
// handlers give the pool a few hundred runs, so that there is always work while outcomes are on their way.
//
// # Outcomes
//
// A handler that returns nil succeeds, with the result of Run.SetResult. An error is a failure, and the job is tried
// again by its retry policy. Marks shape it, combine, and may be wrapped:
//
//	client.Final(err)                 trying again is pointless
//	client.Park(err)                  a person must look at it
//	client.Malformed(err)             the payload cannot be understood; parked
//	client.Infrastructure(err)        something else is broken; costs no attempt
//	client.Timeout(err)               it took too long
//	client.RetryAfter(err, d)         try again then
//	client.WithFailure(f)             a failure given in full
//
// Release gives the job back for later, NotMe for another worker; neither is a failure. A panic is a failure with its
// stack, and the worker goes on.
//
// # Interrupts and lost runs
//
// A handler's context ends for three reasons, told apart by context.Cause:
//
//   - an *InterruptError: the run shall stop, because somebody asked (USER), the worker is drained or stopping (DRAIN,
//     SHUTDOWN), the job's timeout is over (TIMEOUT), or the server has not answered for nearly a lease (LOST_CONTACT). It
//     names the level, which may still rise (Run.Level), and the grace within which the handler is to return. Return ctx.Err(), or anything that
//     wraps it, and the run is reported as interrupted. A nil error is a success still, another error a failure.
//   - ErrStopped: the run belongs to somebody else by now. What the handler returns is dropped.
//   - context.Canceled: the handler has returned.
//
// Run.OnAbort and Run.OnCleanUp register hooks that are called after the handler: the first to undo what an interrupted
// run had begun, the second in any case. They never change the outcome.
//
// Stint runs a job at least once. A handler that was cut off from the server may go on while another worker has the job;
// give Run.Fence to the systems you write to, and let them refuse smaller ones.
//
// # What the worker does by itself
//
// It accepts runs, keeps their leases with reports at the server's cadence, and sends outcomes until they are
// acknowledged. When the stream breaks it reconnects with full jitter (100 ms to 5 s) under the same instance id and
// takes its runs along; handlers do not notice. A server that is silent for two cadences counts as broken. When the
// server is stopping it reconnects when told to. When an operator drains it, it finishes what it holds and Run returns.
//
// Listen adds a listener to what goes on: sessions, runs, and what became of jobs. Stats and Idle tell how things are.
//
// # The life of a worker
//
// Run works until the worker is stopped: by the end of its context, by Stop, which returns at once, by an operator, or by
// itself after MaxRuns runs. Wait waits for that, Dispatching tells whether it takes jobs. To start it twice is harmless. With a
// concurrency of one it does one thing at a time.
//
// A worker that wants to choose its jobs handles their queue with ClaimOnly, lists what is READY, and claims what it likes by
// Claim. docs/taskflow.md has all this under the names of TaskFlow.
//
// # Traces
//
// The W3C trace context of the context given to Submit or Send travels with the job, and the handler's context carries
// it as a remote span context. The SDK makes no spans.
package client
