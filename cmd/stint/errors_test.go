package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// reasonCodes are the exit codes that scripts rely on, as numbers: renaming a constant changes nothing, renumbering does.
var reasonCodes = map[stintv1.Reason]int{
	stintv1.Reason_REASON_INVALID_FIELD:      2,
	stintv1.Reason_REASON_TOO_LARGE:          2,
	stintv1.Reason_REASON_ID_CONFLICT:        4,
	stintv1.Reason_REASON_ID_TOO_OLD:         4,
	stintv1.Reason_REASON_STORAGE_FULL:       1,
	stintv1.Reason_REASON_TOO_MANY_QUEUES:    1,
	stintv1.Reason_REASON_JOB_NOT_FOUND:      3,
	stintv1.Reason_REASON_QUEUE_NOT_FOUND:    3,
	stintv1.Reason_REASON_WORKER_NOT_FOUND:   3,
	stintv1.Reason_REASON_QUEUE_NOT_EMPTY:    4,
	stintv1.Reason_REASON_INTERRUPT_TOO_LATE: 4,
	stintv1.Reason_REASON_LEVEL_DOWNGRADE:    4,
	stintv1.Reason_REASON_RUN_ACTIVE:         4,
	stintv1.Reason_REASON_INVALID_STATE:      4,
	stintv1.Reason_REASON_TOKEN_UNKNOWN:      4,
	stintv1.Reason_REASON_TOKEN_STALE:        4,
	stintv1.Reason_REASON_OUTCOME_MISSING:    2,
	stintv1.Reason_REASON_INSTANCE_IN_USE:    4,
	stintv1.Reason_REASON_SESSION_REPLACED:   4,
	stintv1.Reason_REASON_SESSION_ORDER:      4,
	stintv1.Reason_REASON_DELIVERY_TIMEOUT:   4,
	stintv1.Reason_REASON_SESSION_SILENT:     4,
	stintv1.Reason_REASON_SESSION_LIMIT:      2,
	stintv1.Reason_REASON_DRAINING:           4,
	stintv1.Reason_REASON_SERVER_STOPPING:    5,
	stintv1.Reason_REASON_PAGE_TOKEN_INVALID: 2,
	stintv1.Reason_REASON_ETAG_MISMATCH:      4,
	stintv1.Reason_REASON_INTERNAL:           1,
	stintv1.Reason_REASON_LIMIT_NOT_FOUND:    3,
	stintv1.Reason_REASON_LIMIT_IN_USE:       4,
	stintv1.Reason_REASON_UNIQUE_CONFLICT:    4,
	stintv1.Reason_REASON_JOB_BLOCKED:        4,
	stintv1.Reason_REASON_UNITS_OVER_LIMIT:   2,
	stintv1.Reason_REASON_TOO_MANY_LIMITS:    1,
	stintv1.Reason_REASON_RESYNC:             4,
	stintv1.Reason_REASON_SLOW_CONSUMER:      1,
}

// statusCodes are the same for errors without a reason that this build knows.
var statusCodes = map[codes.Code]int{
	codes.Canceled:           130,
	codes.Unknown:            1,
	codes.InvalidArgument:    2,
	codes.DeadlineExceeded:   124,
	codes.NotFound:           3,
	codes.AlreadyExists:      4,
	codes.PermissionDenied:   1,
	codes.ResourceExhausted:  1,
	codes.FailedPrecondition: 4,
	codes.Aborted:            4,
	codes.OutOfRange:         2,
	codes.Unimplemented:      1,
	codes.Internal:           1,
	codes.Unavailable:        5,
	codes.DataLoss:           1,
	codes.Unauthenticated:    1,
}

// refusedWith is a status as the server makes it.
func refusedWith(t *testing.T, code codes.Code, reason, message string) error {
	t.Helper()
	s, err := status.New(code, message).WithDetails(&errdetails.ErrorInfo{Domain: "stint", Reason: reason})
	if err != nil {
		t.Fatal(err)
	}
	return s.Err()
}

// The reason decides, whatever code comes with it, and whether it is about a call or one item of it.
func TestExitCodeOfEveryReason(t *testing.T) {
	g := &globals{server: "example:1"}
	for number, name := range stintv1.Reason_name {
		reason := stintv1.Reason(number)
		if reason == stintv1.Reason_REASON_UNSPECIFIED {
			continue
		}
		want, decided := reasonCodes[reason]
		if !decided {
			t.Errorf("%s has no exit code in this table; decide on one", name)
			continue
		}
		short := strings.TrimPrefix(name, "REASON_")
		call := g.explain(refusedWith(t, codes.DataLoss, short, "it is so"))
		item := g.explain(fmt.Errorf("wrapped: %w", &client.ItemError{Code: codes.DataLoss, Reason: reason, Message: "it is so"}))
		if call.code != want || item.code != want {
			t.Errorf("%s: a call ends with %d, an item with %d, want %d", name, call.code, item.code, want)
		}
		if reason != stintv1.Reason_REASON_SERVER_STOPPING && call.message != short+": it is so" {
			t.Errorf("%s: the line is %q", name, call.message)
		}
	}
}

// Also of an item whose reason is newer than this build, and of a status that another server or a proxy made.
func TestExitCodeOfEveryStatus(t *testing.T) {
	g := &globals{server: "example:1"}
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		want := statusCodes[code]
		for _, err := range []error{status.Error(code, "no"), refusedWith(t, code, "OF_THE_FUTURE", "no"), fmt.Errorf("list: %w", status.Error(code, "no"))} {
			if got := g.explain(err); got.code != want {
				t.Errorf("%v: ends with %d, want %d", err, got.code, want)
			}
		}
		if code == codes.Canceled {
			continue // no item is refused so
		}
		if got := g.explain(&client.ItemError{Code: code, Reason: 4711}); got.code != want {
			t.Errorf("an item with code %s and an unknown reason: ends with %d, want %d", code, got.code, want)
		}
	}
}

func TestExplain(t *testing.T) {
	g := &globals{server: "example:1"}
	for _, test := range []struct {
		err  error
		code int
		line string
	}{
		{usageError("--limit %d: too much", 5), 2, "--limit 5: too much"},
		{fmt.Errorf("wrapped: %w", &exitError{11, "in use"}), 11, "in use"},
		{errors.New("it broke"), 1, "it broke"},
		{context.Canceled, 130, ""},
		{context.DeadlineExceeded, 124, "timed out"},
		{errors.Join(context.DeadlineExceeded, errors.New("and more")), 124, "timed out"},
		{status.Error(codes.Unavailable, "dial tcp: refused"), 5, "no server at example:1; start one with: stint serve"},
		{refusedWith(t, codes.Unavailable, "SERVER_STOPPING", "x"), 5, "the server at example:1 is stopping"},
		{status.Error(codes.Unimplemented, "unknown method"), 1, "unknown method"},
		{errors.Join(status.Error(codes.Unimplemented, "unknown method")), 1, "unknown method"},
		{errors.Join(refusedWith(t, codes.NotFound, "QUEUE_NOT_FOUND", "no queue"), nil), 3, "QUEUE_NOT_FOUND: no queue"},
		{
			&client.ItemError{Code: codes.InvalidArgument, Reason: stintv1.Reason_REASON_INVALID_FIELD, Field: "queue", Message: "is needed"},
			2, "INVALID_FIELD: queue: is needed",
		},
	} {
		var stderr bytes.Buffer
		g.stderr = &stderr
		code := g.report(test.err)
		want := test.line
		if want != "" {
			want += "\n"
		}
		if code != test.code || stderr.String() != want {
			t.Errorf("%v: ended with %d and %q, want %d and %q", test.err, code, stderr.String(), test.code, want)
		}
	}
	if code := g.report(nil); code != 0 {
		t.Errorf("no error: ended with %d", code)
	}
}

// Several refusals of one kind end the command with that kind's code; several kinds with 1.
func TestItemErrors(t *testing.T) {
	missing := &stintv1.ItemError{Code: int32(codes.NotFound), Reason: stintv1.Reason_REASON_JOB_NOT_FOUND, Message: "no job"}
	active := &stintv1.ItemError{Code: int32(codes.FailedPrecondition), Reason: stintv1.Reason_REASON_RUN_ACTIVE, Message: "runs"}
	for _, test := range []struct {
		refused []*stintv1.ItemError
		code    int
		lines   string
	}{
		{nil, 0, ""},
		{[]*stintv1.ItemError{nil, nil}, 0, ""},
		{[]*stintv1.ItemError{missing, nil, missing}, 3, "item 0: JOB_NOT_FOUND: no job\nitem 2: JOB_NOT_FOUND: no job\n"},
		{[]*stintv1.ItemError{missing, active}, 1, "item 0: JOB_NOT_FOUND: no job\nitem 1: RUN_ACTIVE: runs\n"},
	} {
		var stderr bytes.Buffer
		e := itemErrors{g: &globals{stderr: &stderr}}
		for i, refused := range test.refused {
			e.tell(fmt.Sprintf("item %d", i), refused)
		}
		if code := (&globals{stderr: &stderr}).report(e.exit()); code != test.code || stderr.String() != test.lines {
			t.Errorf("%v: ended with %d and %q, want %d and %q", test.refused, code, stderr.String(), test.code, test.lines)
		}
	}
}

func TestOutcomes(t *testing.T) {
	const (
		succeeded = stintv1.JobState_JOB_STATE_SUCCEEDED
		failed    = stintv1.JobState_JOB_STATE_FAILED
		cancelled = stintv1.JobState_JOB_STATE_CANCELLED
		expired   = stintv1.JobState_JOB_STATE_EXPIRED
		parked    = stintv1.JobState_JOB_STATE_PARKED
	)
	for _, test := range []struct {
		ended outcomes
		code  int
		text  string
	}{
		{outcomes{}, 0, ""},
		{outcomes{succeeded: 3}, 0, "3 SUCCEEDED"},
		{outcomes{succeeded: 3, expired: 1}, 8, "3 SUCCEEDED, 1 EXPIRED"},
		{outcomes{expired: 1, cancelled: 2}, 6, "2 CANCELLED, 1 EXPIRED"},
		{outcomes{expired: 1, cancelled: 2, parked: 1}, 7, "1 PARKED, 2 CANCELLED, 1 EXPIRED"},
		{outcomes{expired: 1, cancelled: 2, parked: 1, failed: 1}, 1, "1 PARKED, 1 FAILED, 2 CANCELLED, 1 EXPIRED"},
	} {
		code := (&globals{stderr: &bytes.Buffer{}}).report(test.ended.exit())
		if code != test.code || test.ended.String() != test.text {
			t.Errorf("got %d and %q, want %d and %q", code, test.ended, test.code, test.text)
		}
	}
}

// `stint help exit-codes` tells of every code that any test of this package asks for, and of no other.
func TestExitCodesTopic(t *testing.T) {
	var told []int
	for _, c := range exitCodes {
		told = append(told, c.code)
		if !strings.Contains(ok(t, "help", "exit-codes"), fmt.Sprintf("  %3d  %s\n", c.code, c.means)) {
			t.Errorf("the topic does not tell of %d", c.code)
		}
	}
	if want := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 124, 127, 130}; !slices.Equal(told, want) {
		t.Errorf("the topic tells of %v, want %v", told, want)
	}
}
