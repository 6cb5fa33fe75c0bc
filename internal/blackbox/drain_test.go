//go:build blackbox

package blackbox

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// TestDrain stops a server by SIGTERM, as a deploy does. Who works and who waits is told, comes back to the server that
// is started next, and goes on: the run that was under way is the job's only one.
func TestDrain(t *testing.T) {
	t.Parallel()
	const grace = 30 * time.Second
	s := serve(t, t.TempDir(), "--grace", grace.String())
	gate := newGate(t)
	worker := s.work("held", []string{"--concurrency", "2", "--max-runs", "2"}, "echo begun $STINT_RUN; cat "+gate.path)
	waiting := start(t, s.stint("submit", "held", "--wait"))
	waiting.await(waiting.stderr, "the id", func(text string) bool { return lines(text) > 0 })
	id := strings.TrimSpace(strings.TrimPrefix(waiting.stderr.String(), "submitted "))
	worker.word("begun")
	s.accepted(s.client(), id)
	before := s.job(id).GetRun()

	began := time.Now()
	s.stop()
	if took := time.Since(began); took > grace/2 {
		t.Errorf("the stop took %v, although everybody could leave at once", took)
	}
	s = s.again()
	s.submit("held", "another")
	worker.await(worker.stdout, "that it has come back", func(text string) bool { return lines(text) == 2 })
	if run := s.job(id).GetRun(); run.GetFence() != before.GetFence() || run.GetState() != stintv1.RunState_RUN_STATE_RUNNING {
		t.Errorf("the restarted server has the run %v, want it RUNNING as before: %v", run, before)
	}
	gate.open()
	if code := waiting.end(patience); code != 0 {
		t.Errorf("submit --wait ended with %d, want 0", code)
	}
	if code := worker.end(patience); code != 0 {
		t.Errorf("the worker ended with %d, want 0", code)
	}
	job := s.job(id)
	if job.GetState() != stintv1.JobState_JOB_STATE_SUCCEEDED || job.GetRunCount() != 1 || job.GetHistory()[0].GetFence() != before.GetFence() {
		t.Errorf("the job is %v after %d runs, want SUCCEEDED by the run it had", job.GetState(), job.GetRunCount())
	}
	s.wantCounts("held", &stintv1.JobCounts{Succeeded: 2})
}

// stay opens a session that does not leave when it is told that the server is going away. It returns when it was told.
func stay(t *testing.T, c *client.Client) (told func()) {
	t.Helper()
	stream, err := c.Workers().Work(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	hello := &stintv1.Hello{Worker: "stubborn", InstanceId: uuid.NewString()}
	if err := stream.Send(&stintv1.WorkRequest{Seq: 1, Hello: hello}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		for {
			answer, err := stream.Recv()
			if err != nil {
				t.Fatalf("the session ended before it was told that the server goes away: %v", err)
			}
			if answer.GetGoingAway() != nil {
				return
			}
		}
	}
}

// TestDrainEndsWithItsGrace waits for a session that does not leave as long as it was told to, and no longer.
func TestDrainEndsWithItsGrace(t *testing.T) {
	t.Parallel()
	const grace = 2 * time.Second
	s := serve(t, t.TempDir(), "--grace", grace.String())
	told := stay(t, s.client())
	began := time.Now()
	s.signal(syscall.SIGTERM)
	told()
	if code := s.end(grace + promise); code != 0 {
		t.Errorf("the server ended with %d, want 0", code)
	}
	if took := time.Since(began); took < grace {
		t.Errorf("the server ended after %v, although a session had %v to leave", took, grace)
	}
	if !strings.Contains(s.stderr.String(), "stopping") {
		t.Errorf("the log says nothing of the stop: %s", s.stderr)
	}
}

// TestSecondSignal ends a server that is draining at once. Nothing that was acknowledged is lost.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir(), "--grace", "10m")
	told := stay(t, s.client())
	id := s.submit("q", "x")
	s.signal(syscall.SIGTERM)
	told()
	s.signal(syscall.SIGTERM)
	s.end(promise)
	if status, ok := s.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGTERM {
		t.Errorf("the server ended by %v, want the signal itself", s.cmd.ProcessState)
	}
	s = s.again()
	if state := s.job(id).GetState(); state != stintv1.JobState_JOB_STATE_READY {
		t.Errorf("the job is %v, want READY", state)
	}
}

// TestTooLate shows what a caller is told who comes while the server drains.
func TestTooLate(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir(), "--grace", "10m")
	told := stay(t, s.client())
	s.signal(syscall.SIGTERM)
	told()
	if r := s.run("queue", "list"); r.code != 5 || lines(r.stderr) != 1 || r.stdout != "" {
		t.Errorf("stint queue list on a server that is stopping: %+v, want 5 and a line", r)
	}
}
