package server_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// try says something to the server, and what it was told.
type try func(*rig) said

// limit is a bound of a request: what is at it is taken, what is beyond is refused with the field's name.
type limit struct {
	field  string
	reason stintv1.Reason // INVALID_FIELD if it is not set
	at     []try
	beyond []try
}

func expectLimits(t *testing.T, limits []limit) {
	inBubble(t, rigConfig{}, func(r *rig) {
		for i, l := range limits {
			want := said{stintv1.Reason_REASON_INVALID_FIELD, codes.InvalidArgument, l.field, false}
			if l.reason != 0 {
				want.reason = l.reason
			}
			for k, say := range l.at {
				if got := say(r); got != (said{}) {
					r.t.Errorf("limit %d, %s: number %d, which is within it: %s", i, l.field, k, got)
				}
			}
			for k, say := range l.beyond {
				if got := say(r); got != want {
					r.t.Errorf("limit %d: number %d, which is beyond it: %s; want %s", i, k, got, want)
				}
			}
		}
	})
}

// tries makes a try of each of several values.
func tries[T any](how func(T) try, values ...T) []try {
	all := make([]try, len(values))
	for i, v := range values {
		all[i] = how(v)
	}
	return all
}

// spec is the submit of a good job that fn changes with a value.
func spec[T any](fn func(*stintv1.JobSpec, T)) func(T) try {
	return func(v T) try {
		return func(r *rig) said {
			s := &stintv1.JobSpec{Queue: "q"}
			fn(s, v)
			return r.submitOne(s)
		}
	}
}

const (
	tooLarge = stintv1.Reason_REASON_TOO_LARGE
	day      = 24 * time.Hour
	year     = 365 * day
)

// letters is a text of n bytes.
func letters(n int) string { return strings.Repeat("x", n) }

// labels is n labels.
func labels(n int) map[string]string {
	m := map[string]string{}
	for i := range n {
		m[fmt.Sprint(i)] = ""
	}
	return m
}

func at(seconds int64, nanos int32) *timestamppb.Timestamp {
	return &timestamppb.Timestamp{Seconds: seconds, Nanos: nanos}
}

var (
	lastTime = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	// noDurations are none at all.
	noDurations = []*durationpb.Duration{
		{Seconds: 1, Nanos: -1}, {Nanos: 1e9}, {Seconds: math.MaxInt64}, {Seconds: math.MinInt64},
	}
	noTimes = []*timestamppb.Timestamp{at(-1, 0), at(lastTime, 1), at(0, -1), at(0, 1e9), at(math.MaxInt64, 0)}
)

// durations are those, and then those that are none.
func durations(ds ...time.Duration) []*durationpb.Duration {
	var all []*durationpb.Duration
	for _, d := range ds {
		all = append(all, durationpb.New(d))
	}
	return all
}

func badDurations(ds ...time.Duration) []*durationpb.Duration {
	return append(durations(ds...), noDurations...)
}

// TestSubmitLimits is every bound of a job.
func TestSubmitLimits(t *testing.T) {
	queue := spec(func(s *stintv1.JobSpec, v string) { s.Queue = v })
	id := spec(func(s *stintv1.JobSpec, v string) { s.Id = v })
	payload := spec(func(s *stintv1.JobSpec, v *stintv1.Payload) { s.Payload = v })
	number := spec(func(s *stintv1.JobSpec, v float64) {
		s.Payload = &stintv1.Payload{Content: &stintv1.Payload_Json{Json: structpb.NewNumberValue(v)}}
	})
	contentType := spec(func(s *stintv1.JobSpec, v int) {
		s.Payload = &stintv1.Payload{Content: &stintv1.Payload_Data{}, ContentType: letters(v)}
	})
	priority := spec(func(s *stintv1.JobSpec, v stintv1.Priority) { s.Priority = v })
	runAt := spec(func(s *stintv1.JobSpec, v *timestamppb.Timestamp) { s.Start = &stintv1.JobSpec_RunAt{RunAt: v} })
	delay := spec(func(s *stintv1.JobSpec, v *durationpb.Duration) { s.Start = &stintv1.JobSpec_Delay{Delay: v} })
	startBy := spec(func(s *stintv1.JobSpec, v *timestamppb.Timestamp) { s.StartBy = v })
	lease := spec(func(s *stintv1.JobSpec, v *durationpb.Duration) { s.Lease = v })
	policy := retryTries(func(p *stintv1.RetryPolicy) try {
		return func(r *rig) said { return r.submitOne(&stintv1.JobSpec{Queue: "q", Retry: p}) }
	})
	label := spec(func(s *stintv1.JobSpec, v [2]string) { s.Labels = map[string]string{v[0]: v[1]} })
	labelled := spec(func(s *stintv1.JobSpec, v int) { s.Labels = labels(v) })
	fairnessKey := spec(func(s *stintv1.JobSpec, v int) { s.FairnessKey = letters(v) })
	subject := spec(func(s *stintv1.JobSpec, v int) { s.Subject = letters(v) })
	unique := spec(func(s *stintv1.JobSpec, v *stintv1.Unique) { s.Unique = v })
	until := spec(func(s *stintv1.JobSpec, v stintv1.UniqueUntil) { s.Unique = &stintv1.Unique{Key: "k", Until: v} })
	ttl := spec(func(s *stintv1.JobSpec, v *durationpb.Duration) { s.Unique = &stintv1.Unique{Key: "k", Ttl: v} })
	onConflict := spec(func(s *stintv1.JobSpec, v stintv1.OnConflict) {
		s.Unique = &stintv1.Unique{Key: letters(int(v) + 9), OnConflict: v}
	})
	trace := spec(func(s *stintv1.JobSpec, v int) { s.TraceContext = &stintv1.TraceContext{Tracestate: letters(v)} })

	jsonText := &stintv1.Payload{Content: &stintv1.Payload_Json{Json: structpb.NewStringValue(letters(1<<20 - 2))}}
	longJSON := &stintv1.Payload{Content: &stintv1.Payload_Json{Json: structpb.NewStringValue(letters(1<<20 - 1))}}
	expectLimits(t, append([]limit{
		{
			field: "queue", at: tries(queue, letters(200), "a", "0", "a/b", "a.b_c-d/9", "_stinted", "_stint2/a", "..", "x/_stint"),
			beyond: tries(queue, "", letters(201), "/a", "a/", "a//b", "A", "a b", "a*", "*", "media/*", "ä", "_stint", "_stint/a", "a\n"),
		},
		{
			field: "id", at: tries(id, newID(), newInstance(), "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"),
			beyond: tries(id, "x", strings.ToUpper(newInstance()), "{"+newInstance()+"}", strings.ReplaceAll(newInstance(), "-", ""), newInstance()+"0", newInstance()[:35]+"g"),
		},
		{
			field: "payload", reason: tooLarge, at: tries(payload, nil, blob("x", 1<<20), text(""), text(letters(1<<20)), jsonText),
			beyond: tries(payload, blob("x", 1<<20+1), text(letters(1<<20+1)), longJSON),
		},
		{field: "payload", beyond: tries(payload, &stintv1.Payload{}, &stintv1.Payload{ContentType: "text/plain"})},
		{
			field: "payload.json", at: tries(number, 0, -1.5, math.MaxFloat64),
			beyond: append(tries(number, math.NaN(), math.Inf(1), math.Inf(-1)),
				payload(&stintv1.Payload{Content: &stintv1.Payload_Json{Json: &structpb.Value{}}}),
				payload(&stintv1.Payload{Content: &stintv1.Payload_Json{Json: structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{{}}})}})),
		},
		{field: "payload.content_type", at: tries(contentType, 255), beyond: tries(contentType, 256)},
		{field: "priority", at: tries(priority, 0, 10, 20, 30, 40, 50), beyond: tries(priority, 1, 31, 60, -10, 256+30)},
		{field: "run_at", at: tries(runAt, at(0, 0), at(lastTime, 0)), beyond: tries(runAt, noTimes...)},
		{field: "delay", at: tries(delay, durations(0, 10*year)...), beyond: tries(delay, badDurations(-1, 10*year+1)...)},
		{field: "start_by", at: tries(startBy, at(0, 0), at(lastTime, 0)), beyond: tries(startBy, noTimes...)},
		{field: "lease", at: tries(lease, durations(5*time.Second, day)...), beyond: tries(lease, badDurations(0, 5*time.Second-1, day+1)...)},
		{field: "labels", reason: tooLarge, at: tries(labelled, 64), beyond: tries(labelled, 65)},
		{
			field: "labels", at: tries(label, [2]string{"k", ""}, [2]string{letters(63), letters(256)}),
			beyond: tries(label, [2]string{"", "v"}, [2]string{letters(64), "v"}, [2]string{"k", letters(257)}),
		},
		{field: "fairness_key", at: tries(fairnessKey, 200), beyond: tries(fairnessKey, 201)},
		{field: "subject", at: tries(subject, 256), beyond: tries(subject, 257)},
		{
			field: "unique.key", at: tries(unique, &stintv1.Unique{Key: "k"}, &stintv1.Unique{Key: letters(200)}),
			beyond: tries(unique, &stintv1.Unique{}, &stintv1.Unique{Key: letters(201)}),
		},
		{field: "unique.until", at: tries(until, 0, 1, 2), beyond: tries(until, 3, -1)},
		{field: "unique.ttl", at: tries(ttl, durations(0, 30*day)...), beyond: tries(ttl, badDurations(-1, 30*day+1)...)},
		{field: "unique.ttl", beyond: tries(unique, &stintv1.Unique{Key: "k", Until: stintv1.UniqueUntil_UNIQUE_UNTIL_START, Ttl: durationpb.New(0)})},
		{field: "unique.on_conflict", at: tries(onConflict, 0, 1, 2, 3), beyond: tries(onConflict, 4, -1)},
		{field: "trace_context.tracestate", at: tries(trace, 512), beyond: tries(trace, 513)},
	}, policy("retry")...))
}

// retryTries is every bound of a retry policy, wherever it is sent.
func retryTries(how func(*stintv1.RetryPolicy) try) func(field string) []limit {
	attempts := func(n uint32) try { return how(&stintv1.RetryPolicy{MaxAttempts: n}) }
	curve := func(e *stintv1.ExponentialBackoff) try {
		return how(&stintv1.RetryPolicy{Backoff: &stintv1.RetryPolicy_Exponential{Exponential: e}})
	}
	initial := func(d *durationpb.Duration) try { return curve(&stintv1.ExponentialBackoff{Initial: d}) }
	longest := func(d *durationpb.Duration) try { return curve(&stintv1.ExponentialBackoff{Max: d}) }
	linear := func(l *stintv1.LinearBackoff) try {
		return how(&stintv1.RetryPolicy{Backoff: &stintv1.RetryPolicy_Linear{Linear: l}})
	}
	first := func(d *durationpb.Duration) try { return linear(&stintv1.LinearBackoff{Initial: d}) }
	step := func(d *durationpb.Duration) try { return linear(&stintv1.LinearBackoff{Increment: d}) }
	last := func(d *durationpb.Duration) try { return linear(&stintv1.LinearBackoff{Max: d}) }
	every := func(d *durationpb.Duration) try {
		return how(&stintv1.RetryPolicy{Backoff: &stintv1.RetryPolicy_Constant{Constant: &stintv1.ConstantBackoff{Delay: d}}})
	}
	deadline := func(d *durationpb.Duration) try { return how(&stintv1.RetryPolicy{Deadline: d}) }
	away := func(d *durationpb.Duration) try { return how(&stintv1.RetryPolicy{InterruptDelay: d}) }
	onFailure := func(o stintv1.OnFailure) try { return how(&stintv1.RetryPolicy{OnFailure: o}) }
	growth := func(f float64) try { return curve(&stintv1.ExponentialBackoff{Multiplier: f}) }
	return func(field string) []limit {
		return []limit{
			{field: field + ".max_attempts", at: tries(attempts, 0, 1, 1000), beyond: tries(attempts, 1001, math.MaxUint32)},
			{
				field: field + ".exponential.initial", at: tries(initial, durations(0, day)...),
				beyond: tries(initial, badDurations(-1, day+1)...),
			},
			{
				field: field + ".exponential.max", at: tries(longest, durations(0, 30*day)...),
				beyond: tries(longest, badDurations(-1, 30*day+1)...),
			},
			{
				field: field + ".exponential.multiplier", at: tries(growth, 0, 1, 100),
				beyond: tries(growth, 0.99, 100.01, -1, math.NaN(), math.Inf(1)),
			},
			{field: field + ".linear.initial", at: tries(first, durations(0, day)...), beyond: tries(first, badDurations(-1, day+1)...)},
			{field: field + ".linear.increment", at: tries(step, durations(0, day)...), beyond: tries(step, badDurations(-1, day+1)...)},
			{field: field + ".linear.max", at: tries(last, durations(0, 30*day)...), beyond: tries(last, badDurations(-1, 30*day+1)...)},
			{field: field + ".constant.delay", at: tries(every, durations(0, 30*day)...), beyond: tries(every, badDurations(-1, 30*day+1)...)},
			{field: field + ".deadline", at: tries(deadline, durations(0, 10*year)...), beyond: tries(deadline, badDurations(-1, 10*year+1)...)},
			{field: field + ".interrupt_delay", at: tries(away, durations(0, 30*day)...), beyond: tries(away, badDurations(-1, 30*day+1)...)},
			{field: field + ".on_failure", at: tries(onFailure, 0, 1, 2, 3), beyond: tries(onFailure, 4, -1, 256+1)},
		}
	}
}

// call is a call with a request that fn changes with a value.
func call[M, A, T any](method func(*rig) func(*M) (A, error), fn func(*M, T)) func(T) try {
	return func(v T) try {
		return func(r *rig) said {
			m := new(M)
			fn(m, v)
			_, err := method(r)(m)
			return ofCall(err)
		}
	}
}

func listJobs(r *rig) func(*stintv1.ListJobsRequest) (*stintv1.ListJobsResponse, error) {
	return func(m *stintv1.ListJobsRequest) (*stintv1.ListJobsResponse, error) { return r.jobs.ListJobs(r.ctx, m) }
}

func countJobs(r *rig) func(*stintv1.CountJobsRequest) (*stintv1.CountJobsResponse, error) {
	return func(m *stintv1.CountJobsRequest) (*stintv1.CountJobsResponse, error) {
		return r.jobs.CountJobs(r.ctx, m)
	}
}

func interruptJobs(r *rig) func(*stintv1.InterruptJobsRequest) (*stintv1.InterruptJobsResponse, error) {
	return func(m *stintv1.InterruptJobsRequest) (*stintv1.InterruptJobsResponse, error) {
		return r.jobs.InterruptJobs(r.ctx, m)
	}
}

func retryJobs(r *rig) func(*stintv1.RetryJobsRequest) (*stintv1.RetryJobsResponse, error) {
	return func(m *stintv1.RetryJobsRequest) (*stintv1.RetryJobsResponse, error) {
		return r.jobs.RetryJobs(r.ctx, m)
	}
}

func parkJobs(r *rig) func(*stintv1.ParkJobsRequest) (*stintv1.ParkJobsResponse, error) {
	return func(m *stintv1.ParkJobsRequest) (*stintv1.ParkJobsResponse, error) {
		return r.jobs.ParkJobs(r.ctx, m)
	}
}

func deleteJobs(r *rig) func(*stintv1.DeleteJobsRequest) (*stintv1.DeleteJobsResponse, error) {
	return func(m *stintv1.DeleteJobsRequest) (*stintv1.DeleteJobsResponse, error) {
		return r.jobs.DeleteJobs(r.ctx, m)
	}
}

func updateQueue(r *rig) func(*stintv1.UpdateQueueRequest) (*stintv1.UpdateQueueResponse, error) {
	return func(m *stintv1.UpdateQueueRequest) (*stintv1.UpdateQueueResponse, error) {
		return r.queues.UpdateQueue(r.ctx, m)
	}
}

func pauseQueue(r *rig) func(*stintv1.PauseQueueRequest) (*stintv1.PauseQueueResponse, error) {
	return func(m *stintv1.PauseQueueRequest) (*stintv1.PauseQueueResponse, error) {
		return r.queues.PauseQueue(r.ctx, m)
	}
}

// TestJobLimits is every bound of the calls about jobs.
func TestJobLimits(t *testing.T) {
	filter := func(fn func(*stintv1.JobFilter)) []try {
		f := &stintv1.JobFilter{}
		fn(f)
		return []try{
			call(listJobs, func(m *stintv1.ListJobsRequest, f *stintv1.JobFilter) { m.Filter = f })(f),
			call(countJobs, func(m *stintv1.CountJobsRequest, f *stintv1.JobFilter) { m.Filter = f })(f),
		}
	}
	filters := func(fns ...func(*stintv1.JobFilter)) (all []try) {
		for _, fn := range fns {
			all = append(all, filter(fn)...)
		}
		return all
	}
	queue := func(s string) func(*stintv1.JobFilter) { return func(f *stintv1.JobFilter) { f.Queue = s } }
	state := func(s ...stintv1.JobState) func(*stintv1.JobFilter) {
		return func(f *stintv1.JobFilter) { f.States = s }
	}
	from := func(v *timestamppb.Timestamp) func(*stintv1.JobFilter) {
		return func(f *stintv1.JobFilter) { f.SubmittedFrom = v }
	}
	before := func(v *timestamppb.Timestamp) func(*stintv1.JobFilter) {
		return func(f *stintv1.JobFilter) { f.SubmittedBefore = v }
	}
	each := func(fn func(*timestamppb.Timestamp) func(*stintv1.JobFilter), times []*timestamppb.Timestamp) (all []try) {
		for _, v := range times {
			all = append(all, filter(fn(v))...)
		}
		return all
	}
	submits := func(n int) try {
		return func(r *rig) said {
			m := &stintv1.SubmitJobsRequest{}
			for range n {
				m.Jobs = append(m.Jobs, &stintv1.JobSpec{Queue: "q"})
			}
			_, err := r.jobs.SubmitJobs(r.ctx, m)
			return ofCall(err)
		}
	}
	view := call(listJobs, func(m *stintv1.ListJobsRequest, v stintv1.JobView) { m.View = v })
	ids := func(m *stintv1.InterruptJobsRequest) *stintv1.InterruptJobsRequest {
		m.Ids, m.Level = []string{newID()}, cancel
		return m
	}
	interrupts := call(interruptJobs, func(m *stintv1.InterruptJobsRequest, n int) { ids(m).Ids = many(n, newID()) })
	level := call(interruptJobs, func(m *stintv1.InterruptJobsRequest, l stintv1.InterruptLevel) { ids(m).Level = l })
	reason := call(interruptJobs, func(m *stintv1.InterruptJobsRequest, n int) { ids(m).Reason = letters(n) })
	parkReason := call(parkJobs, func(m *stintv1.ParkJobsRequest, n int) { m.Ids, m.Reason = many(1, newID()), letters(n) })
	parkRequester := call(parkJobs, func(m *stintv1.ParkJobsRequest, n int) { m.Ids, m.Requester = many(1, newID()), letters(n) })
	requester := call(interruptJobs, func(m *stintv1.InterruptJobsRequest, n int) { ids(m).Requester = letters(n) })
	names := func(n int) []try {
		return []try{
			call(interruptJobs, func(m *stintv1.InterruptJobsRequest, n int) { ids(m).RequestId = letters(n) })(n),
			call(retryJobs, func(m *stintv1.RetryJobsRequest, n int) { m.Ids, m.RequestId = many(1, newID()), letters(n) })(n),
			call(parkJobs, func(m *stintv1.ParkJobsRequest, n int) { m.Ids, m.RequestId = many(1, newID()), letters(n) })(n),
		}
	}
	one, none, some := []string{newID()}, &stintv1.JobFilter{}, &stintv1.JobFilter{Queue: "q"}
	expectLimits(t, []limit{
		{field: "jobs", at: tries(submits, 1, 1000), beyond: tries(submits, 0, 1001)},
		{
			field: "filter.queue", at: filters(queue(""), queue("*"), queue("a"), queue("a/*"), queue(letters(200)+"/*")),
			beyond: filters(queue("a*"), queue("*/a"), queue("/*"), queue("a/*/*"), queue("**"), queue(letters(201))),
		},
		{field: "filter.states[1]", beyond: filters(state(2, 0), state(2, 3), state(2, 11), state(2, -1))},
		{
			field: "filter.labels", reason: tooLarge, at: filters(func(f *stintv1.JobFilter) { f.Labels = labels(64) }),
			beyond: filters(func(f *stintv1.JobFilter) { f.Labels = labels(65) }),
		},
		{
			field: "filter.subject", at: filters(func(f *stintv1.JobFilter) { f.Subject = letters(256) }),
			beyond: filters(func(f *stintv1.JobFilter) { f.Subject = letters(257) }),
		},
		{
			field: "filter.unique_key", at: filters(func(f *stintv1.JobFilter) { f.UniqueKey = letters(200) }),
			beyond: filters(func(f *stintv1.JobFilter) { f.UniqueKey = letters(201) }),
		},
		{field: "filter.submitted_from", at: each(from, []*timestamppb.Timestamp{at(0, 0), at(lastTime, 0)}), beyond: each(from, noTimes)},
		{field: "filter.submitted_before", at: each(before, []*timestamppb.Timestamp{at(0, 0), at(lastTime, 0)}), beyond: each(before, noTimes)},
		{field: "view", at: tries(view, 0, 1, 2), beyond: append(tries(view, 3, -1),
			func(r *rig) said {
				_, err := r.jobs.GetJob(r.ctx, &stintv1.GetJobRequest{Id: newID(), View: 3})
				return ofCall(err)
			},
			func(r *rig) said { return r.waitFails(&stintv1.WaitJobRequest{Id: newID(), View: 3}) },
		)},
		{field: "until", beyond: []try{func(r *rig) said { return r.waitFails(&stintv1.WaitJobRequest{Id: newID(), Until: 4}) }}},
		{field: "id", beyond: []try{
			func(r *rig) said { return r.waitFails(&stintv1.WaitJobRequest{Id: "x"}) },
			func(r *rig) said {
				_, err := r.jobs.GetJob(r.ctx, &stintv1.GetJobRequest{})
				return ofCall(err)
			},
			func(r *rig) said { return ofItem(r.retry("x")[0].GetError()) },
			func(r *rig) said { return ofItem(r.park("x")[0].GetError()) },
		}},
		{
			field: "ids", at: append(append(tries(interrupts, 1, 1000),
				tries(call(retryJobs, func(m *stintv1.RetryJobsRequest, n int) { m.Ids = many(n, newID()) }), 1, 1000)...),
				tries(call(deleteJobs, func(m *stintv1.DeleteJobsRequest, n int) { m.Ids = many(n, newID()) }), 1, 1000)...),
			beyond: append(append(tries(interrupts, 0, 1001),
				tries(call(retryJobs, func(m *stintv1.RetryJobsRequest, n int) { m.Ids = many(n, newID()) }), 0, 1001)...),
				tries(call(deleteJobs, func(m *stintv1.DeleteJobsRequest, n int) { m.Ids = many(n, newID()) }), 0, 1001)...),
		},
		{field: "filter", at: targets(target{f: some}, target{f: none, all: true}), beyond: append(targets(
			target{f: none}, target{f: &stintv1.JobFilter{Queue: "*"}}, target{f: some, ids: one}),
			targets(target{f: none, ids: one, all: true})...)},
		{field: "filter.queue", beyond: targets(target{f: &stintv1.JobFilter{Queue: "*/a"}, all: true})},
		{field: "ids", beyond: targets(target{})},
		{field: "all", beyond: targets(target{all: true}, target{all: true, ids: one})},
		{field: "continue_token", beyond: targets(target{token: "x"}, target{token: "x", ids: one})},
		{field: "reason", at: tries(parkReason, 1024), beyond: tries(parkReason, 1025)},
		{field: "requester", at: tries(parkRequester, 200), beyond: tries(parkRequester, 201)},
		{field: "request_id", at: names(64), beyond: names(65)},
		{field: "level", at: tries(level, retry, cancel), beyond: tries(level, 0, 3, -1)},
		{field: "reason", at: tries(reason, 1024), beyond: append(tries(reason, 1025),
			call(retryJobs, func(m *stintv1.RetryJobsRequest, n int) { m.Ids, m.Reason = one, letters(n) })(1025))},
		{field: "requester", at: tries(requester, 200), beyond: append(tries(requester, 201),
			call(retryJobs, func(m *stintv1.RetryJobsRequest, n int) { m.Ids, m.Requester = one, letters(n) })(201))},
	})
}

// target is how a request names its jobs.
type target struct {
	ids   []string
	f     *stintv1.JobFilter
	all   bool
	token string
}

// targets asks every request that acts on jobs to act on each of the targets, as a dry run.
func targets(all ...target) (tried []try) {
	for _, t := range all {
		tried = append(tried, call(interruptJobs, func(m *stintv1.InterruptJobsRequest, t target) {
			m.Ids, m.Filter, m.All, m.ContinueToken, m.DryRun, m.Level = t.ids, t.f, t.all, t.token, true, cancel
		})(t), call(retryJobs, func(m *stintv1.RetryJobsRequest, t target) {
			m.Ids, m.Filter, m.All, m.ContinueToken, m.DryRun = t.ids, t.f, t.all, t.token, true
		})(t), call(deleteJobs, func(m *stintv1.DeleteJobsRequest, t target) {
			m.Ids, m.Filter, m.All, m.ContinueToken, m.DryRun = t.ids, t.f, t.all, t.token, true
		})(t))
	}
	return tried
}

// waitFails is how a WaitJob ends that is not taken.
func (r *rig) waitFails(m *stintv1.WaitJobRequest) said {
	stream, err := r.jobs.WaitJob(r.ctx, m)
	if err == nil {
		_, err = stream.Recv()
	}
	return ofCall(err)
}

// TestQueueLimits is every bound of the calls about queues.
func TestQueueLimits(t *testing.T) {
	update := call(updateQueue, func(m *stintv1.UpdateQueueRequest, name string) { m.Name = name })
	contact := call(updateQueue, func(m *stintv1.UpdateQueueRequest, v int) {
		m.Name, m.Policy = "q", &stintv1.QueuePolicy{LostContact: stintv1.LostContact(v)}
	})
	zombie := call(updateQueue, func(m *stintv1.UpdateQueueRequest, v int) {
		m.Name, m.Policy = "q", &stintv1.QueuePolicy{OnZombie: stintv1.OnZombie(v)}
	})
	weights := call(updateQueue, func(m *stintv1.UpdateQueueRequest, n int) {
		m.Name, m.Policy = "q", &stintv1.QueuePolicy{FairnessWeights: map[string]uint32{}}
		for i := range n {
			m.Policy.FairnessWeights[fmt.Sprint("tenant", i)] = 1
		}
	})
	weight := call(updateQueue, func(m *stintv1.UpdateQueueRequest, w int) {
		m.Name, m.Policy = "q", &stintv1.QueuePolicy{FairnessWeights: map[string]uint32{"a": uint32(w)}} //nolint:gosec // small
	})
	weightKey := call(updateQueue, func(m *stintv1.UpdateQueueRequest, n int) {
		m.Name, m.Policy = "q", &stintv1.QueuePolicy{FairnessWeights: map[string]uint32{letters(n): 1}}
	})
	lease := call(updateQueue, func(m *stintv1.UpdateQueueRequest, d *durationpb.Duration) {
		m.Name, m.Policy = "q", &stintv1.QueuePolicy{Lease: d}
	})
	policy := retryTries(func(p *stintv1.RetryPolicy) try {
		return call(updateQueue, func(m *stintv1.UpdateQueueRequest, p *stintv1.RetryPolicy) {
			m.Name, m.Policy = "q", &stintv1.QueuePolicy{Retry: p}
		})(p)
	})
	reason := call(pauseQueue, func(m *stintv1.PauseQueueRequest, n int) { m.Name, m.Reason = "q", letters(n) })
	requester := call(pauseQueue, func(m *stintv1.PauseQueueRequest, n int) { m.Name, m.Requester = "q", letters(n) })
	named := func(r *rig, name string) []error {
		_, get := r.queues.GetQueue(r.ctx, &stintv1.GetQueueRequest{Name: name})
		_, pause := r.queues.PauseQueue(r.ctx, &stintv1.PauseQueueRequest{Name: name})
		_, resume := r.queues.ResumeQueue(r.ctx, &stintv1.ResumeQueueRequest{Name: name})
		_, remove := r.queues.DeleteQueue(r.ctx, &stintv1.DeleteQueueRequest{Name: name})
		return []error{get, pause, resume, remove}
	}
	var bad []try
	for i := range 4 {
		bad = append(bad, func(r *rig) said { return ofCall(named(r, "Q")[i]) }, func(r *rig) said { return ofCall(named(r, "_stint/q")[i]) })
	}
	pattern := func(s string) try {
		return func(r *rig) said {
			_, err := r.queues.ListQueues(r.ctx, &stintv1.ListQueuesRequest{Queue: s})
			return ofCall(err)
		}
	}
	expectLimits(t, append([]limit{
		{field: "name", at: tries(update, "q", letters(200)), beyond: append(tries(update, "", letters(201), "a//b", "_stint/a", "*"), bad...)},
		{field: "queue", at: tries(pattern, "", "*", "a", "a/*"), beyond: tries(pattern, "a*", "A", "/*")},
		{field: "policy.on_zombie", at: tries(zombie, 0, 1, 2), beyond: tries(zombie, 3, -1)},
		{field: "policy.fairness_weights", at: append(tries(weights, 1, 1000), append(tries(weight, 1, 1000), tries(weightKey, 0, 200)...)...), beyond: append(tries(weights, 1001), append(tries(weight, 0, 1001), tries(weightKey, 201)...)...)},
		{field: "policy.lost_contact", at: tries(contact, 0, 1, 2), beyond: tries(contact, 3, -1)},
		{
			field: "policy.lease", at: tries(lease, durations(5*time.Second, day)...),
			beyond: tries(lease, badDurations(0, 5*time.Second-1, day+1)...),
		},
		{field: "reason", at: tries(reason, 1024), beyond: tries(reason, 1025)},
		{field: "requester", at: tries(requester, 200), beyond: tries(requester, 201)},
	}, policy("policy.retry")...))
}
