package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

const (
	// maxText is where a failure's message is cut; the server takes 64 KiB for the whole failure.
	maxText = 32 << 10
	// maxReason is the server's limit for a reason.
	maxReason = 1024
	// maxCauses is how many causes of an error are listed.
	maxCauses = 16
)

// Final marks a failure as one that trying again cannot mend: the job fails now, whatever budget is left. Like all
// marks it returns nil for nil, combines with the others, and leaves err visible to errors.Is and errors.As.
func Final(err error) error { return mark(err, func(f *stintv1.Failure) { f.Final = true }) }

// Park marks a failure as one for a person to look at: the job is PARKED.
func Park(err error) error { return mark(err, func(f *stintv1.Failure) { f.Park = true }) }

// Infrastructure marks a failure of something the work needs (a database, the network): it costs no attempt.
func Infrastructure(err error) error {
	return classed(err, stintv1.FailureClass_FAILURE_CLASS_INFRASTRUCTURE)
}

// Malformed marks a failure to understand the payload: the job is PARKED.
func Malformed(err error) error { return classed(err, stintv1.FailureClass_FAILURE_CLASS_MALFORMED) }

// Timeout marks a failure to be done in time. It costs an attempt.
func Timeout(err error) error { return classed(err, stintv1.FailureClass_FAILURE_CLASS_TIMEOUT) }

// RetryAfter says when to try again, in place of the job's retry policy.
func RetryAfter(err error, d time.Duration) error {
	return mark(err, func(f *stintv1.Failure) { f.RetryDelay = durationpb.New(d) })
}

// WithFailure is a failure given in full, for those who know better than an error's text: a process's exit, a traceback
// of another language. Marks around it are applied to a copy.
func WithFailure(f *stintv1.Failure) error { return &givenError{f} }

// Release gives the job back without having done it; it comes back after d, or after the server's default of one second
// if d is zero. It costs no attempt.
func Release(d time.Duration, reason string) error {
	released := &stintv1.Released{Reason: reason, Kind: &stintv1.Released_Snooze{Snooze: &stintv1.Snooze{}}}
	if d > 0 {
		released.Delay = durationpb.New(d)
	}
	return &ending{text: "released: " + reason, finish: &stintv1.Finish{Outcome: &stintv1.Finish_Released{Released: released}}}
}

// Throttled gives the job back because something that it needs is overloaded: no job that takes the key of the limit starts
// for the cooldown, on any worker, at most an hour; the server's default of 30 seconds if it is zero. The run must hold the key;
// with an empty limit the job's queue is meant. The job comes back with the others.
func Throttled(limit, key string, cooldown time.Duration, reason string) error {
	t := &stintv1.Throttled{Limit: limit, Key: key}
	if cooldown > 0 {
		t.Cooldown = durationpb.New(min(cooldown, time.Hour))
	}
	released := &stintv1.Released{Reason: reason, Kind: &stintv1.Released_Throttled{Throttled: t}}
	return &ending{text: "throttled: " + reason, finish: &stintv1.Finish{Outcome: &stintv1.Finish_Released{Released: released}}}
}

// NotMe gives the job back for another worker: it is ready at once, but not for this one for a minute.
func NotMe(reason string) error {
	released := &stintv1.Released{Reason: reason, Kind: &stintv1.Released_NotMe{NotMe: &stintv1.NotMe{}}}
	return &ending{text: "released: " + reason, finish: &stintv1.Finish{Outcome: &stintv1.Finish_Released{Released: released}}}
}

// Interrupted says that the work was stopped before its end. The job comes back after the delay, or after the server's
// default of ten seconds if none is given.
func Interrupted(reason string, delay ...time.Duration) error {
	finish := interrupted(reason)
	if len(delay) > 0 {
		finish.GetInterrupted().Delay = durationpb.New(delay[0])
	}
	return &ending{text: "interrupted: " + reason, finish: finish}
}

// ending is an outcome that is no failure, dressed as an error.
type ending struct {
	text   string
	finish *stintv1.Finish
}

func (e *ending) Error() string { return e.text }

// marked is an error with one property of the failure it stands for.
type marked struct {
	err   error
	apply func(*stintv1.Failure)
}

func (m *marked) Error() string { return m.err.Error() }
func (m *marked) Unwrap() error { return m.err }

func mark(err error, apply func(*stintv1.Failure)) error {
	if err == nil {
		return nil
	}
	return &marked{err, apply}
}

func classed(err error, class stintv1.FailureClass) error {
	return mark(err, func(f *stintv1.Failure) { f.Class = class })
}

// givenError is a failure dressed as an error.
type givenError struct{ failure *stintv1.Failure }

func (f *givenError) Error() string { return f.failure.GetMessage() }

// plainSuccess is shared by all successes without a result; a finish is never changed after it was made.
var plainSuccess = &stintv1.Finish_Success{Success: &stintv1.Success{}}

// outcome turns what a handler returned into a finish without its token. The cause is that of the handler's context at
// the time it returned; nil if it had not ended.
func outcome(run *Run, err, cause error) *stintv1.Finish {
	if err == nil {
		if run.result == nil {
			return &stintv1.Finish{Outcome: plainSuccess}
		}
		run.result.ContentType = clean(run.result.ContentType, 255)
		return &stintv1.Finish{Outcome: &stintv1.Finish_Success{Success: &stintv1.Success{Result: run.result}}}
	}
	if end, ok := errors.AsType[*ending](err); ok {
		return cleanFinish(proto.CloneOf(end.finish))
	}
	var interrupt *InterruptError
	if errors.As(cause, &interrupt) && cancellation(err) {
		return interruptedBy(interrupt)
	}
	return &stintv1.Finish{Outcome: &stintv1.Finish_Failure{Failure: failureOf(err)}}
}

// cancellation reports whether err says that a context ended, also through a gRPC call that the handler made.
func cancellation(err error) bool {
	if errors.Is(err, context.Canceled) {
		return true
	}
	var rpc interface{ GRPCStatus() *status.Status }
	return errors.As(err, &rpc) && rpc.GRPCStatus().Code() == codes.Canceled
}

// interruptedBy is the finish of a run that gave way to an interrupt.
func interruptedBy(e *InterruptError) *stintv1.Finish {
	if e.Source == SourceLostContact {
		return interrupted(string(SourceLostContact))
	}
	return interrupted(clean(e.Reason, maxReason))
}

func interrupted(reason string) *stintv1.Finish {
	return &stintv1.Finish{Outcome: &stintv1.Finish_Interrupted{Interrupted: &stintv1.Interrupted{Reason: reason}}}
}

// failureOf describes err. Marks are applied from the inside out, so that the outermost wins.
func failureOf(err error) *stintv1.Failure {
	f := &stintv1.Failure{}
	if full, ok := errors.AsType[*givenError](err); ok {
		f = proto.CloneOf(full.failure)
	} else {
		describe(f, err)
	}
	f.Message = err.Error()
	var marks []*marked
	walk(err, func(e error) {
		if m, ok := e.(*marked); ok {
			marks = append(marks, m)
		}
	})
	for _, m := range slices.Backward(marks) {
		m.apply(f)
	}
	return cleanFailure(f)
}

// describe fills type and causes from the tree of wrapped errors. The type is that of the outermost error whose type
// says something.
func describe(f *stintv1.Failure, err error) {
	walk(err, func(e error) {
		name := typeName(e)
		if f.Type == "" {
			f.Type = name
		}
		if _, ok := e.(*marked); !ok && e.Error() != err.Error() && len(f.Causes) < maxCauses {
			f.Causes = append(f.Causes, &stintv1.FailureCause{Type: cmp.Or(name, "error"), Message: e.Error()})
		}
	})
	f.Type = cmp.Or(f.Type, "error")
}

// typeName returns the type of e, or nothing for the types that everybody's errors have.
func typeName(e error) string {
	switch name := fmt.Sprintf("%T", e); name {
	case "*errors.errorString", "*errors.joinError", "*fmt.wrapError", "*fmt.wrapErrors", "*client.marked":
		return ""
	default:
		return strings.TrimPrefix(name, "*")
	}
}

// walk visits err and everything it wraps, depth first.
func walk(err error, visit func(error)) {
	visit(err)
	switch u := err.(type) {
	case interface{ Unwrap() error }:
		if inner := u.Unwrap(); inner != nil {
			walk(inner, visit)
		}
	case interface{ Unwrap() []error }:
		for _, inner := range u.Unwrap() {
			walk(inner, visit)
		}
	}
}
