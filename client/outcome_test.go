package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

func TestOutcome(t *testing.T) {
	plain := errors.New("broken")
	missing := &fs.PathError{Op: "open", Path: "/x", Err: syscall.ENOENT}
	exit := &stintv1.Failure{Type: "exit", Message: "exit status 3", Process: &stintv1.ProcessExit{ExitCode: 3}}
	failure := failed
	released := func(r *stintv1.Released) *stintv1.Finish {
		return &stintv1.Finish{Outcome: &stintv1.Finish_Released{Released: r}}
	}
	interruption := func(i *stintv1.Interrupted) *stintv1.Finish {
		return &stintv1.Finish{Outcome: &stintv1.Finish_Interrupted{Interrupted: i}}
	}
	for name, test := range map[string]struct {
		err, cause error
		want       *stintv1.Finish
	}{
		"plain": {err: plain, want: failure(&stintv1.Failure{Type: "error", Message: "broken"})},
		"typed and wrapped": {
			err: fmt.Errorf("loading: %w", missing),
			want: failure(&stintv1.Failure{
				Type: "fs.PathError", Message: "loading: open /x: no such file or directory", Causes: []*stintv1.FailureCause{
					{Type: "fs.PathError", Message: "open /x: no such file or directory"},
					{Type: "syscall.Errno", Message: "no such file or directory"},
				},
			}),
		},
		"several parts": {
			err: errors.Join(plain, errors.New("torn")),
			want: failure(&stintv1.Failure{Type: "error", Message: "broken\ntorn", Causes: []*stintv1.FailureCause{
				{Type: "error", Message: "broken"}, {Type: "error", Message: "torn"},
			}}),
		},
		"final":          {err: Final(plain), want: failure(&stintv1.Failure{Type: "error", Message: "broken", Final: true})},
		"park":           {err: Park(plain), want: failure(&stintv1.Failure{Type: "error", Message: "broken", Park: true})},
		"infrastructure": {err: Infrastructure(plain), want: failure(&stintv1.Failure{Type: "error", Message: "broken", Class: 2})},
		"timeout":        {err: Timeout(plain), want: failure(&stintv1.Failure{Type: "error", Message: "broken", Class: 3})},
		"malformed":      {err: Malformed(plain), want: failure(&stintv1.Failure{Type: "error", Message: "broken", Class: 4})},
		"combined; the outermost class wins": {
			err:  fmt.Errorf("x: %w", Infrastructure(RetryAfter(Malformed(plain), time.Minute))),
			want: failure(&stintv1.Failure{Type: "error", Message: "x: broken", Class: 2, RetryDelay: seconds(60), Causes: []*stintv1.FailureCause{{Type: "error", Message: "broken"}}}),
		},
		"in full": {
			err:  Final(fmt.Errorf("convert: %w", WithFailure(exit))),
			want: failure(&stintv1.Failure{Type: "exit", Message: "convert: exit status 3", Process: &stintv1.ProcessExit{ExitCode: 3}, Final: true}),
		},
		"not UTF-8": {err: errors.New("a\xffb"), want: failure(&stintv1.Failure{Type: "error", Message: "a\uFFFDb"})},
		"released": {
			err:  fmt.Errorf("x: %w", Release(time.Minute, "busy")),
			want: released(&stintv1.Released{Reason: "busy", Delay: seconds(60), Kind: &stintv1.Released_Snooze{Snooze: &stintv1.Snooze{}}}),
		},
		"released, when the server likes": {
			err:  Release(0, "busy"),
			want: released(&stintv1.Released{Reason: "busy", Kind: &stintv1.Released_Snooze{Snooze: &stintv1.Snooze{}}}),
		},
		"not me": {
			err:  NotMe("no gpu"),
			want: released(&stintv1.Released{Reason: "no gpu", Kind: &stintv1.Released_NotMe{NotMe: &stintv1.NotMe{}}}),
		},
		"interrupted by itself":    {err: Interrupted("tired"), want: interruption(&stintv1.Interrupted{Reason: "tired"})},
		"interrupted with a delay": {err: Interrupted("tired", time.Hour), want: interruption(&stintv1.Interrupted{Reason: "tired", Delay: seconds(3600)})},
		"a reason too long": {
			err:  Interrupted(strings.Repeat("ä", 600)),
			want: interruption(&stintv1.Interrupted{Reason: strings.Repeat("ä", 512)}),
		},
		"cancelled by somebody else": {err: context.Canceled, want: failure(&stintv1.Failure{Type: "error", Message: "context canceled"})},
		"interrupted": {
			err: context.Canceled, cause: &InterruptError{Level: 2, Reason: "no more", Source: SourceUser},
			want: interruption(&stintv1.Interrupted{Reason: "no more"}),
		},
		"nil is a success": {want: &stintv1.Finish{Outcome: plainSuccess}},
	} {
		t.Run(name, func(t *testing.T) {
			got := outcome(&Run{}, test.err, test.cause)
			if diff := cmp.Diff(test.want, got, protocmp.Transform()); diff != "" {
				t.Errorf("outcome (-want +got):\n%s", diff)
			}
			if _, err := proto.Marshal(got); err != nil {
				t.Errorf("Marshal: %v", err)
			}
		})
	}
	if exit.Final {
		t.Error("a mark changed the caller's failure")
	}
}

func TestMarksAreTransparent(t *testing.T) {
	for name, mark := range map[string]func(error) error{
		"Final": Final, "Park": Park, "Infrastructure": Infrastructure, "Malformed": Malformed, "Timeout": Timeout,
		"RetryAfter": func(err error) error { return RetryAfter(err, time.Second) },
	} {
		if mark(nil) != nil {
			t.Errorf("%s(nil) is not nil", name)
		}
		if !errors.Is(mark(fs.ErrNotExist), fs.ErrNotExist) {
			t.Errorf("%s hides the error", name)
		}
	}
}

// FuzzFailureOf: whatever a handler says, it fits into a message.
func FuzzFailureOf(f *testing.F) {
	f.Add("broken", 3)
	f.Add("\xff\xfe", 40)
	f.Add(strings.Repeat("ä", 40000), 1)
	f.Fuzz(func(t *testing.T, text string, depth int) {
		err := errors.New(text)
		for range min(max(depth, 0), 100) {
			err = fmt.Errorf("%s: %w", text[:min(len(text), 10)], Final(err))
		}
		failure := failureOf(err)
		raw, marshalErr := proto.Marshal(failure)
		if marshalErr != nil || len(raw) > maxText+maxCauses*2400+4096 || !utf8.ValidString(failure.Message) {
			t.Errorf("failureOf(%q) is %d bytes, %v", text, len(raw), marshalErr)
		}
	})
}
