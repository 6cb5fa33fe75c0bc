package client

import (
	"context"
	"sync/atomic"
	"time"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// Handler does the work of one run. Its context ends when the run is interrupted (context.Cause is an *InterruptError),
// when the run no longer belongs to this worker (ErrStopped), and after the handler has returned. It carries the remote
// span context of the submitter.
//
// A nil error is a success, with the result that Run.SetResult was given. An error is a failure, shaped by Final, Park,
// Infrastructure, Malformed, Timeout, RetryAfter and WithFailure; Release, NotMe and Interrupted are no failures. If
// the run was interrupted and the error is a cancellation, the run is reported as interrupted. A panic is a failure with
// its stack.
type Handler func(ctx context.Context, run *Run) error

// Run is one attempt of a job, as its handler sees it. The handler must not change its fields, and may keep them.
type Run struct {
	// JobID is the job's id.
	JobID string
	// Queue is the job's queue.
	Queue string
	// Number is the run's number in its job, from 1.
	Number uint32
	// Fence grows with every run of the whole store; hand it to the systems the job writes to.
	Fence uint64
	// Payload is the content as it was submitted.
	Payload []byte
	// ContentType is the payload's media type; may be empty.
	ContentType string
	// Labels are the job's labels.
	Labels map[string]string
	// Subject is what the job is about.
	Subject string
	// Limits are what the run takes of limits, and so what it may say is [Throttled].
	Limits []*stintv1.LimitUse
	// FairnessKey is whose turn it took.
	FairnessKey string
	// Priority is the job's band.
	Priority stintv1.Priority
	// Counters are what the job has used of its budgets; never nil.
	Counters *stintv1.JobCounters
	// Lease is how long the run may be silent, as it was assigned. The worker keeps it alive by itself.
	Lease time.Duration
	// Timeout is how long the run may take, from its receipt, before the server interrupts it; 0: as long as it takes.
	Timeout time.Duration
	// SubmitTime is when the job was submitted.
	SubmitTime time.Time
	// TraceContext is the trace the job was submitted under; nil if there is none. The handler's context carries it too.
	TraceContext *stintv1.TraceContext

	level  atomic.Int32
	result *stintv1.Payload
	hooks  hooks
}

// newRun converts an assignment.
func newRun(a *stintv1.Assignment) *Run {
	run := &Run{
		JobID:        a.GetJobId(),
		Queue:        a.GetQueue(),
		Number:       a.GetRunNumber(),
		Fence:        a.GetFence(),
		Payload:      a.GetPayload().GetData(),
		ContentType:  a.GetPayload().GetContentType(),
		Labels:       a.GetLabels(),
		Subject:      a.GetSubject(),
		Limits:       a.GetLimits(),
		FairnessKey:  a.GetFairnessKey(),
		Priority:     a.GetPriority(),
		Counters:     a.GetCounters(),
		Lease:        a.GetLease().AsDuration(),
		Timeout:      a.GetTimeout().AsDuration(),
		TraceContext: a.GetTraceContext(),
	}
	if a.SubmitTime != nil {
		run.SubmitTime = a.GetSubmitTime().AsTime()
	}
	if run.Counters == nil {
		run.Counters = &stintv1.JobCounters{}
	}
	return run
}

// SetResult sets what a success brings; a later call replaces it. The worker keeps data until it is acknowledged, so
// the handler must not change it afterwards. Only the handler's own goroutine may call it.
func (r *Run) SetResult(data []byte, contentType string) {
	r.result = &stintv1.Payload{Content: &stintv1.Payload_Data{Data: data}, ContentType: contentType}
}

// Level returns how far the run is interrupted by now. It never falls, and may rise from RETRY to CANCEL after the
// context has ended. Safe for concurrent use.
func (r *Run) Level() stintv1.InterruptLevel { return stintv1.InterruptLevel(r.level.Load()) }

// raise lifts the level; it reports whether it was lower before. Calls are serialized by the worker's lock.
func (r *Run) raise(level stintv1.InterruptLevel) bool {
	if int32(level) <= r.level.Load() {
		return false
	}
	r.level.Store(int32(level))
	return true
}
