package event

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stintrun/stint/internal/job"
)

// step is what happens to a job.
type step func(t *testing.T, j *job.Job, now time.Time) *job.Job

// must makes a step of a function of a job.
func must(fn func(*job.Job, time.Time) (*job.Job, error)) step {
	return func(t *testing.T, j *job.Job, now time.Time) *job.Job {
		t.Helper()
		next, err := fn(j, now)
		if err != nil {
			t.Fatal(err)
		}
		return next
	}
}

var fences uint64

var (
	dispatch = must(func(j *job.Job, now time.Time) (*job.Job, error) {
		fences++
		return j.Dispatch(now, job.Dispatch{Fence: fences, Worker: "w", Instance: job.ID{7}, Lease: time.Minute})
	})
	accept = must((*job.Job).Accept)
	wake   = must(func(j *job.Job, _ time.Time) (*job.Job, error) { return j.Wake(j.DueTime) })
	expire = must(func(j *job.Job, _ time.Time) (*job.Job, error) { return j.Wake(j.StartBy) })
	lose   = must(func(j *job.Job, now time.Time) (*job.Job, error) { return j.Lose(now, job.Policy{}, 0, "silent") })
	lost   = must(func(j *job.Job, now time.Time) (*job.Job, error) { return j.Undeliver(now, "it never came") })
	hard   = must(func(j *job.Job, now time.Time) (*job.Job, error) { return j.HardDeadline(now, job.Policy{}, 0) })
	retry  = must(func(j *job.Job, now time.Time) (*job.Job, error) {
		return j.RetryBy(now, job.By{Reason: "again", Requester: "ops"})
	})
	park = must(func(j *job.Job, now time.Time) (*job.Job, error) {
		return j.Park(now, job.By{Reason: "look", Requester: "ops"})
	})
	deliver = must(func(j *job.Job, now time.Time) (*job.Job, error) {
		return j.Deliver(now, j.Run.Fence, j.Interrupted().Generation)
	})
	acknowledge = must(func(j *job.Job, now time.Time) (*job.Job, error) {
		return j.Acknowledge(now, j.Run.Fence, j.Interrupted().Generation)
	})
	update = must(func(j *job.Job, now time.Time) (*job.Job, error) {
		return j.Update(now, job.Update{Fields: job.FieldPriority, Spec: job.Spec{Priority: job.High}}, job.By{Reason: "urgent", Requester: "ops"})
	})
	nothing = must(func(j *job.Job, _ time.Time) (*job.Job, error) {
		next := *j
		next.Version++
		return &next, nil
	})
)

func interrupt(l job.Level) step {
	return must(func(j *job.Job, now time.Time) (*job.Job, error) {
		next, _, err := j.RequestInterrupt(now, job.InterruptRequest{Level: l, Source: job.SourceUser, Reason: "enough", Requester: "ops"})
		return next, err
	})
}

func finish(o job.Outcome) step {
	return must(func(j *job.Job, now time.Time) (*job.Job, error) {
		next, _, err := j.Finish(now, fences, o, job.Policy{}, 0)
		return next, err
	})
}

var (
	succeed = finish(job.Outcome{Success: &job.Success{}})
	fail    = finish(job.Outcome{Failure: &job.Failure{Class: job.Application, Message: "no luck"}})
	broken  = finish(job.Outcome{Failure: &job.Failure{Class: job.Malformed, Message: "what?"}})
	obey    = finish(job.Outcome{Stopped: &job.Stopped{Reason: "as you wish"}})
	release = finish(job.Outcome{Released: &job.Released{}})
)

// lives are what happens to jobs, and what is told of it: a line for each step.
var lives = map[string]struct {
	spec  job.Spec
	steps []step
	want  []string
}{
	"success": {steps: []step{dispatch, accept, succeed}, want: []string{
		"JobSubmitted Ready", "RunDispatched Running 1:Dispatched w", "RunAccepted Running 1:Running w", "RunEnded Succeeded 1:Succeeded w, JobEnded Succeeded",
	}},
	"a finish accepts": {steps: []step{dispatch, succeed}, want: []string{
		"JobSubmitted Ready", "RunDispatched Running 1:Dispatched w", "RunAccepted Running 1:Running w, RunEnded Succeeded 1:Succeeded w, JobEnded Succeeded",
	}},
	"failure": {steps: []step{dispatch, accept, fail, wake, dispatch}, want: []string{
		"JobSubmitted Ready", "RunDispatched Running 1:Dispatched w", "RunAccepted Running 1:Running w",
		"RunEnded Backoff 1:Failed w (no luck), JobDelayed Backoff until", "JobReady Ready", "RunDispatched Running 2:Dispatched w",
	}},
	"malformed, released": {steps: []step{dispatch, broken, retry, dispatch, release}, want: []string{
		"JobSubmitted Ready", "RunDispatched Running 1:Dispatched w",
		"RunAccepted Running 1:Running w, RunEnded Parked 1:Failed w (what?), JobParked Parked (what?)", "JobReady Ready ops (again)",
		"RunDispatched Running 2:Dispatched w", "RunAccepted Running 2:Running w, RunEnded Scheduled 2:Released w, JobDelayed Scheduled until",
	}},
	"lost, and a late finish": {steps: []step{dispatch, accept, lose, succeed}, want: []string{
		"JobSubmitted Ready", "RunDispatched Running 1:Dispatched w", "RunAccepted Running 1:Running w",
		"RunEnded Backoff 1:Lost w (silent), JobDelayed Backoff until", "RunEnded Succeeded 1:Succeeded w (came late: its lease had been lost), JobEnded Succeeded",
	}},
	"undelivered": {steps: []step{dispatch, lost}, want: []string{
		"JobSubmitted Ready", "RunDispatched Running 1:Dispatched w", "RunEnded Ready 1:Undelivered w (it never came), JobReady Ready",
	}},
	"interrupted": {steps: []step{dispatch, accept, interrupt(job.LevelRetry), deliver, acknowledge, interrupt(job.LevelCancel), obey}, want: []string{
		"JobSubmitted Ready", "RunDispatched Running 1:Dispatched w", "RunAccepted Running 1:Running w",
		"InterruptRequested Running 1 level 1 ops until (enough)", "InterruptDelivered Running 1 level 1 ops until (enough)",
		"InterruptAcknowledged Running 1 level 1 ops until (enough)", "InterruptRequested Running 1 level 2 ops until (enough)",
		"RunEnded Cancelled 1:Interrupted w level 2 (as you wish), JobEnded Cancelled",
	}},
	"abandoned": {steps: []step{dispatch, accept, interrupt(job.LevelCancel), hard}, want: []string{
		"JobSubmitted Ready", "RunDispatched Running 1:Dispatched w", "RunAccepted Running 1:Running w",
		"InterruptRequested Running 1 level 2 ops until (enough)", "RunEnded Cancelled 1:Abandoned w level 2 (hard deadline passed), JobEnded Cancelled",
	}},
	"cancelled while it waits": {steps: []step{interrupt(job.LevelCancel), retry}, want: []string{
		"JobSubmitted Ready", "InterruptRequested Cancelled level 2 ops (enough), JobEnded Cancelled ops (enough)", "JobReady Ready ops (again)",
	}},
	"parked": {steps: []step{park, retry, update, nothing}, want: []string{
		"JobSubmitted Ready", "JobParked Parked ops (look)", "JobReady Ready ops (again)", "JobUpdated Ready ops (urgent)", "",
	}},
	"expired": {spec: job.Spec{StartBy: begin.Add(time.Minute)}, steps: []step{expire, nil}, want: []string{
		"JobSubmitted Ready", "JobEnded Expired", "JobDeleted",
	}},
	"scheduled": {spec: job.Spec{RunAt: begin.Add(time.Minute)}, steps: []step{wake}, want: []string{
		"JobSubmitted Scheduled until", "JobReady Ready",
	}},
}

var begin = time.Unix(1_700_000_000, 0).UTC()

func describe(e *Event) string {
	s := kindNames[e.Kind]
	if e.State != 0 {
		s += " " + title(e.State.String())
	}
	switch {
	case e.RunState != 0:
		s += fmt.Sprintf(" %d:%s", e.Run, []string{"", "Dispatched", "Running", "Succeeded", "Failed", "Interrupted", "Released", "Lost", "Abandoned", "Undelivered"}[e.RunState])
	case e.Level != 0 && e.Run != 0:
		s += fmt.Sprintf(" %d", e.Run)
	}
	if e.Worker != "" {
		s += " " + e.Worker
	}
	if e.Level != 0 {
		s += fmt.Sprintf(" level %d", e.Level)
	}
	if e.Who != "" {
		s += " " + e.Who
	}
	if !e.Until.IsZero() {
		s += " until"
	}
	if e.Reason != "" {
		s += " (" + e.Reason + ")"
	}
	return s
}

func title(s string) string { return s[:1] + strings.ToLower(s[1:]) }

var kindNames = map[Kind]string{
	JobSubmitted: "JobSubmitted", JobReady: "JobReady", JobDelayed: "JobDelayed", JobParked: "JobParked", JobEnded: "JobEnded", JobUpdated: "JobUpdated",
	JobDeleted: "JobDeleted", RunDispatched: "RunDispatched", RunAccepted: "RunAccepted", RunEnded: "RunEnded", InterruptRequested: "InterruptRequested",
	InterruptDelivered: "InterruptDelivered", InterruptAcknowledged: "InterruptAcknowledged",
}

// TestOf says of each step of each life what it tells. All kinds of events of jobs occur.
func TestOf(t *testing.T) {
	occurred := map[Kind]bool{}
	for name, l := range lives {
		now := begin
		spec := l.spec
		spec.ID, spec.Queue, spec.Priority, spec.Labels = job.ID{1}, "q", job.Normal, map[string]string{"a": "b", "c": "d"}
		var got []string
		tell := func(was, is *job.Job) {
			var parts []string
			for _, e := range Of(nil, was, is, now) {
				occurred[e.Kind] = true
				if e.Queue != "q" || e.Job != spec.ID || e.Time != now || len(e.Labels) != 2 || e.Labels[0] > e.Labels[1] ||
					(e.Worker == "") != (e.Instance == job.ID{}) {
					t.Errorf("%s: %+v lacks something", name, e)
				}
				parts = append(parts, describe(&e))
			}
			got = append(got, strings.Join(parts, ", "))
		}
		j := job.New(&spec, now)
		tell(nil, j)
		for _, s := range l.steps {
			now = now.Add(time.Second)
			if s == nil {
				tell(j, nil)
				continue
			}
			next := s(t, j, now)
			tell(j, next)
			j = next
		}
		if diff := cmp.Diff(l.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	for k := range kindNames {
		if !occurred[k] {
			t.Errorf("%s does not occur", kindNames[k])
		}
	}
}

// TestLabelHash holds the hashes, which are on disk.
func TestLabelHash(t *testing.T) {
	if h := LabelHash("tier", "gold"); h != LabelHash("tier", "gold") || h == LabelHash("tierg", "old") || h == LabelHash("tier", "golD") {
		t.Error("hashes do not tell labels apart")
	}
	if h := LabelHash("tier", "gold"); h != goldHash {
		t.Errorf("the hash is %d now", h)
	}
}

const goldHash = 3296033817267786009

// TestNothingIsForgotten: an event has all parts that its packed form has.
func TestNothingIsForgotten(t *testing.T) {
	if n := reflect.TypeFor[Event]().NumField() - 1 + reflect.TypeFor[Shape]().NumField(); n != 17 {
		t.Errorf("an event has %d fields; see that they are packed, sent and told, and then change this number", n)
	}
}
