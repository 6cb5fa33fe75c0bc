//go:build blackbox

package blackbox

import (
	"strings"
	"syscall"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// jobs lists the jobs of a queue, without their runs.
func (s *server) jobs(queue string) []*stintv1.Job {
	s.t.Helper()
	var jobs []*stintv1.Job
	for line := range strings.Lines(s.must("job", "list", "--queue", queue, "-o", "jsonl")) {
		job := &stintv1.Job{}
		if err := protojson.Unmarshal([]byte(line), job); err != nil {
			s.t.Fatalf("%v: %s", err, line)
		}
		jobs = append(jobs, job)
	}
	return jobs
}

// TestRollingRestarts replaces the workers of a busy queue one after another, again and again, as deploys do. That costs
// interrupts, and no attempt and no crash.
func TestRollingRestarts(t *testing.T) {
	t.Parallel()
	restarts := 4
	if soak() {
		restarts = 20
	}
	s := serve(t, t.TempDir())
	count := 20 * restarts
	for range count {
		s.submit("q", "x", "--retry", "interrupt-delay=100ms,attempts=1")
	}
	const script = `echo begun $$; sleep 1`
	begin := func() *process { return s.work("q", []string{"--concurrency", "3"}, script) }
	workers := []*process{begin(), begin()}
	for n := range restarts {
		old := workers[n%2]
		old.word("begun") // else it may hold nothing that the stop could interrupt
		workers[n%2] = begin()
		old.signal(syscall.SIGTERM)
		if code := old.end(patience); code != 0 {
			t.Errorf("restart %d: the worker ended with %d, want 0", n, code)
		}
	}
	s.must("work", "q", "--concurrency", "6", "--until-empty", "--", "true")
	// --until-empty leaves those that an interrupt has delayed; the workers do them.
	ids := []string{"job", "wait", "--timeout", patience.String()}
	for _, job := range s.jobs("q") {
		ids = append(ids, job.GetId())
	}
	if r := s.run(ids...); r.code != 0 {
		t.Errorf("job wait: %d: %s", r.code, tail(r.stderr))
	}
	interrupts := uint32(0)
	for _, job := range s.jobs("q") {
		c := job.GetCounters()
		interrupts += c.GetInterrupts()
		if c.GetAttempts() != 0 || c.GetCrashes() != 0 {
			t.Errorf("job %s has used %v, want neither an attempt nor a crash", job.GetId(), c)
		}
	}
	if interrupts == 0 {
		t.Error("no restart has interrupted anything: the test shows nothing")
	}
	s.wantCounts("q", &stintv1.JobCounts{Succeeded: uint64(count)})
}
