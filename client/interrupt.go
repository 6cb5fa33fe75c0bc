package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// ErrStopped is the cause of a handler's context when its run is no longer this worker's: it was lost, superseded,
// withdrawn or deleted. Whatever the handler returns is dropped.
var ErrStopped = errors.New("stint: the run no longer belongs to this worker")

// Source says who interrupted a run.
type Source string

// The sources of interrupts.
const (
	// SourceUser is a caller of InterruptJobs.
	SourceUser Source = "USER"
	// SourceDrain is an operator's drain of this worker, after its grace.
	SourceDrain Source = "DRAIN"
	// SourceTimeout is the job's timeout: any end but a success is a failure of class TIMEOUT.
	SourceTimeout Source = "TIMEOUT"
	// SourceShutdown is this worker's own stop, after its grace.
	SourceShutdown Source = "SHUTDOWN"
	// SourceLostContact is the worker's own deadline: the server did not answer for nearly a lease, and may have given
	// the job to another worker.
	SourceLostContact Source = "LOST_CONTACT"
)

// InterruptError is the cause (context.Cause) of a handler's context when its run is asked to stop. It matches
// context.Canceled, so that returning it, or ctx.Err(), reports the run as interrupted.
type InterruptError struct {
	// Level is RETRY (the job comes back later) or CANCEL (the job ends).
	Level stintv1.InterruptLevel
	// Reason is why, in the requester's words; it may be empty.
	Reason string
	// Source is what kind of requester it was.
	Source Source
	// Requester is who it was, as the requester named itself; it may be empty.
	Requester string
	// Grace is how long the handler may take to end by itself, from the receipt of the interrupt: a nanosecond if it may
	// take no time at all. Zero if nobody said, as with SHUTDOWN and LOST_CONTACT, which the worker decides.
	Grace time.Duration
}

// Error names level, source and reason.
func (e *InterruptError) Error() string {
	level := strings.TrimPrefix(e.Level.String(), "INTERRUPT_LEVEL_")
	if e.Reason == "" {
		return fmt.Sprintf("stint: interrupted (%s by %s)", level, e.Source)
	}
	return fmt.Sprintf("stint: interrupted (%s by %s): %s", level, e.Source, e.Reason)
}

// Is reports that an interrupt is a cancellation.
func (e *InterruptError) Is(target error) bool { return target == context.Canceled }

// interruptError converts the wire form.
func interruptError(in *stintv1.Interrupt) *InterruptError {
	var grace time.Duration
	if left := in.GetGraceLeft(); left != nil {
		grace = max(left.AsDuration(), 1)
	}
	return &InterruptError{
		Level:     in.GetLevel(),
		Reason:    in.GetReason(),
		Source:    Source(strings.TrimPrefix(in.GetSource().String(), "INTERRUPT_SOURCE_")),
		Requester: in.GetRequester(),
		Grace:     grace,
	}
}
