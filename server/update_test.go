package server_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// mask names fields.
func mask(paths ...string) *fieldmaskpb.FieldMask { return &fieldmaskpb.FieldMask{Paths: paths} }

// update changes fields of a job.
func (r *rig) update(id string, u *stintv1.JobUpdate, paths ...string) *stintv1.Job {
	r.t.Helper()
	answer, err := r.jobs.UpdateJob(r.ctx, &stintv1.UpdateJobRequest{Id: id, Update: u, UpdateMask: mask(paths...)})
	if err != nil {
		r.t.Fatal(err)
	}
	return answer.GetJob()
}

func (r *rig) updates(m *stintv1.UpdateJobRequest) said {
	_, err := r.jobs.UpdateJob(r.ctx, m)
	return ofCall(err)
}

// units is what a job takes of key "" of a limit.
func units(name string, n uint32) []*stintv1.LimitUse {
	return []*stintv1.LimitUse{{Name: name, Units: n}}
}

// TestUpdateRefusals: what is wrong with an update is told by the path of the field, and nothing of it is done.
func TestUpdateRefusals(t *testing.T) {
	const (
		field, state = stintv1.Reason_REASON_INVALID_FIELD, stintv1.Reason_REASON_INVALID_STATE
		invalid      = codes.InvalidArgument
	)
	later := &stintv1.JobUpdate_RunAt{RunAt: timestamppb.New(time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC))}
	inBubble(t, rigConfig{}, func(r *rig) {
		r.limit("l", 2)
		r.add("q", "ready")
		r.add("run", "running")
		r.add("q", "cancelled")
		r.interrupt("cancelled", cancel, "")
		r.accept(r.claim("run"))
		for name, c := range map[string]struct {
			job    string
			update *stintv1.JobUpdate
			paths  []string
			want   said
		}{
			"no mask":            {"ready", &stintv1.JobUpdate{Subject: "s"}, nil, said{field, invalid, "update_mask", false}},
			"no such field":      {"ready", nil, []string{"subject", "colour"}, said{field, invalid, "update_mask", false}},
			"the queue":          {"ready", nil, []string{"queue"}, said{field, invalid, "update_mask", false}},
			"a part":             {"ready", nil, []string{"labels.a"}, said{field, invalid, "update_mask", false}},
			"a priority":         {"ready", &stintv1.JobUpdate{Priority: 7}, []string{"*"}, said{field, invalid, "update.priority", false}},
			"a name":             {"ready", &stintv1.JobUpdate{Limits: []*stintv1.LimitUse{{Name: "L"}}}, []string{"limits"}, said{field, invalid, "update.limits[0].name", false}},
			"attempts":           {"ready", &stintv1.JobUpdate{Retry: &stintv1.RetryPolicy{MaxAttempts: 5000}}, []string{"retry"}, said{field, invalid, "update.retry.max_attempts", false}},
			"labels":             {"ready", &stintv1.JobUpdate{Labels: labels(65)}, []string{"labels"}, said{tooLarge, invalid, "update.labels", false}},
			"no limit":           {"ready", &stintv1.JobUpdate{Limits: units("m", 1)}, []string{"limits"}, said{stintv1.Reason_REASON_LIMIT_NOT_FOUND, codes.NotFound, "update.limits", false}},
			"units":              {"ready", &stintv1.JobUpdate{Limits: units("l", 3)}, []string{"limits"}, said{stintv1.Reason_REASON_UNITS_OVER_LIMIT, codes.FailedPrecondition, "update.limits", false}},
			"one that has ended": {"cancelled", nil, []string{"subject"}, said{state, codes.FailedPrecondition, "", false}},
			"a start while it runs": {
				"running", &stintv1.JobUpdate{Start: later}, []string{"run_at"}, said{state, codes.FailedPrecondition, "update.run_at", false},
			},
			"a start_by once it has started": {
				"running", &stintv1.JobUpdate{StartBy: later.RunAt}, []string{"start_by"}, said{state, codes.FailedPrecondition, "update.start_by", false},
			},
		} {
			before := r.job(r.id(c.job))
			if got := r.updates(&stintv1.UpdateJobRequest{Id: r.id(c.job), Update: c.update, UpdateMask: mask(c.paths...)}); got != c.want {
				t.Errorf("%s: %s, want %s", name, got, c.want)
			}
			if diff := cmp.Diff(before, r.job(r.id(c.job)), protocmp.Transform()); diff != "" {
				t.Errorf("%s: it was refused and changed:\n%s", name, diff)
			}
		}
		good := func() *stintv1.UpdateJobRequest {
			return &stintv1.UpdateJobRequest{Id: r.id("ready"), Update: &stintv1.JobUpdate{Subject: "s"}, UpdateMask: mask("subject")}
		}
		for name, c := range map[string]struct {
			edit func(*stintv1.UpdateJobRequest)
			want said
		}{
			"id":         {func(m *stintv1.UpdateJobRequest) { m.Id = "x" }, said{field, invalid, "id", false}},
			"reason":     {func(m *stintv1.UpdateJobRequest) { m.Reason = letters(1025) }, said{field, invalid, "reason", false}},
			"requester":  {func(m *stintv1.UpdateJobRequest) { m.Requester = letters(201) }, said{field, invalid, "requester", false}},
			"request_id": {func(m *stintv1.UpdateJobRequest) { m.RequestId = letters(65) }, said{field, invalid, "request_id", false}},
			"no job":     {func(m *stintv1.UpdateJobRequest) { m.Id = newID() }, said{stintv1.Reason_REASON_JOB_NOT_FOUND, codes.NotFound, "", false}},
			"etag":       {func(m *stintv1.UpdateJobRequest) { m.Etag = "1-9" }, said{stintv1.Reason_REASON_ETAG_MISMATCH, codes.Aborted, "etag", false}},
		} {
			m := good()
			if c.edit(m); r.updates(m) != c.want {
				t.Errorf("%s: %s, want %s", name, r.updates(m), c.want)
			}
		}
		_, err := r.jobs.UpdateJob(r.ctx, &stintv1.UpdateJobRequest{Id: r.id("ready"), UpdateMask: mask("colour")})
		if err == nil || !strings.Contains(err.Error(), `"colour"`) || !strings.Contains(err.Error(), "priority, run_at, delay, start_by, timeout, lease, retry, labels, subject, fairness_key, limits") {
			t.Errorf("a path that is not known is told as: %v", err)
		}
	})
}

// TestUpdateOverTheWire: what the mask names is changed, what it does not name is not read, what is named and absent goes
// back to its default, and a change of nothing leaves the etag. The submit is still known.
func TestUpdateOverTheWire(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.limit("l", 2)
		spec := &stintv1.JobSpec{Id: newID(), Queue: "q", Subject: "old", Labels: map[string]string{"a": "b"}, Timeout: durationpb.New(time.Minute)}
		r.submit(spec)
		want := r.job(spec.GetId())
		check := func(what string, got *stintv1.Job) {
			t.Helper()
			want.Etag, want.Actions = got.GetEtag(), nil
			if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", what, diff)
			}
		}
		all := &stintv1.JobUpdate{
			Priority: stintv1.Priority_PRIORITY_HIGH, Subject: "new", Labels: map[string]string{"c": "d"}, Lease: durationpb.New(time.Hour),
			Timeout: durationpb.New(time.Hour), Limits: units("l", 2), StartBy: timestamppb.New(time.Now().Add(2 * time.Hour)),
			Retry: &stintv1.RetryPolicy{MaxAttempts: 2}, Start: &stintv1.JobUpdate_Delay{Delay: durationpb.New(time.Hour)},
		}
		got := r.update(spec.GetId(), all, "subject", "labels")
		want.Subject, want.Labels = "new", all.GetLabels()
		check("two fields", got)
		if again := r.update(spec.GetId(), all, "labels", "subject"); again.GetEtag() != got.GetEtag() {
			t.Errorf("a change of nothing: etag %s after %s", again.GetEtag(), got.GetEtag())
		}
		policy := want.GetPolicy()
		want.State, want.DueTime, want.StartBy = stintv1.JobState_JOB_STATE_SCHEDULED, timestamppb.New(time.Now().Add(time.Hour)), all.GetStartBy()
		want.Priority, want.Timeout, want.Limits = all.GetPriority(), all.GetTimeout(), all.GetLimits()
		got = r.update(spec.GetId(), all, "*")
		if got.GetPolicy().GetLease().AsDuration() != time.Hour || got.GetPolicy().GetRetry().GetMaxAttempts() != 2 {
			t.Errorf("its policy is %v", got.GetPolicy())
		}
		want.Policy = got.GetPolicy()
		check("all fields", got)
		want.State, want.DueTime, want.StartBy = stintv1.JobState_JOB_STATE_READY, nil, nil
		want.Priority, want.Timeout, want.Limits, want.Policy = stintv1.Priority_PRIORITY_NORMAL, nil, nil, policy
		want.Subject, want.Labels = "", nil
		check("back to the defaults", r.update(spec.GetId(), nil, "*"))
		if again := r.submit(spec)[0]; again.GetStatus() != stintv1.SubmitStatus_SUBMIT_STATUS_EXISTING {
			t.Errorf("the submit again: %v", again)
		}
		for _, path := range []string{"run_at", "delay"} { // two names of the same
			if got := r.update(spec.GetId(), all, path); got.GetState() != stintv1.JobState_JOB_STATE_SCHEDULED {
				t.Errorf("%s: %s", path, got.GetState())
			}
			if got := r.update(spec.GetId(), nil, path); got.GetState() != stintv1.JobState_JOB_STATE_READY {
				t.Errorf("%s again: %s", path, got.GetState())
			}
		}
		r.update(spec.GetId(), &stintv1.JobUpdate{StartBy: timestamppb.New(time.Now().Add(time.Minute))}, "start_by")
		time.Sleep(2 * time.Minute)
		if got := r.job(spec.GetId()).GetState(); got != stintv1.JobState_JOB_STATE_EXPIRED {
			t.Errorf("after its start_by it is %s", got)
		}
	})
}

// TestUpdateRepeated: the repeat of a named request is answered with the job as it is, whatever its etag; under another
// name the etag holds.
func TestUpdateRepeated(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.add("q", "a")
		m := &stintv1.UpdateJobRequest{
			Id: r.id("a"), Update: &stintv1.JobUpdate{Subject: "s"}, UpdateMask: mask("subject"), Etag: r.job(r.id("a")).GetEtag(),
			Reason: "why", Requester: "ops", RequestId: "r1",
		}
		first, err := r.jobs.UpdateJob(r.ctx, m)
		if err != nil {
			t.Fatal(err)
		}
		if actions := r.job(r.id("a")).GetActions(); len(actions) != 1 || actions[0].GetKind() != stintv1.ActionKind_ACTION_KIND_UPDATE ||
			actions[0].GetReason() != "why" || actions[0].GetRequester() != "ops" || actions[0].GetRequestId() != "r1" {
			t.Errorf("it remembers %v", actions)
		}
		r.update(r.id("a"), &stintv1.JobUpdate{Subject: "newer"}, "subject")
		again, err := r.jobs.UpdateJob(r.ctx, m)
		if err != nil || again.GetJob().GetSubject() != "newer" || again.GetJob().GetEtag() == first.GetJob().GetEtag() {
			t.Errorf("again: %v, %v", again, err)
		}
		r.succeed(r.claim("q"))
		if again, err = r.jobs.UpdateJob(r.ctx, m); err != nil || again.GetJob().GetState() != stintv1.JobState_JOB_STATE_SUCCEEDED {
			t.Errorf("again in the end: %v, %v", again, err)
		}
		m.RequestId = "r2"
		if got := r.updates(m); got.reason != stintv1.Reason_REASON_ETAG_MISMATCH {
			t.Errorf("under another name: %s", got)
		}
	})
}

// TestUpdateWaiting: a READY job that takes something else is judged by that at once, and one of a higher band goes first.
func TestUpdateWaiting(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.limit("l", 1)
		r.limit("m", 1)
		submit := func(uses ...*stintv1.LimitUse) string { return r.submit(limited("q", uses...))[0].GetId() }
		submit(units("l", 1)...)
		holder := r.claim("q")
		r.accept(holder)
		first, second, third := submit(units("l", 1)...), submit(units("l", 1)...), submit(units("l", 1)...)
		if got := r.claimed(&stintv1.ClaimJobsRequest{Worker: "w", Queues: []string{"q"}}); got != "" {
			t.Fatalf("claimed %s while the key is full", got)
		}
		waiting := make(chan *stintv1.ClaimJobsResponse)
		go func() {
			answer, err := r.workers.ClaimJobs(r.ctx, &stintv1.ClaimJobsRequest{Worker: "w", Queues: []string{"q"}, Wait: durationpb.New(time.Minute)})
			if err != nil {
				t.Error(err)
			}
			waiting <- answer
		}()
		synctest.Wait()
		r.update(second, &stintv1.JobUpdate{Limits: units("m", 1)}, "limits")
		if got := (<-waiting).GetAssignments(); len(got) != 1 || got[0].GetJobId() != second {
			t.Fatalf("claimed %v, want job %s", got, second)
		}
		r.update(third, &stintv1.JobUpdate{Priority: stintv1.Priority_PRIORITY_HIGH}, "priority")
		r.succeed(holder)
		for _, want := range []string{third, first} {
			a := r.claim("q")
			if a.GetJobId() != want {
				t.Errorf("job %s came, want %s", a.GetJobId(), want)
			}
			r.succeed(a)
		}
	})
}

// TestUpdateRunning: a run goes on as it began, with what it took, its lease and its timeout; the next one is under the
// new words.
func TestUpdateRunning(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.limit("l", 2)
		r.limit("m", 2)
		spec := limited("q", units("l", 2)...)
		spec.Timeout, spec.Lease = durationpb.New(time.Hour), durationpb.New(2*time.Hour)
		id := r.submit(spec)[0].GetId()
		a := r.claim("q")
		r.accept(a)
		changed := &stintv1.JobUpdate{Limits: units("m", 1), Timeout: durationpb.New(time.Minute), Lease: durationpb.New(time.Minute)}
		job := r.update(id, changed, "limits", "timeout", "lease")
		if job.GetState() != stintv1.JobState_JOB_STATE_RUNNING || job.GetTimeout().AsDuration() != time.Minute || job.GetLimits()[0].GetName() != "m" {
			t.Errorf("it shows %v", job)
		}
		l := r.usage(&stintv1.GetLimitUsageRequest{Name: "l"})
		if k := l.GetKeys(); len(k) != 1 || k[0].GetLiveUnits() != 2 || len(k[0].GetHolders()) != 1 || k[0].GetHolders()[0].GetUnits() != 2 || l.GetLimit().GetJobs() != 0 {
			t.Errorf("usage of l: %v", l)
		}
		m := r.usage(&stintv1.GetLimitUsageRequest{Name: "m"})
		if len(m.GetKeys()) != 0 || m.GetLimit().GetJobs() != 1 {
			t.Errorf("usage of m: %v", m)
		}
		other := r.submit(limited("q", units("l", 1)...))[0].GetId()
		if b := r.explain(other).GetBlockers(); len(b) == 0 || b[0].GetKind() != stintv1.BlockerKind_BLOCKER_KIND_LIMIT || len(b[0].GetJobIds()) != 1 || b[0].GetJobIds()[0] != id {
			t.Errorf("who waits for what it has: %v", b)
		}
		time.Sleep(30 * time.Minute)
		if got := r.job(id); got.GetState() != stintv1.JobState_JOB_STATE_RUNNING || got.GetInterrupt() != nil {
			t.Errorf("after half its time: %v", got)
		}
		r.end(&stintv1.Finish{LeaseToken: a.GetLeaseToken(), Outcome: &stintv1.Finish_Released{Released: &stintv1.Released{Delay: durationpb.New(0)}}})
		time.Sleep(time.Millisecond)
		if got := r.claim("q").GetJobId(); got != other {
			t.Errorf("job %s came, want %s", got, other)
		}
		next := r.claim("q")
		if next.GetJobId() != id || next.GetTimeout().AsDuration() != time.Minute || next.GetLease().AsDuration() != time.Minute {
			t.Errorf("the next run is %v", next)
		}
		if k := r.usage(&stintv1.GetLimitUsageRequest{Name: "m"}).GetKeys(); len(k) != 1 || k[0].GetLiveUnits() != 1 {
			t.Errorf("usage of m: %v", k)
		}
	})
}
