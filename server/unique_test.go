package server_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

const (
	untilStart     = stintv1.UniqueUntil_UNIQUE_UNTIL_START
	untilFinish    = stintv1.UniqueUntil_UNIQUE_UNTIL_FINISH
	returnExisting = stintv1.OnConflict_ON_CONFLICT_RETURN_EXISTING
	reject         = stintv1.OnConflict_ON_CONFLICT_REJECT
	replacePending = stintv1.OnConflict_ON_CONFLICT_REPLACE_PENDING
)

// only is a job that is the only one of queue "q" with key "k".
func only(c stintv1.OnConflict) *stintv1.JobSpec {
	return &stintv1.JobSpec{Id: newID(), Queue: "q", Unique: &stintv1.Unique{Key: "k", OnConflict: c}}
}

// met is what became of submitted jobs, one after another: what was said, of which job, and where that stands.
func (r *rig) met(jobs ...*stintv1.JobSpec) string {
	r.t.Helper()
	answer, err := r.jobs.SubmitJobs(r.ctx, &stintv1.SubmitJobsRequest{Jobs: jobs})
	if err != nil {
		r.t.Fatal(err)
	}
	var lines []string
	for i, result := range answer.GetResults() {
		what := replied(short(result.GetStatus().String(), "SUBMIT_STATUS_"), result.GetError())
		if id := result.GetHolderId(); id != "" {
			what += " " + r.cast.jobs[id]
		}
		if s := result.GetState(); s != 0 {
			what += " " + stateName(s)
		}
		if id := result.GetId(); id != jobs[i].GetId() {
			r.t.Errorf("job %d is answered with the id %q", i, id)
		}
		lines = append(lines, what)
	}
	return strings.Join(lines, ", ")
}

// TestUniqueStates: a submit meets the holder of its key in every state, for each way to hold it and each policy. What is
// answered is what was done: a job that is stored, a holder that is left alone, or one that has the new content.
func TestUniqueStates(t *testing.T) {
	var got strings.Builder
	for i, state := range pairStates(nil) {
		fmt.Fprintf(&got, "%s\n", state.name)
		for _, way := range []struct {
			name   string
			unique *stintv1.Unique
		}{
			{"START", &stintv1.Unique{Key: "k", Until: untilStart}},
			{"FINISH", &stintv1.Unique{Key: "k"}},
			{"FINISH+ttl", &stintv1.Unique{Key: "k", Ttl: durationpb.New(time.Hour)}},
		} {
			var answers []string
			for _, policy := range []stintv1.OnConflict{returnExisting, reject, replacePending} {
				inBubble(t, rigConfig{}, func(r *rig) {
					pairStates(way.unique)[i].reach(r)
					was := r.job(r.id("j"))
					spec := only(policy)
					spec.Subject = "new"
					said := r.met(spec)
					answers = append(answers, said)
					r.expectMet(said, was, spec)
				})
			}
			fmt.Fprintf(&got, "  %-11s %s\n", way.name, strings.Join(answers, "; "))
		}
	}
	want, err := os.ReadFile("testdata/unique.txt")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got.String(), "\n")); diff != "" {
		t.Errorf("%s\nall of it:\n%s", diff, &got)
	}
}

// expectMet checks that what was said of a submit is what was done. was is the job "j" before.
func (r *rig) expectMet(said string, was *stintv1.Job, spec *stintv1.JobSpec) {
	r.t.Helper()
	now := r.job(r.id("j"))
	_, err := r.jobs.GetJob(r.ctx, &stintv1.GetJobRequest{Id: spec.GetId()})
	stored, replaced := err == nil, now.GetSubject() == "new"
	verb, _, _ := strings.Cut(said, " ")
	if stored != (verb == "CREATED") || replaced != (verb == "REPLACED") {
		r.t.Errorf("said %s; stored %v, replaced %v", said, stored, replaced)
	}
	if held := was.GetUnique().GetHeld(); held != (verb != "CREATED") {
		r.t.Errorf("said %s, while the job is shown to hold the key: %v", said, held)
	}
	if same := now.GetEtag() == was.GetEtag(); same == replaced {
		r.t.Errorf("said %s; the holder is unchanged: %v", said, same)
	}
	if want := stateName(now.GetState()); verb != "CREATED" && !strings.HasSuffix(said, " j "+want) {
		r.t.Errorf("said %s; the holder is %s", said, want)
	}
}

// TestUniqueInOneMessage: items of a message behave as if sent one after another; keys are by queue.
func TestUniqueInOneMessage(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		first, other, plain := only(returnExisting), only(returnExisting), only(returnExisting)
		other.Queue, plain.Unique = "p", nil
		r.cast.jobs[first.GetId()] = "first"
		replacing := only(replacePending)
		replacing.Start = &stintv1.JobSpec_Delay{Delay: durationpb.New(time.Minute)}
		got := r.met(first, only(returnExisting), other, plain, only(reject), replacing, first, only(returnExisting), replacing)
		want := "CREATED ready, KEY_HELD first ready, CREATED ready, CREATED ready, UNIQUE_CONFLICT first ready, " +
			"REPLACED first scheduled, EXISTING scheduled, KEY_HELD first scheduled, REPLACED first scheduled"
		if got != want {
			t.Errorf("answered %s; want %s", got, want)
		}
		counts := r.metrics()
		for status, n := range map[string]float64{"created": 3, "existing": 1, "key_held": 2, "replaced": 2} {
			if got := counts[`stint_jobs_submitted_total{status="`+status+`"}`]; got != n {
				t.Errorf("%v jobs are counted as %s, want %v", got, status, n)
			}
		}
		if n := counts[`stint_refusals_total{reason="UNIQUE_CONFLICT"}`]; n != 1 {
			t.Errorf("%v refusals are counted", n)
		}
		made := r.submit(&stintv1.JobSpec{Queue: "q", Unique: &stintv1.Unique{Key: "k"}})[0]
		if made.GetId() != "" || made.GetHolderId() != first.GetId() {
			t.Errorf("without an id: %v", made)
		}
	})
}

// TestUniqueRepeats: a submit whose answer was lost is repeated. The holder's is known by its id, whatever replaced its
// content; another one is answered by the key as it stands then.
func TestUniqueRepeats(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		first, second, third := only(returnExisting), only(returnExisting), only(replacePending)
		third.Subject = "third"
		for name, spec := range map[string]*stintv1.JobSpec{"first": first, "second": second} {
			r.cast.jobs[spec.GetId()] = name
		}
		expect := func(spec *stintv1.JobSpec, want string) {
			t.Helper()
			if got := r.met(spec); got != want {
				t.Errorf("answered %s; want %s", got, want)
			}
		}
		expect(first, "CREATED ready")
		expect(second, "KEY_HELD first ready")
		expect(third, "REPLACED first ready")
		expect(third, "REPLACED first ready")
		expect(first, "EXISTING ready")
		if got := r.job(first.GetId()).GetSubject(); got != "third" {
			t.Errorf("the holder is about %q", got)
		}
		run := r.claim("q")
		expect(third, "KEY_HELD first running")
		r.succeed(run)
		expect(second, "CREATED ready")
		expect(first, "EXISTING succeeded")
		expect(third, "REPLACED second ready")
	})
}

// TestReplaced: the holder is what the new job would be, but for its id, its place and when it was submitted.
func TestReplaced(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.limit("l", 3)
		large := letters(2000)
		for name, old := range map[string]*stintv1.JobSpec{
			"little": {}, "large": {Payload: text(letters(1500)), Priority: stintv1.Priority_PRIORITY_LOW},
			"later":  {Start: &stintv1.JobSpec_Delay{Delay: durationpb.New(time.Hour)}, StartBy: timestamppb.New(time.Now().Add(time.Hour))},
			"taking": {Limits: []*stintv1.LimitUse{{Name: "l"}}, Labels: map[string]string{"a": "b"}, Timeout: durationpb.New(time.Minute)},
		} {
			for _, as := range []*stintv1.JobSpec{
				{Payload: text("small")},
				{
					Payload: text(large), Priority: stintv1.Priority_PRIORITY_HIGH, Lease: durationpb.New(time.Minute), Subject: "s",
					Start: &stintv1.JobSpec_Delay{Delay: durationpb.New(time.Minute)}, StartBy: timestamppb.New(time.Now().Add(2 * time.Hour)),
					Retry: &stintv1.RetryPolicy{MaxAttempts: 2}, Labels: map[string]string{"x": "y"}, Limits: []*stintv1.LimitUse{{Name: "l", Units: 2}},
					Timeout: durationpb.New(time.Second), TraceContext: &stintv1.TraceContext{Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
				},
			} {
				key := newID()
				submit := func(like *stintv1.JobSpec, key string) *stintv1.SubmitResult {
					spec := proto.CloneOf(like)
					spec.Id, spec.Queue, spec.Unique = newID(), "q", &stintv1.Unique{Key: key, OnConflict: replacePending}
					return r.submit(spec)[0]
				}
				holder := submit(old, key).GetId()
				result := submit(as, key)
				fresh := submit(as, key+"x")
				if result.GetStatus() != stintv1.SubmitStatus_SUBMIT_STATUS_REPLACED || result.GetHolderId() != holder {
					t.Fatalf("%s: %v", name, result)
				}
				if diff := cmp.Diff(fresh.GetPolicy(), result.GetPolicy(), protocmp.Transform()); diff != "" {
					t.Errorf("%s: policy: %s", name, diff)
				}
				want, got := r.job(fresh.GetId()), r.job(holder)
				want.Unique.Key = key
				if diff := cmp.Diff(want, got, protocmp.Transform(), protocmp.IgnoreFields(&stintv1.Job{}, "id", "sequence", "etag")); diff != "" {
					t.Errorf("%s (-new +replaced): %s", name, diff)
				}
			}
		}
	})
}

// TestReplaceRefused: what a new job would be refused for, it is refused for in a holder's place.
func TestReplaceRefused(t *testing.T) {
	disk := newSmallDisk(1 << 40)
	config := rigConfig{}
	config.store.FS = disk
	inBubble(t, config, func(r *rig) {
		r.addSpec("j", only(reject))
		before := r.job(r.id("j"))
		taking := only(replacePending)
		taking.Limits = []*stintv1.LimitUse{{Name: "l"}}
		if got := r.met(taking); got != "LIMIT_NOT_FOUND" {
			t.Error(got)
		}
		disk.free.Store(0)
		time.Sleep(2 * time.Second)
		if got := r.met(only(replacePending)); got != "STORAGE_FULL" {
			t.Error(got)
		}
		if got := r.met(only(returnExisting), only(reject)); got != "KEY_HELD j ready, UNIQUE_CONFLICT j ready" {
			t.Error(got)
		}
		if diff := cmp.Diff(before, r.job(r.id("j")), protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
	})
}

// meddled is a store in which something happens between the read of a job and that of its payload.
type meddled struct {
	store.Store
	meanwhile func()
}

// View implements store.Store.
func (m *meddled) View(ctx context.Context, fn func(store.Reader) error) error {
	return m.Store.View(ctx, func(r store.Reader) error { return fn(meddledReader{r, m}) })
}

type meddledReader struct {
	store.Reader
	of *meddled
}

// Payload implements store.Reader.
func (r meddledReader) Payload(j *job.Job) ([]byte, error) {
	if meanwhile := r.of.meanwhile; meanwhile != nil {
		r.of.meanwhile = nil
		meanwhile()
	}
	return r.Reader.Payload(j)
}

// TestReplacedWhileRead: a job that is replaced while it is read is shown as it was, or as it is.
func TestReplacedWhileRead(t *testing.T) {
	m := &meddled{}
	inBubble(t, rigConfig{wrap: func(s store.Store) store.Store { m.Store = s; return m }}, func(r *rig) {
		first, second := only(replacePending), only(replacePending)
		first.Payload, first.Subject = text(letters(900)), "first"
		second.Payload, second.Subject = text("small"), "second"
		r.submit(first)
		m.meanwhile = func() { r.submit(second) }
		if j := r.job(first.GetId()); j.GetSubject() != "second" || string(j.GetPayload().GetData()) != "small" {
			t.Errorf("shown as %v", j)
		}
	})
}

// TestRetryTakesTheKey: a job that is reopened takes its key again, if nobody else holds it.
func TestRetryTakesTheKey(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		for _, name := range []string{"a", "b", "c"} {
			r.addSpec(name, only(reject))
			r.interrupt(name, cancel, "")
		}
		lines := func(results []*stintv1.JobResult) string { return strings.Join(r.resultLines(results), ", ") }
		if got, want := lines(r.retry(r.id("a"), r.id("b"), r.id("a"))), "a ready, bUNIQUE_CONFLICT cancelled, aINVALID_STATE ready"; got != want {
			t.Errorf("by ids: %s; want %s", got, want)
		}
		message := r.retry(r.id("c"))[0].GetError().GetMessage()
		if want := "job " + r.id("a") + ", which is READY, holds the unique key"; message != want {
			t.Errorf("refused with %q, want %q", message, want)
		}
		r.interrupt("a", cancel, "")
		dry, err := r.jobs.RetryJobs(r.ctx, &stintv1.RetryJobsRequest{Filter: &stintv1.JobFilter{UniqueKey: "k"}, DryRun: true})
		if err != nil || lines(dry.GetResults()) != "a ready" {
			t.Errorf("a dry run: %v, %v", dry, err)
		}
		if got := r.sweep("retry", ask{filter: &stintv1.JobFilter{UniqueKey: "k"}}); got != "a" {
			t.Errorf("by filter: %q", got)
		}

		// One that its start has freed runs beside a newer holder.
		started := only(reject)
		started.Unique.Key, started.Unique.Until, started.Queue = "s", untilStart, "p"
		r.addSpec("d", started)
		run := r.claim("p")
		r.accept(run)
		next := proto.CloneOf(started)
		r.addSpec("e", next)
		f := failure(run.GetLeaseToken())
		f.GetFailure().Final = true
		r.end(f)
		if got := lines(r.retry(r.id("d"))); got != "d ready" {
			t.Errorf("after its start: %s", got)
		}
		if r.job(r.id("d")).GetUnique().GetHeld() || !r.job(r.id("e")).GetUnique().GetHeld() {
			t.Error("the key went back to the older job")
		}
	})
}

// TestUniqueTTL: after its end a holder is named until its ttl is over, past the retention of its record, through a
// restart; a deleted one is not.
func TestUniqueTTL(t *testing.T) {
	fs := vfs.NewMem()
	config := func() rigConfig {
		c := forgetful()
		c.store.FS, c.store.Reserve = fs, -1
		return c
	}
	held := only(reject)
	held.Unique.Ttl = durationpb.New(24 * time.Hour)
	waiting := only(reject)
	waiting.Unique.Key = "w"
	var past time.Duration
	inBubble(t, config(), func(r *rig) {
		gone := only(reject)
		gone.Unique = &stintv1.Unique{Key: "gone", Ttl: held.Unique.Ttl}
		r.addSpec("gone", gone)
		r.succeed(r.claim("q"))
		if !r.job(r.id("gone")).GetUnique().GetHeld() {
			t.Error("the key is not held after the end")
		}
		if _, err := r.jobs.DeleteJobs(r.ctx, &stintv1.DeleteJobsRequest{Ids: []string{r.id("gone")}}); err != nil {
			t.Fatal(err)
		}
		if got := r.met(&stintv1.JobSpec{Id: newID(), Queue: "q", Unique: &stintv1.Unique{Key: "gone"}}); got != "CREATED ready" {
			t.Errorf("after the holder was deleted: %s", got)
		}
		r.succeed(r.claim("q"))
		r.submit(held)
		r.succeed(r.claim("q"))
		if got, want := r.job(held.GetId()).GetUnique().GetHeldUntil().AsTime(), time.Now().Add(24*time.Hour); !got.Equal(want) {
			t.Errorf("held until %v, want %v", got, want)
		}
		ended := time.Now()
		time.Sleep(12 * time.Hour)
		if _, err := r.jobs.GetJob(r.ctx, &stintv1.GetJobRequest{Id: held.GetId()}); err == nil {
			t.Fatal("its record is kept")
		}
		r.submit(waiting)
		past = time.Since(ended)
	})
	inBubble(t, config(), func(r *rig) { // which begins at the same time as the last one
		time.Sleep(past)
		r.cast.jobs[held.GetId()], r.cast.jobs[waiting.GetId()] = "held", "waiting"
		again := only(reject)
		again.Unique.Key = "w"
		if got := r.met(only(returnExisting), only(reject), only(replacePending), again); got !=
			"KEY_HELD held succeeded, UNIQUE_CONFLICT held succeeded, KEY_HELD held succeeded, UNIQUE_CONFLICT waiting ready" {
			t.Errorf("past its retention: %s", got)
		}
		if p := r.submit(only(returnExisting))[0].GetPolicy(); p != nil {
			t.Errorf("a policy is told: %v", p)
		}
		time.Sleep(12 * time.Hour)
		if got := r.met(only(reject)); got != "CREATED ready" {
			t.Errorf("after the ttl: %s", got)
		}
	})
}

// TestUniqueUnderLoad: many submit jobs with one key while many work on them. At no time are there two that have not
// finished, and every answer names a job that was created.
func TestUniqueUnderLoad(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		const submitters, workers, runs = 8, 4, 100
		var live, done atomic.Int32
		var mu sync.Mutex
		created, named := map[string]bool{}, map[string]bool{}
		var all sync.WaitGroup
		for range submitters {
			all.Go(func() {
				for done.Load() < runs {
					spec := only(returnExisting)
					answer, err := r.jobs.SubmitJobs(r.ctx, &stintv1.SubmitJobsRequest{Jobs: []*stintv1.JobSpec{spec}})
					if err != nil {
						t.Error(err)
						return
					}
					result := answer.GetResults()[0]
					mu.Lock()
					if result.GetStatus() == stintv1.SubmitStatus_SUBMIT_STATUS_CREATED {
						created[spec.GetId()] = true
					} else {
						named[result.GetHolderId()] = true
					}
					mu.Unlock()
				}
			})
		}
		for range workers {
			all.Go(func() {
				for done.Load() < runs {
					answer, err := r.workers.ClaimJobs(r.ctx, &stintv1.ClaimJobsRequest{
						Worker: "test", Queues: []string{"q"}, MaxRuns: 5, Wait: durationpb.New(time.Second),
					})
					if err != nil {
						t.Error(err)
						return
					}
					if n := live.Add(int32(len(answer.GetAssignments()))); n > 1 {
						t.Errorf("%d jobs run at once", n)
					}
					for _, a := range answer.GetAssignments() {
						live.Add(-1)
						r.succeed(a)
						done.Add(1)
					}
				}
			})
		}
		all.Wait()
		for id := range named {
			if !created[id] {
				t.Errorf("an answer names %q, which was not created", id)
			}
		}
		if n := int32(len(created)); n < done.Load() || n > done.Load()+1 {
			t.Errorf("%d jobs were created for %d runs", n, done.Load())
		}
	})
}

// TestReplaceReopened: a submit may give a job that was reopened without ever having run another start_by; that one may be
// changed, and taken back.
func TestReplaceReopened(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.addSpec("j", only(reject))
		id := r.id("j")
		r.park(id)
		r.retry(id)
		within := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(time.Now().Add(d)) }
		replacing := only(replacePending)
		replacing.StartBy = within(time.Minute)
		if got := r.met(replacing); got != "REPLACED j ready" {
			t.Fatal(got)
		}
		later := within(time.Hour)
		if got := r.update(id, &stintv1.JobUpdate{StartBy: later}, "start_by").GetStartBy(); !proto.Equal(got, later) {
			t.Errorf("it shall start by %v, want %v", got, later)
		}
		time.Sleep(2 * time.Minute)
		if got := r.update(id, &stintv1.JobUpdate{}, "start_by").GetStartBy(); got != nil {
			t.Errorf("freed, it shall start by %v", got)
		}
		time.Sleep(2 * time.Hour)
		if got := r.job(id).GetState(); got != stintv1.JobState_JOB_STATE_READY {
			t.Errorf("it is %s", got)
		}
	})
}

// TestReplaceParked: a PARKED holder has the newest content, but is left alone by a submit whose start, or start_by, its
// release would not keep.
func TestReplaceParked(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.addSpec("j", only(reject))
		r.park(r.id("j"))
		later, by, whenever, past := only(replacePending), only(replacePending), only(replacePending), only(replacePending)
		later.Start = &stintv1.JobSpec_Delay{Delay: durationpb.New(time.Minute)}
		by.StartBy = timestamppb.New(time.Now().Add(time.Hour))
		past.Start = &stintv1.JobSpec_RunAt{RunAt: timestamppb.New(time.Now().Add(-time.Hour))}
		later.Subject, by.Subject, whenever.Subject, past.Subject = "later", "by", "whenever", "past"
		for _, c := range []struct {
			spec          *stintv1.JobSpec
			says, subject string
		}{
			{later, "KEY_HELD j parked", ""},
			{whenever, "REPLACED j parked", "whenever"},
			{by, "KEY_HELD j parked", "whenever"},
			{past, "REPLACED j parked", "past"},
		} {
			if got := r.met(c.spec); got != c.says {
				t.Errorf("%s: %s, want %s", c.spec.GetSubject(), got, c.says)
			}
			if got := r.job(r.id("j")).GetSubject(); got != c.subject {
				t.Errorf("after %s it is about %q", c.spec.GetSubject(), got)
			}
		}
		r.retry(r.id("j"))
		if a := r.claim("q"); a.GetJobId() != r.id("j") || a.GetSubject() != "past" {
			t.Errorf("released, it runs as %v", a)
		}
	})
}

// TestReplaceFairnessKey: a holder that is replaced by a job of another fairness key goes to the end of that one's line.
func TestReplaceFairnessKey(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		a := only(reject)
		a.FairnessKey = "x"
		r.addSpec("a", a)
		r.addSpec("b", &stintv1.JobSpec{Queue: "q", FairnessKey: "y"})
		replacing := only(replacePending)
		replacing.FairnessKey = "y"
		if got := r.met(replacing); got != "REPLACED a ready" {
			t.Fatal(got)
		}
		if got := r.job(r.id("a")).GetFairnessKey(); got != "y" {
			t.Errorf("its fairness key is %q", got)
		}
		for _, want := range []string{"b", "a"} {
			if got := r.cast.jobs[r.claim("q").GetJobId()]; got != want {
				t.Errorf("%q is claimed, want %q", got, want)
			}
		}
	})
}

// TestReplaceWithdrawn: a holder whose only run was taken back before its worker had named it is replaced, and nothing that
// run says later comes of it.
func TestReplaceWithdrawn(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.addSpec("j", only(reject))
		withdrawn := r.claim("q")
		if got := r.interrupt("j", retry, "").GetStatus(); got != stintv1.InterruptStatus_INTERRUPT_STATUS_WITHDRAWN {
			t.Fatal(got)
		}
		replacing := only(replacePending)
		replacing.Subject = "new"
		if got := r.met(replacing); got != "REPLACED j ready" {
			t.Fatal(got)
		}
		late, err := r.workers.FinishRuns(r.ctx, &stintv1.FinishRunsRequest{Finishes: []*stintv1.Finish{
			{LeaseToken: withdrawn.GetLeaseToken(), Outcome: &stintv1.Finish_Success{Success: &stintv1.Success{}}},
		}})
		if err != nil || late.GetAcks()[0].GetStatus() != stintv1.FinishStatus_FINISH_STATUS_SUPERSEDED {
			t.Errorf("the withdrawn run finishes: %v, %v", late, err)
		}
		if a := r.claim("q"); a.GetJobId() != r.id("j") || a.GetSubject() != "new" {
			t.Errorf("it runs as %v", a)
		}
	})
}
