//go:build blackbox

package blackbox

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// work starts `stint work` on a queue and shows what the commands write.
func (s *server) work(queue string, flags []string, script string) *process {
	s.t.Helper()
	args := append([]string{"work", queue, "--tee"}, flags...)
	return start(s.t, s.stint(append(args, "--", "sh", "-c", script)...))
}

// word waits until a line of the output begins with a word, and returns the rest of that line.
func (p *process) word(word string) string {
	p.t.Helper()
	var rest string
	p.await(p.stdout, "a line that begins with "+word, func(text string) bool {
		for line := range strings.Lines(text) {
			if after, ok := strings.CutPrefix(line, word+" "); ok && strings.HasSuffix(line, "\n") {
				rest = strings.TrimSpace(after)
				return true
			}
		}
		return false
	})
	return rest
}

// exit is the end of a process that is not this one's child, to wait for.
type exit struct {
	t   *testing.T
	pid int
	fd  int
}

// watch watches a process that lives.
func watch(t *testing.T, pid string) exit {
	t.Helper()
	n, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(n, 0)
	if err != nil {
		t.Fatalf("process %d: %v", n, err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return exit{t, n, fd}
}

// await waits until the process is gone.
func (e exit) await(within time.Duration) {
	e.t.Helper()
	for deadline := time.Now().Add(within); ; {
		left := max(time.Until(deadline), 0)
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(e.fd), Events: unix.POLLIN}}, int(left.Milliseconds()))
		switch {
		case err == unix.EINTR:
		case err != nil:
			e.t.Fatal(err)
		case n == 0:
			e.t.Errorf("process %d lives, %v after it should be gone", e.pid, within)
			return
		default:
			return
		}
	}
}

// TestWorkerIsStopped sends SIGTERM to a worker. It passes it on to all that its command has started, grants them the
// grace, kills who is left, and gives the job back as interrupted, which costs no attempt.
func TestWorkerIsStopped(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, script string
		grace        time.Duration
		least, most  time.Duration
	}{
		// The command and its child both note the signal and stay.
		{
			"stubborn", `
			trap 'echo leader TERM' TERM
			sh -c 'trap "echo child TERM" TERM; echo child-pid $$; while :; do sleep 1; done' &
			echo leader-pid $$; while :; do sleep 1; done`,
			2 * time.Second, 2 * time.Second, 2*time.Second + promise,
		},
		// It ends by itself, with success: after the signal that counts for nothing.
		{
			"obedient", `
			trap 'echo leader TERM; kill $!; exit 0' TERM
			sh -c 'trap "echo child TERM; exit" TERM; echo child-pid $$; while :; do sleep 1; done' &
			echo leader-pid $$; while :; do sleep 1; done`,
			time.Minute, 0, 15 * time.Second,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, t.TempDir())
			worker := s.work("q", []string{"--grace", test.grace.String()}, test.script)
			id := s.submit("q", "x")
			leader, child := watch(t, worker.word("leader-pid")), watch(t, worker.word("child-pid"))

			began := time.Now()
			worker.signal(syscall.SIGTERM)
			worker.word("leader")
			worker.word("child")
			if code := worker.end(test.most); code != 0 {
				t.Errorf("the worker ended with %d, want 0", code)
			}
			if took := time.Since(began); took < test.least {
				t.Errorf("the worker ended after %v, want it to grant %v", took, test.least)
			}
			leader.await(promise)
			child.await(promise)

			job := s.job(id)
			if job.GetState() != stintv1.JobState_JOB_STATE_SCHEDULED || job.GetRunCount() != 1 ||
				job.GetCounters().GetInterrupts() != 1 || job.GetCounters().GetAttempts() != 0 || job.GetCounters().GetCrashes() != 0 {
				t.Fatalf("the job is %v with %v after %d runs, want SCHEDULED by one interrupt after 1",
					job.GetState(), job.GetCounters(), job.GetRunCount())
			}
			run := job.GetHistory()[0]
			if run.GetState() != stintv1.RunState_RUN_STATE_INTERRUPTED || run.GetNote() != "the worker is stopping" {
				t.Errorf("the run is %v: %q, want INTERRUPTED by the stop", run.GetState(), run.GetNote())
			}
			if wait := job.GetDueTime().AsTime().Sub(run.GetEndTime().AsTime()); wait != 10*time.Second {
				t.Errorf("the job comes back after %v, want 10s", wait)
			}
		})
	}
}

// TestWorkerIsKilled kills a worker. Its command goes with it, and after a lease another worker gets the job.
func TestWorkerIsKilled(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	first := s.work("q", nil, `echo pid $$; exec sleep 60`)
	id := s.submit("q", "x", "--lease", "5s")
	command := watch(t, first.word("pid"))
	s.accepted(s.client(), id)
	first.kill()
	command.await(promise)

	second := s.work("q", []string{"--max-runs", "1"}, `echo run $STINT_RUN`)
	if run := second.word("run"); run != "2" {
		t.Errorf("the second worker had run %s, want 2", run)
	}
	if code := second.end(patience); code != 0 {
		t.Errorf("the second worker ended with %d", code)
	}
	job := s.job(id)
	if job.GetState() != stintv1.JobState_JOB_STATE_SUCCEEDED || job.GetRunCount() != 2 || job.GetCounters().GetCrashes() != 1 {
		t.Errorf("the job is %v after %d runs with %v, want SUCCEEDED after 2 and a crash", job.GetState(), job.GetRunCount(), job.GetCounters())
	}
}

// TestWorkerIsFrozen stops a worker's clock for longer than its lease. When it wakes it learns that the job is somebody
// else's: its command is killed at once, also one that has a grace, and what it brings is dropped.
func TestWorkerIsFrozen(t *testing.T) {
	t.Parallel()
	for _, stopping := range []bool{false, true} {
		t.Run(fmt.Sprintf("stopping=%t", stopping), func(t *testing.T) {
			t.Parallel()
			s := serve(t, t.TempDir())
			const script = `
				trap 'echo signal TERM' TERM; echo pid $$; echo run $STINT_RUN >&3
				[ $STINT_RUN = 2 ] || while :; do sleep 1; done`
			first := s.work("q", []string{"--max-runs", "1", "--grace", "10m"}, script)
			id := s.submit("q", "x", "--lease", "5s")
			command := watch(t, first.word("pid"))
			s.accepted(s.client(), id)
			if stopping {
				first.signal(syscall.SIGTERM)
				first.word("signal")
			}
			first.signal(syscall.SIGSTOP)

			second := s.work("q", []string{"--max-runs", "1"}, script)
			if code := second.end(patience); code != 0 {
				t.Errorf("the second worker ended with %d", code)
			}
			first.signal(syscall.SIGCONT)
			command.await(15 * time.Second)
			if code := first.end(patience); code != 0 {
				t.Errorf("the first worker ended with %d, want 0: it has learnt that there is nothing to do", code)
			}
			job := s.job(id)
			if got := string(job.GetResult().GetData()); got != "run 2\n" || job.GetRunCount() != 2 {
				t.Errorf("the job's result is %q after %d runs, want that of run 2", got, job.GetRunCount())
			}
		})
	}
}

// TestFailedCommand keeps what a person needs to know: how it ended, and the end of what it said.
func TestFailedCommand(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	s.work("exit", nil, `seq 10000 >&2; exit 3`)
	s.work("signal", nil, `echo dying >&2; kill -KILL $$`)

	var stderr strings.Builder
	for n := range 10000 {
		fmt.Fprintln(&stderr, n+1)
	}
	id := s.submit("exit", "x", "--max-attempts", "1")
	if r := s.run("job", "wait", id); r.code != 1 {
		t.Fatalf("job wait: %+v, want 1", r)
	}
	failure := s.job(id).GetFailure()
	text := failure.GetProcess().GetStderrTail()
	if failure.GetType() != "exit" || failure.GetProcess().GetExitCode() != 3 || len(text) != 4096 || !strings.HasSuffix(stderr.String(), text) {
		t.Errorf("the failure is %s with exit code %d and %d bytes of standard error, want exit, 3 and the last 4096 bytes",
			failure.GetType(), failure.GetProcess().GetExitCode(), len(text))
	}
	if shown := s.must("job", "get", id); !strings.Contains(shown, "exit status 3") || !strings.Contains(shown, "| 9999\n  | 10000\n") {
		t.Errorf("job get does not show the exit status and the end of standard error:\n%s", shown)
	}

	id = s.submit("signal", "x", "--max-attempts", "1")
	if r := s.run("job", "wait", id); r.code != 1 || !strings.Contains(r.stderr, "| dying\n") {
		t.Fatalf("job wait: %+v, want 1 and what it said", r)
	}
	if process := s.job(id).GetFailure().GetProcess(); process.GetSignal() != "KILL" {
		t.Errorf("the failure is %v, want signal KILL", process)
	}

	// Without --max-attempts it is tried again.
	id = s.submit("exit", "x")
	s.accepted(s.client(), id)
	if r := s.run("--timeout", "100ms", "job", "wait", id); r.code != 124 {
		t.Errorf("job wait: %+v, want 124, for the job has attempts left", r)
	}
}

// TestGivenBack tries again later what the command gives back.
func TestGivenBack(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	for _, test := range []struct {
		flags []string
		code  int
		wait  time.Duration
	}{
		{nil, 75, 30 * time.Second},
		{[]string{"--snooze", "1h"}, 75, time.Hour},
		{[]string{"--release-code", "9"}, 9, 30 * time.Second},
	} {
		id := s.submit("q", "x")
		worker := s.work("q", append(test.flags, "--max-runs", "1"), fmt.Sprintf("exit %d", test.code))
		if code := worker.end(patience); code != 0 {
			t.Errorf("the worker ended with %d", code)
		}
		job := s.job(id)
		wait := job.GetDueTime().AsTime().Sub(job.GetHistory()[0].GetEndTime().AsTime())
		if job.GetState() != stintv1.JobState_JOB_STATE_SCHEDULED || wait != test.wait || job.GetCounters().GetSnoozes() != 1 {
			t.Errorf("exit %d with %q: the job is %v for %v with %v, want SCHEDULED for %v with a snooze",
				test.code, test.flags, job.GetState(), wait, job.GetCounters(), test.wait)
		}
	}
}

// TestMaxRuns takes exactly as many runs as it was told.
func TestMaxRuns(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	for range 20 {
		s.submit("q", "x")
	}
	r := s.run("work", "q", "--concurrency", "3", "--max-runs", "7", "--", "true")
	if r.code != 0 || r.stderr != "7 runs, 7 outcomes recorded\n" {
		t.Errorf("the worker: %+v, want 0 and 7 runs", r)
	}
	s.wantCounts("q", &stintv1.JobCounts{Succeeded: 7, Ready: 13})
}

// TestWhatACommandSees runs a command that tells all it knows: the payload, the environment, where results go.
func TestWhatACommandSees(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	id := s.submit("media/images", "the payload", "--subject", "cat", "--label", "size=9", "--priority", "high", "--content-type", "text/plain")
	worker := s.work("media/images", []string{"--max-runs", "1"}, `
		env | grep ^STINT_ | grep -v _FILE= | sort >&3
		cat >>$STINT_RESULT_FILE
		echo out; echo err >&2`)
	if code := worker.end(patience); code != 0 {
		t.Errorf("the worker ended with %d", code)
	}
	if out, log := worker.stdout.String(), worker.stderr.String(); out != "out\n" || log != "err\n1 runs, 1 outcomes recorded\n" {
		t.Errorf("--tee shows %q and %q, want what the command wrote", out, log)
	}
	job := s.job(id)
	want := fmt.Sprintf(`STINT_CONTENT_TYPE=text/plain
STINT_FENCE=%d
STINT_JOB_ID=%s
STINT_LABELS={"size":"9"}
STINT_PRIORITY=40
STINT_QUEUE=media/images
STINT_RUN=1
STINT_SERVER=%s
STINT_SUBJECT=cat
the payload`, job.GetHistory()[0].GetFence(), id, s.ready.GRPC)
	if got := string(job.GetResult().GetData()); got != want {
		t.Errorf("the command saw\n%s\nwant\n%s", got, want)
	}
}

// TestInterruptedCommand learns from its file why it is to stop, and ends the job as the level says.
func TestInterruptedCommand(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		level string
		state stintv1.JobState
	}{
		{"retry", stintv1.JobState_JOB_STATE_SCHEDULED},
		{"cancel", stintv1.JobState_JOB_STATE_CANCELLED},
	} {
		t.Run(test.level, func(t *testing.T) {
			t.Parallel()
			s := serve(t, t.TempDir())
			worker := s.work("q", []string{"--max-runs", "1"}, `
				trap 'echo file $(cat $STINT_INTERRUPT_FILE); exit 0' TERM
				[ -e $STINT_INTERRUPT_FILE ] || echo ready $$; while :; do sleep 1; done`)
			id := s.submit("q", "x")
			worker.word("ready")
			s.accepted(s.client(), id)
			s.must("job", "interrupt", "--level", test.level, "--reason", "wrong cat", id)
			if got, want := worker.word("file"), strings.ToUpper(test.level)+" wrong cat"; got != want {
				t.Errorf("the interrupt file says %q, want %q", got, want)
			}
			if code := worker.end(patience); code != 0 {
				t.Errorf("the worker ended with %d", code)
			}
			if job := s.job(id); job.GetState() != test.state || job.GetInterrupt().GetReason() != "wrong cat" && test.level == "cancel" {
				t.Errorf("the job is %v with interrupt %v, want %v", job.GetState(), job.GetInterrupt(), test.state)
			}
		})
	}
}

// TestResultBeforeTheSignal counts: the work was done when the signal came.
func TestResultBeforeTheSignal(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	worker := s.work("q", nil, `trap 'exit 0' TERM; echo done >&3; echo ready $$; while :; do sleep 1; done`)
	id := s.submit("q", "x")
	worker.word("ready")
	worker.signal(syscall.SIGTERM)
	if code := worker.end(patience); code != 0 {
		t.Errorf("the worker ended with %d", code)
	}
	if job := s.job(id); job.GetState() != stintv1.JobState_JOB_STATE_SUCCEEDED || string(job.GetResult().GetData()) != "done\n" {
		t.Errorf("the job is %v with %q, want SUCCEEDED with its result", job.GetState(), job.GetResult().GetData())
	}
}
