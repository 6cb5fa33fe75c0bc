package sidecar

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// shell is the command that runs a script.
func shell(script string) *Command {
	return &Command{Path: "/bin/sh", Args: []string{"-c", script}, Codes: Codes{Release: []int{75}}}
}

// script is a standard error that acts, in order, when a text has been written to it.
type script struct {
	mu      sync.Mutex
	written string
	steps   []step
}

// step is what to do, without blocking, when a text appears.
type step struct {
	text string
	do   func()
}

func (s *script) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written += string(p)
	for len(s.steps) > 0 && strings.Contains(s.written, s.steps[0].text) {
		s.steps[0].do()
		s.steps = s.steps[1:]
	}
	return len(p), nil
}

// interruptWhenReady runs the command and interrupts it when it has written "ready" to standard error.
func interruptWhenReady(t *testing.T, c *Command) Outcome {
	t.Helper()
	interrupts := make(chan Interrupt, 1)
	c.Stderr = &script{steps: []step{{"ready\n", func() { interrupts <- Interrupt{Level: "RETRY", Reason: "make room"} }}}}
	return c.Run(t.Context(), interrupts, Job{})
}

// holders gives the command a standard output whose other end tells when all who held it are gone.
func holders(t *testing.T, c *Command) (allGone func()) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c.Stdout = w
	return func() {
		w.Close()
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Error(err)
		}
		r.Close()
	}
}

func TestOutcomes(t *testing.T) {
	codes := Codes{Fatal: []int{64, 65}, Park: []int{99}, Release: []int{75}}
	failed := func(code int, tail string) Outcome {
		e := Exit{Code: code, StderrTail: tail}
		return Outcome{Kind: Failed, Exit: e, Reason: e.String()}
	}
	final, parked := failed(65, ""), failed(99, "")
	final.Final, parked.Park = true, true
	for _, tc := range []struct {
		name, script string
		want         Outcome
	}{
		{"success", "exit 0", Outcome{Kind: Succeeded, Reason: "exit status 0"}},
		{"success ignores stderr", "echo fine >&2", Outcome{Kind: Succeeded, Exit: Exit{StderrTail: "fine\n"}, Reason: "exit status 0"}},
		{"failure", "echo boom >&2; exit 3", failed(3, "boom\n")},
		{"release", "exit 75", Outcome{Kind: Released, Exit: Exit{Code: 75}, Reason: "exit status 75"}},
		{"final", "exit 65", final},
		{"park", "exit 99", parked},
		{"signal", "kill -9 $$", Outcome{Kind: Failed, Exit: Exit{Code: -1, Signal: "KILL"}, Reason: "killed by signal KILL"}},
		{"code of a shell's child that a signal killed", "sh -c 'kill -9 $$'; exit $?", failed(137, "Killed\n")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := shell(tc.script)
			c.Codes = codes
			if diff := cmp.Diff(tc.want, c.Run(t.Context(), nil, Job{})); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestProgramSeesTheJob(t *testing.T) {
	t.Setenv("TRACEPARENT", "inherited")
	t.Setenv("TRACESTATE", "inherited")
	t.Setenv("STINT_JOB_ID", "inherited")
	t.Setenv("STINT_SECRET", "inherited")
	c := shell("env | grep -e ^STINT_ -e ^TRACE | grep -v _FILE= | sort >&3; cat >&3")
	c.Server = "127.0.0.1:7707"
	job := Job{
		ID: "018f-1", Queue: "media/resize", Run: 2, Fence: 77, Subject: "order/1", Priority: 30,
		Labels: map[string]string{"a": `"b"`}, Payload: []byte("the payload\n"), ContentType: "text/plain",
		Traceparent: "00-1-2-01", Tracestate: "x=y",
	}
	want := `STINT_CONTENT_TYPE=text/plain
STINT_FENCE=77
STINT_JOB_ID=018f-1
STINT_LABELS={"a":"\"b\""}
STINT_PRIORITY=30
STINT_QUEUE=media/resize
STINT_RUN=2
STINT_SERVER=127.0.0.1:7707
STINT_SUBJECT=order/1
TRACEPARENT=00-1-2-01
TRACESTATE=x=y
the payload
`
	if diff := cmp.Diff(want, string(c.Run(t.Context(), nil, job).Result)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	without := string(c.Run(t.Context(), nil, Job{}).Result)
	if strings.Contains(without, "TRACE") || strings.Contains(without, "inherited") {
		t.Errorf("the worker's own trace or job shines through:\n%s", without)
	}
}

func TestResult(t *testing.T) {
	for _, tc := range []struct {
		name, script, want string
	}{
		{"descriptor 3", "printf three >&3", "three"},
		{"file", "printf file >$STINT_RESULT_FILE", "file"},
		{"both are one", "printf a >&3; printf b >>$STINT_RESULT_FILE; printf c >&3", "abc"},
		{"file put in place", "printf new >x$$ && mv x$$ $STINT_RESULT_FILE", "new"},
		{"none", ":", ""},
		{"removed", "rm $STINT_RESULT_FILE", ""},
		{"as large as may be", "head -c 1048576 /dev/zero >&3", strings.Repeat("\x00", MaxResult)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			o := shell(tc.script).Run(t.Context(), nil, Job{})
			if o.Kind != Succeeded || string(o.Result) != tc.want {
				t.Errorf("got %v with %d bytes (%.20q), want %.20q", o.Kind, len(o.Result), o.Result, tc.want)
			}
		})
	}
}

func TestUnusableResultIsAFailure(t *testing.T) {
	for script, want := range map[string]string{
		"head -c 1048577 /dev/zero >&3":                            "the result is larger than 1048576 bytes",
		"rm $STINT_RESULT_FILE; mkdir $STINT_RESULT_FILE":          "the result is not a regular file",
		"rm $STINT_RESULT_FILE; mkfifo $STINT_RESULT_FILE; exit 0": "the result is not a regular file",
	} {
		if o := shell(script).Run(t.Context(), nil, Job{}); o.Kind != Failed || o.Reason != want {
			t.Errorf("%s: got kind %d, reason %q; want a failure with %q", script, o.Kind, o.Reason, want)
		}
	}
}

func TestRunLeavesNoFiles(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	shell("exit 1").Run(t.Context(), nil, Job{Payload: []byte("x")})
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestStderrTail(t *testing.T) {
	o := shell("head -c 100000 /dev/zero | tr '\\0' x >&2; printf end >&2; exit 1").Run(t.Context(), nil, Job{})
	if want := strings.Repeat("x", tailSize-3) + "end"; o.Exit.StderrTail != want {
		t.Errorf("tail has %d bytes and ends %q", len(o.Exit.StderrTail), o.Exit.StderrTail[len(o.Exit.StderrTail)-5:])
	}
}

// brokenWriter is a terminal that was closed.
type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestBrokenTeeDoesNotBlockTheCommand(t *testing.T) {
	c := shell("head -c 1000000 /dev/zero >&2; echo end >&2")
	c.Stderr = brokenWriter{}
	if o := c.Run(t.Context(), nil, Job{}); o.Kind != Succeeded || !strings.HasSuffix(o.Exit.StderrTail, "end\n") {
		t.Errorf("got kind %d, tail %.20q", o.Kind, o.Exit.StderrTail)
	}
}

func TestOutputIsTeed(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	c := shell("echo out; echo err >&2")
	c.Stdout, c.Stderr = w, &stderr
	c.Run(t.Context(), nil, Job{})
	w.Close()
	stdout, err := io.ReadAll(r)
	if err != nil || string(stdout) != "out\n" || stderr.String() != "err\n" {
		t.Errorf("got %q, %q, %v", stdout, &stderr, err)
	}
}

func TestLargePayloadMayStayUnread(t *testing.T) {
	payload := bytes.Repeat([]byte("x"), 3<<20)
	for _, script := range []string{"exit 0", "exec <&-; exit 0", "sleep 1000 & exit 0"} {
		if o := shell(script).Run(t.Context(), nil, Job{Payload: payload}); o.Kind != Succeeded {
			t.Errorf("%s: got %+v", script, o)
		}
	}
}

func TestMissingProgramIsNotTheJobsFault(t *testing.T) {
	c := &Command{Path: "/nonexistent/program"}
	o := c.Run(t.Context(), nil, Job{})
	if o.Kind != NotStarted || !os.IsNotExist(unwrapAll(o.Err)) {
		t.Errorf("got %+v", o)
	}
}

func unwrapAll(err error) error {
	for {
		u, ok := err.(interface{ Unwrap() error })
		if !ok || u.Unwrap() == nil {
			return err
		}
		err = u.Unwrap()
	}
}

func TestInterrupted(t *testing.T) {
	for _, tc := range []struct {
		name, script string
		exit         Exit
	}{
		{
			"dies of the signal", "echo ready >&2; exec sleep 1000",
			Exit{Code: -1, Signal: "TERM", StderrTail: "ready\n"},
		},
		{
			"exit 0 is interrupted too", "trap 'exit 0' TERM; echo ready >&2; while :; do :; done",
			Exit{StderrTail: "ready\n"},
		},
		{
			"a release code is interrupted too", "trap 'exit 75' TERM; echo ready >&2; while :; do :; done",
			Exit{Code: 75, StderrTail: "ready\n"},
		},
		{
			"reads why", "trap 'cat $STINT_INTERRUPT_FILE >&2; exit 0' TERM; echo ready >&2; while :; do :; done",
			Exit{StderrTail: "ready\nRETRY\nmake room\n"},
		},
		{
			"a result that is not the end", "trap 'exit 1' TERM; echo half >&3; echo ready >&2; while :; do :; done",
			Exit{Code: 1, StderrTail: "ready\n"},
		},
		{
			"a result that comes after the signal", "trap 'echo late >&3; exit 0' TERM; echo ready >&2; while :; do :; done",
			Exit{StderrTail: "ready\n"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := interruptWhenReady(t, shell(tc.script))
			want := Outcome{Kind: Interrupted, Reason: "make room", Exit: tc.exit}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestResultBeforeTheSignalIsASuccess(t *testing.T) {
	script := "trap 'exit 0' TERM; echo done >&3; echo ready >&2; while :; do :; done"
	o := interruptWhenReady(t, shell(script))
	if o.Kind != Succeeded || string(o.Result) != "done\n" {
		t.Errorf("got %+v", o)
	}
}

func TestGraceEndsWithAKill(t *testing.T) {
	c := shell("trap '' TERM; echo ready >&2; while :; do :; done")
	c.Grace = 50 * time.Millisecond
	allGone := holders(t, c)
	o := interruptWhenReady(t, c)
	if o.Kind != Interrupted || o.Exit.Signal != "KILL" {
		t.Errorf("got %+v", o)
	}
	allGone()
}

// A shell dies of SIGTERM at once; what it has started has the grace all the same.
func TestGraceIsTheWholeGroups(t *testing.T) {
	c := shell(`sh -c 'trap "sleep 0.3; echo cleaned >&2; exit" TERM; echo ready >&2; while :; do :; done'; echo never >&2`)
	o := interruptWhenReady(t, c)
	tail := o.Exit.StderrTail
	if o.Kind != Interrupted || o.Exit.Signal != "TERM" || tail != "ready\ncleaned\n" {
		t.Errorf("got %+v with %q", o, tail)
	}
}

func TestLostRunIsKilledAtOnce(t *testing.T) {
	c := shell("trap 'echo asked >&2' TERM; (trap '' TERM; echo ready >&2; sleep 1000) & wait; sleep 1000")
	c.Grace = time.Hour
	ctx, lose := context.WithCancel(t.Context())
	c.Stderr = &script{steps: []step{{"ready\n", lose}, {"asked\n", func() { t.Error("it got a SIGTERM first") }}}}
	allGone := holders(t, c)
	if diff := cmp.Diff(Outcome{Kind: Lost}, c.Run(ctx, nil, Job{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	allGone()
}

func TestGraceEndsWhenTheRunIsLost(t *testing.T) {
	c := shell("trap 'echo asked >&2' TERM; echo ready >&2; while :; do :; done")
	c.Grace = time.Hour
	ctx, lose := context.WithCancel(t.Context())
	interrupts := make(chan Interrupt, 1)
	c.Stderr = &script{steps: []step{{"ready\n", func() { interrupts <- Interrupt{Level: "RETRY"} }}, {"asked\n", lose}}}
	allGone := holders(t, c)
	if diff := cmp.Diff(Outcome{Kind: Lost}, c.Run(ctx, interrupts, Job{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	allGone()
}

func TestNothingOfTheGroupOutlivesTheRun(t *testing.T) {
	c := shell("(trap '' TERM HUP; sleep 1000) & exit 0")
	allGone := holders(t, c)
	if o := c.Run(t.Context(), nil, Job{}); o.Kind != Succeeded {
		t.Errorf("got %+v", o)
	}
	allGone()
}

// A daemon that left the group keeps standard error open and lives on.
func TestDaemonDoesNotHoldUpTheRun(t *testing.T) {
	if _, err := exec.LookPath("setsid"); err != nil {
		t.Fatal("this test needs setsid (util-linux)")
	}
	c := shell("mkfifo $1; setsid sh -c 'echo up >$0; exec cat $0' $1 & cat $1; exit 4")
	fifo := t.TempDir() + "/fifo"
	c.Args = append(c.Args, "sh", fifo)
	o := c.Run(t.Context(), nil, Job{})
	if o.Kind != Failed || o.Exit.Code != 4 {
		t.Errorf("got %+v", o)
	}
	// The write succeeds only when the daemon reads, and lets it end.
	if err := os.WriteFile(fifo, nil, 0o600); err != nil {
		t.Error(err)
	}
}

func TestCodesValidate(t *testing.T) {
	for _, tc := range []struct {
		codes Codes
		want  string
	}{
		{Codes{Fatal: []int{1}, Park: []int{2}, Release: []int{255}}, ""},
		{Codes{Fatal: []int{0}}, "exit code 0: want 1 to 255"},
		{Codes{Release: []int{256}}, "exit code 256: want 1 to 255"},
		{Codes{Fatal: []int{7}, Park: []int{7}}, "exit code 7 is given two meanings"},
	} {
		got := ""
		if err := tc.codes.Validate(); err != nil {
			got = err.Error()
		}
		if got != tc.want {
			t.Errorf("%+v: got %q, want %q", tc.codes, got, tc.want)
		}
	}
}
