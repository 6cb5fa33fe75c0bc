package server_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// setPolicy sets a queue's policy.
func (r *rig) setPolicy(name, etag string, policy *stintv1.QueuePolicy) (*stintv1.Queue, error) {
	answer, err := r.queues.UpdateQueue(r.ctx, &stintv1.UpdateQueueRequest{Name: name, Etag: etag, Policy: policy})
	return answer.GetQueue(), err
}

// everyRetry are retry policies: of each curve one with all its numbers, which say all the rest too, and one with none.
func everyRetry() []*stintv1.RetryPolicy {
	s, m := durationpb.New(time.Second), durationpb.New(time.Minute)
	return []*stintv1.RetryPolicy{
		{
			Backoff: &stintv1.RetryPolicy_Exponential{Exponential: &stintv1.ExponentialBackoff{Initial: s, Max: m, Multiplier: 3}}, MaxAttempts: 2,
			Deadline: m, InterruptDelay: s, OnFailure: stintv1.OnFailure_ON_FAILURE_PARK,
		},
		{
			Backoff: &stintv1.RetryPolicy_Linear{Linear: &stintv1.LinearBackoff{Initial: s, Increment: durationpb.New(0), Max: m}}, MaxAttempts: 2,
			Deadline: durationpb.New(0), InterruptDelay: durationpb.New(0), OnFailure: stintv1.OnFailure_ON_FAILURE_FAIL,
		},
		{
			Backoff: &stintv1.RetryPolicy_Constant{Constant: &stintv1.ConstantBackoff{Delay: s}}, MaxAttempts: 2,
			Deadline: m, InterruptDelay: s, OnFailure: stintv1.OnFailure_ON_FAILURE_RETRY,
		},
		{Backoff: &stintv1.RetryPolicy_Exponential{Exponential: &stintv1.ExponentialBackoff{}}},
		{Backoff: &stintv1.RetryPolicy_Linear{Linear: &stintv1.LinearBackoff{}}},
		{Backoff: &stintv1.RetryPolicy_Constant{Constant: &stintv1.ConstantBackoff{}}},
	}
}

func leaseOf(d time.Duration) *stintv1.QueuePolicy {
	return &stintv1.QueuePolicy{Lease: durationpb.New(d)}
}

// TestUpdateQueue: a policy is replaced whole, makes its queue, and holds for jobs that wait already.
func TestUpdateQueue(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		start := timestamppb.Now()
		for _, p := range everyRetry() {
			p := &stintv1.QueuePolicy{Retry: p}
			q, err := r.setPolicy("curves", "", p)
			again, err2 := r.setPolicy("curves", "", p)
			if err != nil || err2 != nil || again.GetEtag() != q.GetEtag() {
				t.Errorf("%v, %v; set twice, the version is %s, then %s", err, err2, q.GetEtag(), again.GetEtag())
			}
			if diff := cmp.Diff(p, r.queue("curves").GetPolicy(), protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
		}
		whole := &stintv1.QueuePolicy{Lease: durationpb.New(time.Minute), Retry: &stintv1.RetryPolicy{
			MaxAttempts: 3, Backoff: &stintv1.RetryPolicy_Exponential{Exponential: &stintv1.ExponentialBackoff{
				Initial: durationpb.New(0), Max: durationpb.New(time.Hour), Multiplier: 1.5,
			}},
		}}
		made, err := r.setPolicy("q", "", whole)
		if err != nil {
			t.Fatal(err)
		}
		want := &stintv1.Queue{Name: "q", Policy: whole, Counts: &stintv1.JobCounts{}, CreateTime: start, Etag: made.GetEtag()}
		for what, got := range map[string]*stintv1.Queue{"answer": made, "read": r.queue("q")} {
			if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
				t.Error(what, diff)
			}
		}
		r.add("q", "a", "b")
		if _, err := r.setPolicy("q", "", leaseOf(10*time.Second)); err != nil {
			t.Fatal(err)
		}
		if got := r.queue("q").GetPolicy(); !cmp.Equal(got, leaseOf(10*time.Second), protocmp.Transform()) {
			t.Errorf("the policy is %v: what was left out did not go", got)
		}
		if got := r.claim("q").GetLease().AsDuration(); got != 10*time.Second {
			t.Errorf("a job that waited has the lease %s", got)
		}
		if _, err := r.setPolicy("q", "", nil); err != nil {
			t.Fatal(err)
		}
		if got := r.queue("q").GetPolicy(); got != nil {
			t.Errorf("the policy is %v, want none", got)
		}
		if got := r.claim("q").GetLease().AsDuration(); got != 30*time.Second {
			t.Errorf("without a policy the lease is %s", got)
		}
	})
}

// TestQueueEtag: the etag changes with policy and pause and with nothing else, and a change based on an old one is
// refused, also on a queue that was deleted and made again in between.
func TestQueueEtag(t *testing.T) {
	config := rigConfig{}
	config.store.Retain, config.store.Remember = time.Minute, time.Minute // a deleted queue is forgotten with finished jobs
	inBubble(t, config, func(r *rig) {
		seen := map[string]string{}
		changed := func(what string) string {
			t.Helper()
			etag := r.queue("q").GetEtag()
			if before, known := seen[etag]; known {
				t.Errorf("after %s the etag is that after %s", what, before)
			}
			seen[etag] = what
			return etag
		}
		same := func(what, etag string) {
			t.Helper()
			if got := r.queue("q").GetEtag(); got != etag {
				t.Errorf("%s changed the etag", what)
			}
		}
		old, err := r.setPolicy("q", "", leaseOf(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		etag := changed("the first policy")
		if _, err := r.setPolicy("q", etag, leaseOf(time.Minute)); err != nil {
			t.Fatal(err)
		}
		r.add("q", "a")
		same("the same policy, and a job,", etag)
		if _, err := r.setPolicy("q", etag, leaseOf(time.Hour)); err != nil {
			t.Error("with its etag:", err)
		}
		etag = changed("another policy")
		if _, err := r.setPolicy("q", old.GetEtag(), leaseOf(time.Second*7)); ofCall(err).reason != stintv1.Reason_REASON_ETAG_MISMATCH {
			t.Error("with an old etag:", err)
		}
		same("a refused change", etag)
		r.pause("q", "one")
		etag = changed("a pause")
		r.pause("q", "two")
		same("a second pause", etag)
		r.resume("q")
		etag = changed("a resume")
		r.resume("q")
		same("a second resume", etag)
		if _, err := r.jobs.DeleteJobs(r.ctx, &stintv1.DeleteJobsRequest{Ids: []string{r.id("a")}}); err != nil {
			t.Fatal(err)
		}
		if _, err := r.queues.DeleteQueue(r.ctx, &stintv1.DeleteQueueRequest{Name: "q"}); err != nil {
			t.Fatal(err)
		}
		if _, err := r.setPolicy("q", etag, nil); ofCall(err).reason != stintv1.Reason_REASON_ETAG_MISMATCH {
			t.Error("with the etag of a deleted queue:", err)
		}
		r.add("other", "b")
		r.succeed(r.claim("other"))
		time.Sleep(time.Hour)
		if _, err := r.setPolicy("q", "", leaseOf(time.Minute)); err != nil {
			t.Fatal(err)
		}
		changed("a new queue of the name")
	})
}

func (r *rig) pause(name, reason string) *stintv1.Queue {
	r.t.Helper()
	answer, err := r.queues.PauseQueue(r.ctx, &stintv1.PauseQueueRequest{Name: name, Reason: reason, Requester: "ada"})
	if err != nil {
		r.t.Fatal(err)
	}
	return answer.GetQueue()
}

func (r *rig) resume(name string) *stintv1.Queue {
	r.t.Helper()
	answer, err := r.queues.ResumeQueue(r.ctx, &stintv1.ResumeQueueRequest{Name: name})
	if err != nil {
		r.t.Fatal(err)
	}
	return answer.GetQueue()
}

// TestPauseQueue: a paused queue takes jobs and lets runs go on, but hands nothing out, to streams and calls alike; a
// resume is felt at once.
func TestPauseQueue(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		w := r.work()
		w.say(hello(newInstance()))
		w.say(demand(1, "q", 2))
		r.add("q", "a")
		w.say(seen(1))
		w.skip()
		paused := timestamppb.Now()
		w.step("pause", func() { r.pause("q", "broken"); r.pause("q", "again") })
		w.step("submit b", func() { r.add("q", "b") })
		w.say(report(r.token("a/1")))
		w.pass(10 * time.Second)
		want := &stintv1.QueuePause{Reason: "broken", Requester: "ada", PauseTime: paused}
		if diff := cmp.Diff(want, r.queue("q").GetPause(), protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
		if got := r.claimed(&stintv1.ClaimJobsRequest{Queues: []string{"q"}}); got != "" {
			t.Errorf("a claim of a paused queue brought %s", got)
		}
		w.step("resume", func() { r.resume("q") })
		w.expect(`
			- pause
			- submit b
			> 4, report a/1
			< report 4; a/1 CONTINUE 30s, next in ~3s
			- 10s pass
			- resume
			< assignment 2: b/1 of q in pool 0`)
		if got := r.queue("q").GetPause(); got != nil {
			t.Errorf("the queue has the pause %v", got)
		}
	})
}

// TestDeleteQueueByForce: what waits goes with the queue; while something runs the queue stays.
func TestDeleteQueueByForce(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		force := func(want said, deleted uint64) {
			t.Helper()
			answer, err := r.queues.DeleteQueue(r.ctx, &stintv1.DeleteQueueRequest{Name: "q", Force: true})
			if got := ofCall(err); got != want || answer.GetDeletedJobs() != deleted {
				t.Errorf("%v, %d deleted; want %v, %d", got, answer.GetDeletedJobs(), want, deleted)
			}
		}
		notEmpty := said{stintv1.Reason_REASON_QUEUE_NOT_EMPTY, codes.FailedPrecondition, "", false}
		force(said{stintv1.Reason_REASON_QUEUE_NOT_FOUND, codes.NotFound, "", false}, 0)
		id := r.submit(&stintv1.JobSpec{Queue: "q"})[0].GetId()
		run := r.claim("q")
		for range 3 {
			specs := make([]*stintv1.JobSpec, 800)
			for i := range specs {
				specs[i] = &stintv1.JobSpec{Queue: "q", Start: &stintv1.JobSpec_Delay{Delay: durationpb.New(time.Duration(i%2) * time.Hour)}}
			}
			r.submit(specs...)
		}
		other := r.submit(&stintv1.JobSpec{Queue: "q/r"})[0].GetId()
		force(notEmpty, 0)
		if c := r.queue("q").GetCounts(); c.GetReady()+c.GetScheduled() != 0 || c.GetRunning() != 1 {
			t.Errorf("left are %v", c)
		}
		r.submit(&stintv1.JobSpec{Queue: "q"}, &stintv1.JobSpec{Queue: "q"})
		r.accept(run)
		r.succeed(run)
		force(said{}, 2)
		if r.job(id).GetState() != stintv1.JobState_JOB_STATE_SUCCEEDED || r.job(other).GetState() != stintv1.JobState_JOB_STATE_READY {
			t.Error("it took others with it")
		}
	})
}

// TestDeleteQueue: a queue with unfinished jobs stays; when it goes its finished jobs stay readable.
func TestDeleteQueue(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		remove := func() said {
			_, err := r.queues.DeleteQueue(r.ctx, &stintv1.DeleteQueueRequest{Name: "q"})
			return ofCall(err)
		}
		if got := remove(); got.reason != stintv1.Reason_REASON_QUEUE_NOT_FOUND {
			t.Errorf("a queue that is not there: %s", got)
		}
		if _, err := r.setPolicy("q", "", leaseOf(time.Minute)); err != nil {
			t.Fatal(err)
		}
		r.add("q", "a")
		if got := remove(); got.reason != stintv1.Reason_REASON_QUEUE_NOT_EMPTY {
			t.Errorf("with a job that is ready: %s", got)
		}
		a := r.claim("q")
		if got := remove(); got.reason != stintv1.Reason_REASON_QUEUE_NOT_EMPTY {
			t.Errorf("with a job that runs: %s", got)
		}
		r.succeed(a)
		if got := remove(); got != (said{}) {
			t.Errorf("with a job that is finished: %s", got)
		}
		for _, call := range []func() error{
			func() error { _, err := r.queues.GetQueue(r.ctx, &stintv1.GetQueueRequest{Name: "q"}); return err },
			func() error { _, err := r.queues.PauseQueue(r.ctx, &stintv1.PauseQueueRequest{Name: "q"}); return err },
			func() error {
				_, err := r.queues.ResumeQueue(r.ctx, &stintv1.ResumeQueueRequest{Name: "q"})
				return err
			},
		} {
			if got := ofCall(call()); got.reason != stintv1.Reason_REASON_QUEUE_NOT_FOUND {
				t.Errorf("a call about the deleted queue: %s", got)
			}
		}
		if got := r.job(r.id("a")); got.GetQueue() != "q" || got.GetState() != succeeded {
			t.Errorf("its job became %v", got)
		}
		r.add("q", "b")
		if got := r.queue("q"); got.GetPolicy() != nil {
			t.Errorf("the name came back with the policy %v", got.GetPolicy())
		}
	})
}

// TestQueueCounts: a queue shows how many jobs it has in each state, and the age of the one that has been ready longest.
func TestQueueCounts(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.add("q", "a")
		time.Sleep(time.Minute)
		r.addSpec("b", &stintv1.JobSpec{Queue: "q", Priority: stintv1.Priority_PRIORITY_VERY_HIGH})
		time.Sleep(time.Second)
		if got := r.queue("q").GetOldestReadyAge().AsDuration(); got != 61*time.Second {
			t.Errorf("the oldest has been ready for %s", got)
		}
		r.end(failure(r.claim("q").GetLeaseToken()))
		r.accept(r.claim("q"))
		if diff := cmp.Diff(&stintv1.JobCounts{Backoff: 1, Running: 1}, r.queue("q").GetCounts(), protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
		if got := r.queue("q").GetOldestReadyAge(); got != nil {
			t.Errorf("without a ready job the oldest has been ready for %s", got.AsDuration())
		}
	})
}

// TestQueueExists: a queue exists from its first submit, claim, demand or UpdateQueue.
func TestQueueExists(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.add("submit", "a")
		r.claimed(&stintv1.ClaimJobsRequest{Queues: []string{"claim"}})
		w := r.work()
		w.say(hello(newInstance()))
		w.say(demand(1, "demand", 1))
		if _, err := r.setPolicy("update", "", nil); err != nil {
			t.Fatal(err)
		}
		if got := r.listQueues("", 0); got != "claim demand submit update" {
			t.Errorf("there are %s", got)
		}
	})
}

// listQueues reads all pages and returns the queues' names, with a bar between pages.
func (r *rig) listQueues(pattern string, size uint32) string {
	r.t.Helper()
	var pages []string
	for token := ""; len(pages) == 0 || token != ""; {
		page, err := r.queues.ListQueues(r.ctx, &stintv1.ListQueuesRequest{Queue: pattern, PageSize: size, PageToken: token})
		if err != nil {
			r.t.Fatal(err)
		}
		var names []string
		for _, q := range page.GetQueues() {
			names = append(names, q.GetName())
		}
		pages, token = append(pages, strings.Join(names, " ")), page.GetNextPageToken()
	}
	return strings.Join(pages, " | ")
}

// TestListQueues: queues are listed by name, those of the pattern only, on pages of any size.
func TestListQueues(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		for _, name := range []string{"media2", "media/b", "media", "a", "media/a/x", "media-x", "z"} {
			if _, err := r.setPolicy(name, "", nil); err != nil {
				t.Fatal(err)
			}
		}
		for _, row := range []struct {
			pattern string
			size    uint32
			want    string
		}{
			{"", 0, "a media media-x media/a/x media/b media2 z"},
			{"*", 3, "a media media-x | media/a/x media/b media2 | z"},
			{"media/*", 0, "media/a/x media/b"},
			{"media/*", 1, "media/a/x | media/b"},
			{"media", 1, "media"},
			{"none", 1, ""},
		} {
			if got := r.listQueues(row.pattern, row.size); got != row.want {
				t.Errorf("%q by %d: %q, want %q", row.pattern, row.size, got, row.want)
			}
		}
	})
}

// TestRetryInDeletedQueue: a job that goes on after its queue was deleted has a queue again, without a policy.
func TestRetryInDeletedQueue(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		if _, err := r.setPolicy("q", "", leaseOf(time.Minute)); err != nil {
			t.Fatal(err)
		}
		r.addSpec("a", only(reject))
		r.add("q", "b")
		r.interrupt("a", cancel, "")
		r.interrupt("b", cancel, "")
		remove := func(name string) {
			t.Helper()
			if _, err := r.queues.DeleteQueue(r.ctx, &stintv1.DeleteQueueRequest{Name: name}); err != nil {
				t.Fatal(err)
			}
		}
		remove("q")
		dry, err := r.jobs.RetryJobs(r.ctx, &stintv1.RetryJobsRequest{Ids: []string{r.id("a")}, DryRun: true})
		if err != nil || dry.GetResults()[0].GetError() != nil {
			t.Errorf("a dry run: %v, %v", dry, err)
		}
		if _, err := r.queues.GetQueue(r.ctx, &stintv1.GetQueueRequest{Name: "q"}); ofCall(err).reason != stintv1.Reason_REASON_QUEUE_NOT_FOUND {
			t.Errorf("after a dry run: %v", err)
		}
		if got := strings.Join(r.resultLines(r.retry(r.id("a"), r.id("b"))), ", "); got != "a ready, b ready" {
			t.Errorf("retried: %s", got)
		}
		if q := r.queue("q"); q.GetPolicy() != nil {
			t.Errorf("the queue has the old policy: %v", q)
		}
		counts, err := r.jobs.CountJobs(r.ctx, &stintv1.CountJobsRequest{Filter: &stintv1.JobFilter{Queue: "q", States: []stintv1.JobState{ready}}})
		if err != nil || counts.GetCounts().GetReady() != 2 {
			t.Errorf("counted: %v, %v", counts, err)
		}
		if got := r.met(only(returnExisting)); got != "KEY_HELD a ready" {
			t.Errorf("of its key: %s", got)
		}
		for range 2 {
			r.succeed(r.claim("q"))
		}
		remove("q")
	})
}
