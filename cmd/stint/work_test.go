package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

func TestWorkRefuses(t *testing.T) {
	server := at(t)
	for args, says := range map[string]string{
		"":                             "want: stint work QUEUE... -- COMMAND [ARG...]",
		"q":                            "want: stint work QUEUE... -- COMMAND [ARG...]",
		"q --":                         "want: stint work QUEUE... -- COMMAND [ARG...]",
		"-- true":                      "want: stint work QUEUE... -- COMMAND [ARG...]",
		"q q -- true":                  "a queue is named twice",
		"q --concurrency 0 -- true":    "--concurrency 0: want 1 to 4096",
		"q --concurrency 4097 -- true": "--concurrency 4097: want 1 to 4096",
		"q --max-runs -1 -- true":      "--max-runs -1: want 0 or more",
		"q --grace 0s -- true":         "--grace and --snooze must be positive",
		"q --snooze=-1s -- true":       "--grace and --snooze must be positive",
		"q --fail-code 75 -- true":     "exit code 75 is given two meanings",
		"q --park-code 256 -- true":    "exit code 256: want 1 to 255",
		"q --release-code 0 -- true":   "exit code 0: want 1 to 255",
		"q --label colour -- true":     "--label \"colour\": want key=value",
		"Q --timeout 1m -- true":       "INVALID_FIELD: pools[0].queues[0]: ",
		"q --timeout=-1s -- true":      "--timeout",
		"q --name " + strings.Repeat("x", 201) + " --timeout 1m -- true": "INVALID_FIELD: hello.worker: ",
	} {
		wantCode(t, stint(t, "", append([]string{server, "work"}, strings.Fields(args)...)...), 2, says)
	}
}

// A program that this host lacks is this host's fault: no job pays for it.
func TestWorkWithoutProgram(t *testing.T) {
	server := at(t)
	id := submit(t, server, "q")
	wantCode(t, stint(t, "", server, "work", "q", "--", "/no/such/program"), 127, "; nothing was claimed")
	if job := get(t, dial(t, server), id); job.GetRunCount() != 0 || job.GetState() != stintv1.JobState_JOB_STATE_READY {
		t.Errorf("the job is %s after %d runs", job.GetState(), job.GetRunCount())
	}

	// One that is there and cannot be started gives the job to another worker.
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("#!/no/such/interpreter\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	wantCode(t, stint(t, "", server, "work", "q", "--max-runs", "1", "--timeout", "1m", "--", program), 0, "1 runs, 1 outcomes recorded")
	job := get(t, dial(t, server), id)
	if job.GetState() != stintv1.JobState_JOB_STATE_READY || job.GetHistory()[0].GetState() != stintv1.RunState_RUN_STATE_RELEASED ||
		job.GetCounters().GetAttempts() != 0 {
		t.Errorf("the job: %v", job)
	}
}

// What a program's end means for its job.
func TestWorkOutcomes(t *testing.T) {
	server := at(t)
	c := dial(t, server)
	type end struct {
		state  string
		park   string
		kind   string // of the failure
		exit   *stintv1.ProcessExit
		result string
	}
	ends := map[string]end{
		"echo $STINT_QUEUE $STINT_SUBJECT $STINT_RUN >&3": {state: "SUCCEEDED", result: "q order/1 1\n"},
		"exit 0":                           {state: "SUCCEEDED"},
		"echo oops >&2; exit 1":            {state: "FAILED", kind: "exit", exit: &stintv1.ProcessExit{ExitCode: 1, StderrTail: "oops\n"}},
		"exit 3":                           {state: "FAILED", kind: "exit", exit: &stintv1.ProcessExit{ExitCode: 3}},
		"exit 4":                           {state: "PARKED", park: "WORKER", kind: "exit", exit: &stintv1.ProcessExit{ExitCode: 4}},
		"exit 5":                           {state: "SCHEDULED"},
		"kill -KILL $$":                    {state: "FAILED", kind: "signal", exit: &stintv1.ProcessExit{Signal: "KILL"}},
		"test \"$(cat)\" = \"$1\"; exit 0": {state: "SUCCEEDED"},
	}
	ids := map[string]string{}
	for script := range ends {
		attempts := "1"
		if script == "exit 3" {
			attempts = "9" // it is final all the same
		}
		ids[script] = submit(t, server, "q", "--data", script, "--subject", "order/1", "--max-attempts", attempts)
	}
	got := stint(t, "", server, "work", "q", "other", "--until-empty", "--concurrency", "3", "--timeout", "1m",
		"--fail-code", "3", "--park-code", "4", "--release-code", "5", "--snooze", "1h", "--", "sh", "-c", `eval "$(cat)"`)
	wantCode(t, got, 0, "8 runs, 8 outcomes recorded\n")
	for script, want := range ends {
		job := get(t, c, ids[script])
		is := end{
			state: stateName(job.GetState()), kind: job.GetFailure().GetType(), exit: job.GetFailure().GetProcess(),
			result: string(job.GetResult().GetData()),
		}
		if job.GetState() == stintv1.JobState_JOB_STATE_PARKED {
			is.park = name(job.GetParkReason(), "PARK_REASON_")
		}
		same := func(a, b *stintv1.ProcessExit) bool {
			return (a.GetSignal() != "" || a.GetExitCode() == b.GetExitCode()) && a.GetSignal() == b.GetSignal() && a.GetStderrTail() == b.GetStderrTail()
		}
		if diff := cmp.Diff(want, is, cmp.AllowUnexported(end{}), cmp.Comparer(same)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", script, diff)
		}
	}
	if due := get(t, c, ids["exit 5"]).GetDueTime().AsTime(); time.Until(due) < 50*time.Minute || time.Until(due) > 70*time.Minute {
		t.Errorf("a job given back for an hour is due at %s", due)
	}
}

// --until-empty outlasts the time between two attempts; --max-runs leaves what it does not want.
func TestWorkEnds(t *testing.T) {
	server := at(t)
	ok(t, server, "queue", "set", "flaky", "--retry-initial", "500ms")
	id := submit(t, server, "flaky", "--data", filepath.Join(t.TempDir(), "tried"))
	got := stint(t, "", server, "work", "flaky", "--until-empty", "--timeout", "1m", "--", "sh", "-c", `f=$(cat); test -e "$f" || { touch "$f"; exit 1; }`)
	wantCode(t, got, 0, "2 runs, 2 outcomes recorded\n")
	if job := get(t, dial(t, server), id); job.GetState() != stintv1.JobState_JOB_STATE_SUCCEEDED {
		t.Errorf("the job is %s", job.GetState())
	}

	for range 3 {
		submit(t, server, "three")
	}
	got = stint(t, "", server, "work", "three", "--max-runs", "2", "--concurrency", "3", "--timeout", "1m", "--", "true")
	wantCode(t, got, 0, "2 runs, 2 outcomes recorded\n")
	if out := ok(t, server, "queue", "get", "three"); !strings.Contains(squeeze(out), "\nREADY 1\n") || !strings.Contains(squeeze(out), "\nSUCCEEDED 2\n") {
		t.Errorf("left:\n%s", out)
	}
	wantCode(t, stint(t, "", server, "work", "nothing", "--timeout", "100ms", "--", "true"), 124, "timed out\n")
}

// A signal to the worker ends the program at once and costs the job no attempt.
func TestWorkStops(t *testing.T) {
	t.Parallel()
	server := at(t)
	c := dial(t, server)
	id := submit(t, server, "q")
	ctx, signal := context.WithCancel(t.Context())
	ended := make(chan ran, 1)
	go func() { ended <- stintUntil(ctx, "", server, "work", "q", "--grace", "1m", "--", "sleep", "60") }()
	awaitAccepted(t, c, id)
	signal()
	wantCode(t, <-ended, 0, "1 runs, 1 outcomes recorded\n")
	job := get(t, c, id)
	if job.GetState() != stintv1.JobState_JOB_STATE_SCHEDULED || job.GetCounters().GetAttempts() != 0 || job.GetCounters().GetInterrupts() != 1 {
		t.Errorf("the job is %s with %v", job.GetState(), job.GetCounters())
	}
	if run := job.GetHistory()[0]; run.GetEndTime().AsTime().Sub(run.GetDispatchTime().AsTime()) > 30*time.Second {
		t.Errorf("the program ended only with its grace: %v", run)
	}
}

// A cancelled job's program gets SIGTERM, with the reason to read, and SIGKILL when it does not go.
func TestWorkCancel(t *testing.T) {
	t.Parallel()
	server := at(t)
	c := dial(t, server)
	polite := submit(t, server, "q", "--lease", "5s", "--data", `trap 'cat "$STINT_INTERRUPT_FILE" >&2; exit 9' TERM; sleep 60 & wait`)
	stubborn := submit(t, server, "q", "--lease", "5s", "--data", `trap '' TERM; sleep 60; sleep 60`)
	ended := make(chan ran, 1)
	go func() {
		ended <- stintUntil(t.Context(), "", server, "work", "q", "--concurrency", "2", "--max-runs", "2", "--grace", "200ms", "--", "sh", "-c", `eval "$(cat)"`)
	}()
	awaitAccepted(t, c, polite)
	awaitAccepted(t, c, stubborn)
	ok(t, server, "job", "interrupt", "--level", "cancel", "--reason", "wrong file", polite, stubborn)
	wantCode(t, <-ended, 0, "2 runs, 2 outcomes recorded\n")
	for _, id := range []string{polite, stubborn} {
		if job := get(t, c, id); job.GetState() != stintv1.JobState_JOB_STATE_CANCELLED {
			t.Errorf("the job is %s", job.GetState())
		}
	}
}

// awaitAccepted returns when a worker has accepted a run of the job.
func awaitAccepted(t *testing.T, c *client.Client, id string) {
	t.Helper()
	stream, err := c.Jobs().WaitJob(t.Context(), &stintv1.WaitJobRequest{Id: id, Until: stintv1.WaitUntil_WAIT_UNTIL_ACCEPTED})
	if err != nil {
		t.Fatal(err)
	}
	for {
		if answer, err := stream.Recv(); err != nil {
			t.Fatal(err)
		} else if answer.GetReached() {
			return
		}
	}
}

// With --tee people see what the programs write.
func TestWorkTee(t *testing.T) {
	server := at(t)
	submit(t, server, "q")
	file, err := os.Create(filepath.Join(t.TempDir(), "terminal"))
	if err != nil {
		t.Fatal(err)
	}
	stdout, stderr := os.Stdout, os.Stderr
	os.Stdout, os.Stderr = file, file
	got := stint(t, "", server, "work", "q", "--until-empty", "--timeout", "1m", "--tee", "--", "sh", "-c", "echo out; echo err >&2")
	os.Stdout, os.Stderr = stdout, stderr
	wantCode(t, got, 0, "1 runs, 1 outcomes recorded\n")
	text, err := os.ReadFile(file.Name())
	if err != nil || string(text) != "out\nerr\n" {
		t.Errorf("shown: %q, %v", text, err)
	}
}
