package server_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// endings are the ways in which a worker may end a run, by name.
func endings(token string) map[string]*stintv1.Finish {
	failing := func(f *stintv1.Failure) *stintv1.Finish {
		return &stintv1.Finish{LeaseToken: token, Outcome: &stintv1.Finish_Failure{Failure: f}}
	}
	return map[string]*stintv1.Finish{
		"success":        success(token),
		"failure":        failing(&stintv1.Failure{Message: "no"}),
		"infrastructure": failing(&stintv1.Failure{Class: stintv1.FailureClass_FAILURE_CLASS_INFRASTRUCTURE}),
		"timed out":      failing(&stintv1.Failure{Class: stintv1.FailureClass_FAILURE_CLASS_TIMEOUT}),
		"malformed":      failing(&stintv1.Failure{Class: stintv1.FailureClass_FAILURE_CLASS_MALFORMED}),
		"final":          failing(&stintv1.Failure{Final: true}),
		"park":           failing(&stintv1.Failure{Park: true}),
		"interrupted":    {LeaseToken: token, Outcome: &stintv1.Finish_Interrupted{Interrupted: &stintv1.Interrupted{}}},
		"released":       released(token),
		"not me": {LeaseToken: token, Outcome: &stintv1.Finish_Released{Released: &stintv1.Released{
			Kind: &stintv1.Released_NotMe{NotMe: &stintv1.NotMe{}},
		}}},
	}
}

// outcomes is section 3 of the contract, what a run's end means under each level: the job's state, the counter that
// rises, and how the interrupt ended.
var outcomes = map[string]map[string]string{
	"none": {
		"success": "SUCCEEDED", "failure": "BACKOFF attempts", "infrastructure": "BACKOFF snoozes", "timed out": "BACKOFF attempts",
		"malformed": "PARKED attempts", "final": "FAILED attempts", "park": "PARKED attempts",
		"interrupted": "SCHEDULED interrupts", "released": "SCHEDULED snoozes", "not me": "READY snoozes", "lost": "BACKOFF crashes",
	},
	"RETRY": {
		"success": "SUCCEEDED COMPLETED", "failure": "SCHEDULED interrupts FAILED", "infrastructure": "SCHEDULED interrupts FAILED",
		"timed out": "SCHEDULED interrupts FAILED", "malformed": "PARKED attempts FAILED", "final": "FAILED attempts FAILED",
		"park": "PARKED attempts FAILED", "interrupted": "SCHEDULED interrupts STOPPED", "released": "SCHEDULED snoozes STOPPED",
		"not me": "READY snoozes STOPPED", "lost": "SCHEDULED interrupts LOST", "hard deadline": "SCHEDULED interrupts ABANDONED",
	},
	"CANCEL": {
		"success": "SUCCEEDED COMPLETED", "failure": "CANCELLED FAILED", "infrastructure": "CANCELLED FAILED", "timed out": "CANCELLED FAILED",
		"malformed": "CANCELLED FAILED", "final": "CANCELLED FAILED", "park": "CANCELLED FAILED", "interrupted": "CANCELLED STOPPED",
		"released": "CANCELLED STOPPED", "not me": "CANCELLED STOPPED", "lost": "CANCELLED LOST", "hard deadline": "CANCELLED ABANDONED",
	},
	"TIMEOUT": {
		"success": "SUCCEEDED COMPLETED", "failure": "BACKOFF attempts FAILED", "infrastructure": "BACKOFF attempts FAILED",
		"timed out": "BACKOFF attempts FAILED", "malformed": "BACKOFF attempts FAILED", "final": "FAILED attempts FAILED",
		"park": "PARKED attempts FAILED", "interrupted": "BACKOFF attempts STOPPED", "released": "BACKOFF attempts STOPPED",
		"not me": "BACKOFF attempts STOPPED", "lost": "BACKOFF attempts LOST", "hard deadline": "BACKOFF attempts ABANDONED",
	},
}

// heldRun is a run of a worker under test, which ends it and keeps it in its own way.
type heldRun struct {
	r      *rig
	stream *talk // nil: by unary calls
}

func (h heldRun) keep() {
	if h.stream != nil {
		h.stream.say(report(h.r.token("a/1")))
		return
	}
	h.r.beat("a/1")
}

// whileRunning calls fn twice a second as long as the job runs.
func (h heldRun) whileRunning(fn func()) {
	for h.r.job(h.r.id("a")).GetState() == stintv1.JobState_JOB_STATE_RUNNING {
		time.Sleep(500 * time.Millisecond)
		fn()
	}
}

func (h heldRun) end(end string) {
	finishes := endings(h.r.token("a/1"))
	switch {
	case end == "lost" && h.stream != nil:
		h.stream.say(report())
	case end == "lost":
		h.whileRunning(func() {})
	case end == "hard deadline":
		h.whileRunning(h.keep)
	case h.stream != nil:
		h.stream.say(finish(finishes[end]))
	default:
		h.r.end(finishes[end])
	}
}

// TestOutcomeAndLevel ends runs in every way under every level, by stream and by unary calls.
func TestOutcomeAndLevel(t *testing.T) {
	for _, unary := range []bool{false, true} {
		for level, ends := range outcomes {
			for end, want := range ends {
				t.Run(fmt.Sprintf("unary %t/%s/%s", unary, level, end), func(t *testing.T) {
					inBubble(t, rigConfig{}, func(r *rig) {
						spec := &stintv1.JobSpec{Queue: "q"}
						if level == "TIMEOUT" {
							spec.Timeout = durationpb.New(time.Second)
						}
						h := r.hold(spec, unary)
						switch level {
						case "RETRY":
							r.interruptBy("a", retry, 50*time.Second)
						case "CANCEL":
							r.interruptBy("a", cancel, 50*time.Second)
						case "TIMEOUT":
							time.Sleep(1100 * time.Millisecond)
						}
						h.end(end)
						if got := r.firstEnd("a"); got != want {
							t.Errorf("got %s, want %s", got, want)
						}
					})
				})
			}
		}
	}
}

// hold has a worker hold the first run of job a.
func (r *rig) hold(spec *stintv1.JobSpec, unary bool) heldRun {
	r.addSpec("a", spec)
	if unary {
		r.claimAll(&stintv1.ClaimJobsRequest{Worker: "w", InstanceId: newInstance(), Queues: []string{"q"}})
		r.beat("a/1")
		return heldRun{r: r}
	}
	w := r.work()
	w.say(hello(newInstance()))
	w.say(demand(1, "q", 1))
	w.say(seen(1))
	return heldRun{r: r, stream: w}
}

func (r *rig) interruptBy(job string, level stintv1.InterruptLevel, hard time.Duration) {
	r.t.Helper()
	_, err := r.jobs.InterruptJobs(r.ctx, &stintv1.InterruptJobsRequest{
		Ids: []string{r.id(job)}, Level: level, HardDeadline: durationpb.New(hard), Grace: durationpb.New(time.Second),
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// firstEnd tells where a job stands after its first run: its state, the counter that rose, and how its interrupt ended.
func (r *rig) firstEnd(name string) string {
	r.t.Helper()
	answer, err := r.jobs.GetJob(r.ctx, &stintv1.GetJobRequest{Id: r.id(name), View: stintv1.JobView_JOB_VIEW_FULL})
	if err != nil {
		r.t.Fatal(err)
	}
	j := answer.GetJob()
	words := []string{short(j.GetState().String(), "JOB_STATE_")}
	c := j.GetCounters()
	for _, n := range []struct {
		name  string
		count uint32
	}{
		{"attempts", c.GetAttempts()},
		{"crashes", c.GetCrashes()},
		{"interrupts", c.GetInterrupts()},
		{"snoozes", c.GetSnoozes()},
		{"deliveries", c.GetDeliveries()},
	} {
		if n.count > 0 {
			words = append(words, n.name)
		}
	}
	if len(j.GetHistory()) == 0 {
		return strings.Join(append(words, "without an end"), " ")
	}
	if i := j.GetHistory()[0].GetInterrupt(); i != nil {
		words = append(words, short(i.GetEnd().String(), "INTERRUPT_END_"))
		if i.GetId() != "1.1" || i.GetEndTime() == nil {
			words = append(words, i.String())
		}
	}
	return strings.Join(words, " ")
}

// TestInterruptTimes: who asks for a grace and a hard deadline gets them, and the worker is told what is left of the
// grace; WaitJob comes back when the worker has acknowledged.
func TestInterruptTimes(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		h := r.hold(&stintv1.JobSpec{Queue: "q"}, false)
		r.interruptBy("a", retry, 40*time.Second)
		i := r.job(r.id("a")).GetInterrupt()
		if grace, hard := i.GetGraceTime().AsTime().Sub(i.GetRequestTime().AsTime()), i.GetHardDeadlineTime().AsTime().Sub(i.GetRequestTime().AsTime()); grace != time.Second || hard != 40*time.Second {
			t.Errorf("grace %v, hard deadline %v", grace, hard)
		}
		h.stream.settle()
		told := h.stream.all[len(h.stream.all)-1].GetInterrupts()
		if len(told) != 1 || told[0].GetInterrupt().GetGraceLeft().AsDuration() != time.Second || told[0].GetLease() != nil {
			t.Fatalf("told %v", told)
		}
		waiting := r.waitFor(&stintv1.WaitJobRequest{Id: r.id("a"), Until: stintv1.WaitUntil_WAIT_UNTIL_INTERRUPT_ACKNOWLEDGED})
		time.Sleep(2 * time.Second)
		h.stream.say(&stintv1.WorkRequest{InterruptAcks: []*stintv1.InterruptAck{{LeaseToken: r.token("a/1"), Generation: 1}}})
		waiting.expect(t, "OK", "0s running", "2s running reached")
		if i := r.job(r.id("a")).GetInterrupt(); i.GetDeliverTime() == nil || i.GetAcknowledgeTime() == nil {
			t.Errorf("then %v", i)
		}
	})
}

// TestMaxRunningOverTheWire: the bound acts at once, up and down; what was left behind is shown, and counts until an
// operator says otherwise.
func TestMaxRunningOverTheWire(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.add("q", "a", "b", "c")
		set := func(max uint32, z stintv1.OnZombie) *stintv1.Queue {
			t.Helper()
			q, err := r.setPolicy("q", "", &stintv1.QueuePolicy{MaxRunning: max, OnZombie: z})
			if err != nil || q.GetPolicy().GetMaxRunning() != max || q.GetPolicy().GetOnZombie() != z {
				t.Fatalf("set %v, %v", q, err)
			}
			return q
		}
		set(1, 0)
		caller := func() []*stintv1.Assignment {
			return r.claimAll(&stintv1.ClaimJobsRequest{Queues: []string{"q"}, MaxRuns: 5})
		}
		first := r.claim("q")
		r.accept(first)
		if got := caller(); len(got) != 0 {
			t.Errorf("beside one of at most one run began %v", got)
		}
		r.interrupt("a", stintv1.InterruptLevel_INTERRUPT_LEVEL_CANCEL, "enough")
		for range 8 {
			r.accept(first)
			time.Sleep(10 * time.Second)
		}
		if q := set(1, stintv1.OnZombie_ON_ZOMBIE_HOLD); q.GetZombies() != 1 || q.GetCounts().GetRunning() != 0 {
			t.Errorf("with one run left behind the queue is %v", q)
		}
		if got := caller(); len(got) != 0 {
			t.Errorf("beside a zombie began %v", got)
		}
		set(1, stintv1.OnZombie_ON_ZOMBIE_RELEASE)
		if got := caller(); len(got) != 1 {
			t.Errorf("once it was released began %v", got)
		}
	})
}

// TestLostContactTravels: what the queue says of lost contact comes with its assignments.
func TestLostContactTravels(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.add("q", "a", "b")
		if got := r.claim("q").GetLostContact(); got != stintv1.LostContact_LOST_CONTACT_UNSPECIFIED {
			t.Errorf("by default %v", got)
		}
		policy := &stintv1.QueuePolicy{LostContact: stintv1.LostContact_LOST_CONTACT_CONTINUE}
		if q, err := r.setPolicy("q", "", policy); err != nil || q.GetPolicy().GetLostContact() != policy.GetLostContact() {
			t.Errorf("set %v, %v", q, err)
		}
		if got := r.claim("q").GetLostContact(); got != policy.GetLostContact() {
			t.Errorf("then %v", got)
		}
	})
}
