package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// exitError is an error that knows its exit code. An empty message says that all was said before.
type exitError struct {
	code    int
	message string
}

// Error returns the message.
func (e *exitError) Error() string { return e.message }

// exitWith ends the command with a code and without a word; nil for 0.
func exitWith(code int) error {
	if code == exitOK {
		return nil
	}
	return &exitError{code: code}
}

// usageError says that the command line is wrong.
func usageError(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...).Error()}
}

// report tells a command's error in one line and returns the exit code.
func (g *globals) report(err error) int {
	if err == nil {
		return exitOK
	}
	e := g.explain(err)
	if e.message != "" {
		fmt.Fprintln(g.stderr, e.message)
	}
	return e.code
}

// explain turns any error into a line and an exit code.
func (g *globals) explain(err error) *exitError {
	var known *exitError
	var item *client.ItemError
	switch reason := client.ReasonOf(err); {
	case errors.As(err, &known):
		return known
	case errors.As(err, &item):
		return &exitError{exitCodeOf(item.Reason, item.Code), item.Error()}
	case reason == stintv1.Reason_REASON_SERVER_STOPPING:
		return &exitError{exitNoServer, fmt.Sprintf("the server at %s is stopping", g.server)}
	case reason != stintv1.Reason_REASON_UNSPECIFIED:
		name := strings.TrimPrefix(reason.String(), "REASON_")
		return &exitError{exitCodeOf(reason, status.Code(err)), name + ": " + statusOf(err).Message()}
	case errors.Is(err, context.Canceled) || status.Code(err) == codes.Canceled:
		return &exitError{exitSignalled, ""}
	case errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded:
		return &exitError{exitTimeout, "timed out"}
	case status.Code(err) == codes.Unavailable:
		return &exitError{exitNoServer, fmt.Sprintf("no server at %s; start one with: stint serve", g.server)}
	}
	if s := statusOf(err); s != nil {
		return &exitError{exitCodeOf(stintv1.Reason_REASON_UNSPECIFIED, s.Code()), s.Message()}
	}
	return &exitError{exitFailed, err.Error()}
}

// statusOf is what a call ended with, without what the error was wrapped or joined with since; nil if err is none of a
// call.
func statusOf(err error) *status.Status {
	var call interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &call) {
		return nil
	}
	return call.GRPCStatus()
}

// exitCodeOf maps a refusal: by its reason, or by its gRPC code when the reason is unknown here.
func exitCodeOf(reason stintv1.Reason, code codes.Code) int {
	if _, known := stintv1.Reason_name[int32(reason)]; !known {
		return exitCodeOfStatus(code)
	}
	switch reason {
	case stintv1.Reason_REASON_UNSPECIFIED:
		return exitCodeOfStatus(code)
	case stintv1.Reason_REASON_INVALID_FIELD, stintv1.Reason_REASON_TOO_LARGE, stintv1.Reason_REASON_PAGE_TOKEN_INVALID,
		stintv1.Reason_REASON_OUTCOME_MISSING, stintv1.Reason_REASON_SESSION_LIMIT, stintv1.Reason_REASON_UNITS_OVER_LIMIT:
		return exitUsage
	case stintv1.Reason_REASON_JOB_NOT_FOUND, stintv1.Reason_REASON_QUEUE_NOT_FOUND, stintv1.Reason_REASON_WORKER_NOT_FOUND,
		stintv1.Reason_REASON_LIMIT_NOT_FOUND:
		return exitNotFound
	case stintv1.Reason_REASON_STORAGE_FULL, stintv1.Reason_REASON_TOO_MANY_QUEUES, stintv1.Reason_REASON_TOO_MANY_LIMITS, stintv1.Reason_REASON_SLOW_CONSUMER,
		stintv1.Reason_REASON_INTERNAL:
		return exitFailed
	case stintv1.Reason_REASON_SERVER_STOPPING:
		return exitNoServer
	default:
		return exitConflict
	}
}

func exitCodeOfStatus(code codes.Code) int {
	switch code {
	case codes.InvalidArgument, codes.OutOfRange:
		return exitUsage
	case codes.NotFound:
		return exitNotFound
	case codes.AlreadyExists, codes.FailedPrecondition, codes.Aborted:
		return exitConflict
	case codes.Unavailable:
		return exitNoServer
	case codes.DeadlineExceeded:
		return exitTimeout
	default:
		return exitFailed
	}
}

// itemErrors collects the refusals among the results of one request.
type itemErrors struct {
	g     *globals
	codes map[int]bool
}

// tell writes the refusal of one item to standard error; nil is none.
func (e *itemErrors) tell(item string, refused *stintv1.ItemError) {
	if refused == nil {
		return
	}
	e.tellError(item, &client.ItemError{
		Code: codes.Code(refused.GetCode()), Reason: refused.GetReason(), Field: refused.GetField(), Message: refused.GetMessage(),
	})
}

// tellError writes the error of one item to standard error.
func (e *itemErrors) tellError(item string, err error) {
	explained := e.g.explain(err)
	if e.codes == nil {
		e.codes = map[int]bool{}
	}
	e.codes[explained.code] = true
	fmt.Fprintf(e.g.stderr, "%s: %s\n", plain(item), explained.message)
}

// exit returns what the command ends with: nil without refusals, their common code, or 1 if they differ.
func (e *itemErrors) exit() error {
	if len(e.codes) == 1 {
		for code := range e.codes {
			return exitWith(code)
		}
	}
	if len(e.codes) > 1 {
		return exitWith(exitFailed)
	}
	return nil
}
