//go:build blackbox

package blackbox

import (
	"strings"
	"syscall"
	"testing"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// claim claims a queue's job as a worker that calls, and accepts it. It returns the lease token.
func claim(t *testing.T, c *client.Client, queue string) string {
	t.Helper()
	answer, err := c.Workers().ClaimJobs(t.Context(), &stintv1.ClaimJobsRequest{
		Worker: "caller", Queues: []string{queue}, Wait: durationpb.New(patience),
	})
	if err != nil || len(answer.GetAssignments()) != 1 {
		t.Fatalf("claimed %v, %v", answer, err)
	}
	token := answer.GetAssignments()[0].GetLeaseToken()
	if _, err := heartbeat(t, c, token); err != nil {
		t.Fatal(err)
	}
	return token
}

func heartbeat(t *testing.T, c *client.Client, token string) (*stintv1.Verdict, error) {
	t.Helper()
	answer, err := c.Workers().HeartbeatRuns(t.Context(), &stintv1.HeartbeatRunsRequest{LeaseTokens: []string{token}})
	if err != nil {
		return nil, err
	}
	return answer.GetVerdicts()[0], nil
}

// wantAbandoned checks that a job was left behind at the hard deadline of a cancel.
func wantAbandoned(t *testing.T, job *stintv1.Job) {
	t.Helper()
	run := job.GetHistory()[0]
	if job.GetState() != stintv1.JobState_JOB_STATE_CANCELLED || run.GetState() != stintv1.RunState_RUN_STATE_ABANDONED ||
		run.GetInterrupt().GetEnd() != stintv1.InterruptEnd_INTERRUPT_END_ABANDONED {
		t.Errorf("the job is %v, its run %v under %v, want CANCELLED and ABANDONED", job.GetState(), run.GetState(), run.GetInterrupt())
	}
	if hard := run.GetInterrupt().GetHardDeadlineTime(); hard == nil || run.GetEndTime().AsTime().Before(hard.AsTime()) {
		t.Errorf("the run was left behind at %v, want not before its hard deadline, %v", run.GetEndTime().AsTime(), hard.AsTime())
	}
}

// TestHardDeadline leaves behind a worker that calls and goes on: it is told to stop, and what it brings is too late.
func TestHardDeadline(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	c := s.client()
	id := s.submit("q", "x")
	token := claim(t, c, "q")
	s.must("job", "interrupt", "--level", "cancel", "--grace", "1s", "--hard-deadline", "5s", "--reason", "enough", id)
	if v, err := heartbeat(t, c, token); err != nil || v.GetInterrupt().GetReason() != "enough" {
		t.Errorf("the worker is told %v (%v), want the interrupt", v, err)
	}
	if r := s.run("job", "wait", id); r.code != 6 || !strings.Contains(r.stderr, "is CANCELLED: enough\n") {
		t.Errorf("job wait: %+v, want 6", r)
	}
	wantAbandoned(t, s.job(id))
	if v, err := heartbeat(t, c, token); err != nil || v.GetAction() != stintv1.VerdictAction_VERDICT_ACTION_STOP {
		t.Errorf("the worker is told %v (%v), want STOP", v, err)
	}
	if shown := s.must("queue", "set", "q", "--max-running", "1"); !strings.Contains(shown, "left behind at their hard deadline") {
		t.Errorf("the queue does not show what was left behind:\n%s", shown)
	}
	next := s.submit("q", "y")
	s.signal(syscall.SIGKILL)
	s.end(promise)
	s = s.again()
	c = s.client()
	if state := s.job(next).GetState(); state != stintv1.JobState_JOB_STATE_READY {
		t.Errorf("the next job is %v, want READY until the worker lets go", state)
	}
	if got, err := c.Workers().ClaimJobs(t.Context(), &stintv1.ClaimJobsRequest{Worker: "other", Queues: []string{"q"}}); err != nil || len(got.GetAssignments()) != 0 {
		t.Errorf("beside what was left behind began %v (%v)", got, err)
	}
	late, err := c.Workers().FinishRuns(t.Context(), &stintv1.FinishRunsRequest{Finishes: []*stintv1.Finish{
		{LeaseToken: token, Outcome: &stintv1.Finish_Success{Success: &stintv1.Success{}}},
	}})
	if err != nil || late.GetAcks()[0].GetStatus() != stintv1.FinishStatus_FINISH_STATUS_SUPERSEDED {
		t.Errorf("the late success is answered %v (%v), want SUPERSEDED", late, err)
	}
	claim(t, c, "q")
	if shown := s.must("job", "get", id); !strings.Contains(shown, "ABANDONED after ") || !strings.Contains(shown, "INTERRUPT_CANCEL") {
		t.Errorf("job get does not show what became of the interrupt and who asked for it:\n%s", shown)
	}
}

// TestHardDeadlineOfAFrozenWorker leaves behind a `stint work` that hears nothing. When it wakes its command is killed,
// although that ignores SIGTERM.
func TestHardDeadlineOfAFrozenWorker(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	worker := s.work("q", []string{"--max-runs", "1"}, `trap : TERM; echo pid $$; while :; do sleep 1; done`)
	id := s.submit("q", "x")
	command := watch(t, worker.word("pid"))
	s.accepted(s.client(), id)
	worker.signal(syscall.SIGSTOP)
	s.must("job", "interrupt", "--level", "cancel", "--grace", "1s", "--hard-deadline", "1s", id)
	if r := s.run("job", "wait", id); r.code != 6 {
		t.Errorf("job wait: %+v, want 6", r)
	}
	wantAbandoned(t, s.job(id))
	worker.signal(syscall.SIGCONT)
	command.await(promise)
	if code := worker.end(patience); code != 0 {
		t.Errorf("the worker ended with %d", code)
	}
}

// TestResultBeforeTheCancel counts: a cancel does not undo what was done when its signal came.
func TestResultBeforeTheCancel(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	worker := s.work("q", []string{"--max-runs", "1"}, `trap 'exit 0' TERM; echo done >&3; echo ready $$; while :; do sleep 1; done`)
	id := s.submit("q", "x")
	worker.word("ready")
	s.accepted(s.client(), id)
	s.must("job", "interrupt", "--level", "cancel", id)
	if r := s.run("job", "wait", id); r.code != 0 {
		t.Errorf("job wait: %+v, want 0", r)
	}
	job := s.job(id)
	if end := job.GetHistory()[0].GetInterrupt().GetEnd(); end != stintv1.InterruptEnd_INTERRUPT_END_COMPLETED || string(job.GetResult().GetData()) != "done\n" {
		t.Errorf("the interrupt ended %v and the result is %q, want COMPLETED with what was written", end, job.GetResult().GetData())
	}
}

// TestEscalation raises an interrupt: the command gets a second signal and finds the higher level in its file, with the
// grace that ends first.
func TestEscalation(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	worker := s.work("q", []string{"--max-runs", "1"}, `
		trap 'echo file $(cat $STINT_INTERRUPT_FILE)' TERM
		echo ready $$; while :; do sleep 0.1; done`)
	id := s.submit("q", "x")
	worker.word("ready")
	s.accepted(s.client(), id)
	s.must("job", "interrupt", "--level", "retry", "--grace", "10m", "--reason", "first", id)
	if got := worker.word("file"); got != "RETRY first" {
		t.Errorf("the interrupt file says %q", got)
	}
	s.must("job", "wait", "--until", "interrupt-acknowledged", id)
	if r := s.run("job", "interrupt", "--level", "retry", "--grace", "20m", id); r.code != 0 || !strings.Contains(r.stdout, "UNCHANGED") {
		t.Errorf("a repeat of the interrupt: %+v, want UNCHANGED", r)
	}
	s.must("job", "interrupt", "--level", "cancel", "--grace", "1s", "--reason", "second", id)
	if got := worker.word("file CANCEL"); got != "second" {
		t.Errorf("the interrupt file says CANCEL for %q", got)
	}
	if r := s.run("job", "wait", id); r.code != 6 {
		t.Errorf("job wait: %+v, want 6", r)
	}
	if run := s.job(id).GetHistory()[0]; run.GetState() != stintv1.RunState_RUN_STATE_INTERRUPTED {
		t.Errorf("the run is %v, want INTERRUPTED: it was killed after the grace, long before the hard deadline", run.GetState())
	}
}

// TestGraceCutShort: a second interrupt of the same level may end the first one's grace.
func TestGraceCutShort(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	worker := s.work("q", []string{"--max-runs", "1"}, `trap : TERM; echo ready $$; while :; do sleep 0.1; done`)
	id := s.submit("q", "x")
	worker.word("ready")
	s.accepted(s.client(), id)
	s.must("job", "interrupt", "--level", "retry", "--grace", "10m", id)
	s.must("job", "wait", "--until", "interrupt-acknowledged", id)
	s.must("job", "interrupt", "--level", "retry", "--grace", "0s", id)
	if code := worker.end(patience); code != 0 {
		t.Errorf("the worker ended with %d", code)
	}
	if run := s.job(id).GetHistory()[0]; run.GetState() != stintv1.RunState_RUN_STATE_INTERRUPTED || run.GetInterrupt().GetGeneration() != 2 {
		t.Errorf("the run is %v, want INTERRUPTED by the second interrupt", run)
	}
}

// TestLeaseIsLostInTheGrace kills a command that has its grace when the server may have given its job to somebody else.
func TestLeaseIsLostInTheGrace(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	s.must("queue", "set", "q", "--lease", "5s")
	worker := s.work("q", []string{"--max-runs", "1"}, `trap : TERM; echo pid $$; while :; do sleep 0.1; done`)
	id := s.submit("q", "x")
	command := watch(t, worker.word("pid"))
	s.accepted(s.client(), id)
	s.must("job", "interrupt", "--level", "retry", "--grace", "10m", id)
	s.must("job", "wait", "--until", "interrupt-acknowledged", id)
	s.signal(syscall.SIGSTOP)
	command.await(patience)
	s.signal(syscall.SIGCONT)
	if code := worker.end(patience); code != 0 {
		t.Errorf("the worker ended with %d", code)
	}
}

// TestDrainedWorkerWaits: a worker that drains ends when its commands have, as long as these have their grace.
func TestDrainedWorkerWaits(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	worker := s.work("q", []string{"--grace", "20s"}, `trap 'sleep 7; exit' TERM; echo ready $$; while :; do sleep 0.1; done`)
	id := s.submit("q", "x")
	worker.word("ready")
	s.accepted(s.client(), id)
	s.must("worker", "drain", "--grace", "0s", s.job(id).GetRun().GetInstanceId())
	if code := worker.end(patience); code != 0 {
		t.Errorf("the drained worker ended with %d", code)
	}
	if run := s.job(id).GetHistory()[0]; run.GetState() != stintv1.RunState_RUN_STATE_INTERRUPTED || run.GetInterrupt().GetRequester() == "" {
		t.Errorf("its run is %v, want INTERRUPTED by a drain that somebody asked for", run)
	}
}

// TestDrainedWorker is interrupted at what it still holds after the grace; the job comes back.
func TestDrainedWorker(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	worker := s.work("q", nil, `trap 'echo file $(cat $STINT_INTERRUPT_FILE); exit' TERM; echo ready $$; while :; do sleep 0.1; done`)
	id := s.submit("q", "x")
	worker.word("ready")
	s.accepted(s.client(), id)
	s.accepted(s.client(), id)
	s.must("worker", "drain", "--grace", "1s", "--reason", "new kernel", s.job(id).GetRun().GetInstanceId())
	if got := worker.word("file"); !strings.HasPrefix(got, "RETRY") || !strings.Contains(got, "new kernel") {
		t.Errorf("the interrupt file says %q, want RETRY and why", got)
	}
	if code := worker.end(patience); code != 0 {
		t.Errorf("the drained worker ended with %d", code)
	}
	job := s.job(id)
	run := job.GetHistory()[0]
	if job.GetState() != stintv1.JobState_JOB_STATE_SCHEDULED || run.GetState() != stintv1.RunState_RUN_STATE_INTERRUPTED ||
		run.GetInterrupt().GetSource() != stintv1.InterruptSource_INTERRUPT_SOURCE_DRAIN || job.GetCounters().GetInterrupts() != 1 {
		t.Errorf("the job is %v with %v, its run %v under %v, want SCHEDULED by one interrupt of the drain",
			job.GetState(), job.GetCounters(), run.GetState(), run.GetInterrupt())
	}
	if shown := s.must("job", "get", id); !strings.Contains(shown, "interrupted: RETRY by DRAIN") {
		t.Errorf("job get does not show the drain:\n%s", shown)
	}
}

// TestRunTimeout interrupts a run that takes too long. However it ends then, but for a success, is a failure.
func TestRunTimeout(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	worker := s.work("q", nil, `trap 'echo signal TERM; exit 0' TERM; while :; do sleep 0.1; done`)
	id := s.submit("q", "x", "--run-timeout", "1s", "--max-attempts", "1")
	worker.word("signal")
	if r := s.run("job", "wait", id); r.code != 1 {
		t.Errorf("job wait: %+v, want 1", r)
	}
	job := s.job(id)
	run := job.GetHistory()[0]
	if job.GetFailure().GetClass() != stintv1.FailureClass_FAILURE_CLASS_TIMEOUT || job.GetCounters().GetAttempts() != 1 ||
		job.GetCounters().GetInterrupts() != 0 || run.GetInterrupt().GetSource() != stintv1.InterruptSource_INTERRUPT_SOURCE_TIMEOUT {
		t.Errorf("the failure is %v with %v under %v, want class TIMEOUT and one attempt", job.GetFailure(), job.GetCounters(), run.GetInterrupt())
	}
}

// TestInterruptRefusals shows what is refused of interrupts and retries, with the codes that scripts rely on.
func TestInterruptRefusals(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	c := s.client()
	ended, running := s.submit("ended", "x"), s.submit("q", "x")
	s.must("work", "ended", "--until-empty", "--", "true")
	claim(t, c, "q")
	s.must("job", "interrupt", "--level", "cancel", "--grace", "1h", running)
	for _, test := range []struct {
		code int
		args string
		says string
	}{
		{2, "interrupt --level none " + running, `--level "none": want one of retry, cancel`},
		{2, "interrupt --level kill " + running, `--level "kill": want one of retry, cancel`},
		{2, "interrupt --level cancel --grace 25h " + running, "INVALID_FIELD: grace: "},
		{2, "interrupt --level cancel --grace 2s --hard-deadline 1s " + running, "INVALID_FIELD: hard_deadline: "},
		{2, "interrupt --level cancel --queue *", "set all"},
		{2, "retry --queue *", "set all"},
		{4, "interrupt --level retry " + running, running + ": LEVEL_DOWNGRADE: "},
		{4, "interrupt --level cancel " + ended, ended + ": INTERRUPT_TOO_LATE: the job is terminal (SUCCEEDED)\n"},
		{4, "retry " + running, running + ": RUN_ACTIVE: "},
		{4, "park " + ended, ended + ": INVALID_STATE: "},
		{2, "wait --until never " + running, `--until "never"`},
	} {
		r := s.run(append([]string{"job"}, strings.Fields(test.args)...)...)
		if r.code != test.code || !strings.Contains(r.stderr, test.says) || r.stdout != "" {
			t.Errorf("stint job %s: %+v, want %d and %q", test.args, r, test.code, test.says)
		}
	}
	if job := s.job(running); job.GetInterrupt().GetGeneration() != 1 || len(job.GetActions()) != 1 {
		t.Errorf("what was refused is kept: %v, %v", job.GetInterrupt(), job.GetActions())
	}
}

// TestJobThatKillsItsWorker is PARKED after three crashes while the other jobs of its queue get done, and released once
// by a new build of the worker.
func TestJobThatKillsItsWorker(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	// A worker that dies before the server has heard that it has the run has lost a delivery, and crashed nothing.
	script := `read x; [ "$x" != bad ] || { ` + tool(t, "STINT_BIN") + ` job wait --until accepted $STINT_JOB_ID >/dev/null; kill -9 $PPID; }; exit 0`
	bad := s.submit("q", "bad\n", "--lease", "5s")
	var good []string
	for range 3 {
		good = append(good, s.submit("q", "good\n", "--lease", "5s"))
		s.work("q", []string{"--build", "v1"}, script).end(patience)
	}
	last := s.work("q", []string{"--build", "v1"}, script)
	for _, id := range good {
		s.must("job", "wait", id)
	}
	if r := s.run("job", "wait", bad); r.code == 0 || s.job(bad).GetParkReason() != stintv1.ParkReason_PARK_REASON_CRASHES {
		t.Errorf("job wait: %+v; the job is %v for %v, want PARKED for CRASHES", r, s.job(bad).GetState(), s.job(bad).GetParkReason())
	}
	last.signal(syscall.SIGTERM)
	if code := last.end(patience); code != 0 {
		t.Errorf("the worker ended with %d", code)
	}
	s.work("q", []string{"--build", "v2"}, "echo got it").word("got")
	s.must("job", "wait", bad)
	if job := s.job(bad); job.GetEpoch() != 2 {
		t.Errorf("the job is in epoch %d, want 2: a new build has released it", job.GetEpoch())
	}
}
