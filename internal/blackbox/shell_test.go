//go:build blackbox

package blackbox

import (
	"context"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/durationpb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// shell is a script of examples/shell, with what it needs to find the server.
func (s *server) shell(name string, args ...string) *exec.Cmd {
	s.t.Helper()
	cmd := exec.Command(filepath.Join("..", "..", "examples", "shell", name), args...)
	cmd.Env = environment("STINT_ADDR="+s.ready.GRPC, "GRPCURL="+tool(s.t, "GRPCURL"), "TMPDIR="+s.t.TempDir())
	return cmd
}

// TestShellWorker keeps a job by heartbeats alone for longer than its lease: nobody else can claim it meanwhile.
func TestShellWorker(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	c := s.client()
	gate := newGate(t)
	id := s.submit("shell", "quiet", "--lease", "5s", "--max-attempts", "1")
	worker := start(t, s.shell("worker.sh", "shell", "sh", "-c", "tr a-z A-Z; cat "+gate.path))
	s.accepted(c, id) // by the first heartbeat: the command is far from its end

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	other, err := c.Workers().ClaimJobs(ctx, &stintv1.ClaimJobsRequest{
		Worker: "other", InstanceId: uuid.NewString(), Queues: []string{"shell"}, Wait: durationpb.New(8 * time.Second),
	})
	if err != nil || len(other.GetAssignments()) != 0 {
		t.Fatalf("another worker was given %v (%v) while the shell's holds its run", other.GetAssignments(), err)
	}
	gate.open()
	if code := worker.end(patience); code != 0 {
		t.Errorf("worker.sh ended with %d: %s", code, worker.stderr)
	}
	job := s.job(id)
	if job.GetState() != stintv1.JobState_JOB_STATE_SUCCEEDED || job.GetRunCount() != 1 || string(job.GetResult().GetData()) != "QUIET" {
		t.Errorf("the job is %v after %d runs with %q, want SUCCEEDED after 1 with QUIET",
			job.GetState(), job.GetRunCount(), job.GetResult().GetData())
	}
}

// TestShellWorkerIsKilled kills the script. Its command goes with it, for nobody is left who could report its end.
func TestShellWorkerIsKilled(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	pid, gate := newGate(t), newGate(t)
	id := s.submit("shell", "x", "--lease", "5s")
	worker := start(t, s.shell("worker.sh", "shell", "sh", "-c", "echo $$ >"+pid.path+"; exec cat "+gate.path))
	command := watch(t, pid.line(t))
	s.accepted(s.client(), id)
	worker.kill()
	command.await(promise)
}

// TestShellWorkerItself has the example check itself: each way in which a command, a job or a worker can end.
func TestShellWorkerItself(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	r := run(t, s.shell("test.sh"))
	if r.code != 0 {
		t.Errorf("test.sh ended with %d:\n%s%s", r.code, r.stdout, r.stderr)
	}
	s.stop()
	if r := run(t, s.shell("worker.sh", "shell", "true")); r.code != 5 {
		t.Errorf("worker.sh without a server: %+v, want 5", r)
	}
	if r := run(t, s.shell("worker.sh", "shell", "no-such-command")); r.code != 127 {
		t.Errorf("worker.sh without a command: %+v, want 127", r)
	}
}
