package server_test

import (
	"fmt"
	"slices"
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

// limit sets a limit.
func (r *rig) limit(name string, most uint32) *stintv1.Limit {
	r.t.Helper()
	answer, err := r.queues.PutLimit(r.ctx, &stintv1.PutLimitRequest{Name: name, Policy: &stintv1.LimitPolicy{MaxUnits: most}})
	if err != nil {
		r.t.Fatal(err)
	}
	return answer.GetLimit()
}

func (r *rig) putLimit(m *stintv1.PutLimitRequest) said {
	_, err := r.queues.PutLimit(r.ctx, m)
	return ofCall(err)
}

// limited is a job that takes something.
func limited(queue string, uses ...*stintv1.LimitUse) *stintv1.JobSpec {
	return &stintv1.JobSpec{Queue: queue, Limits: uses}
}

func (r *rig) usage(m *stintv1.GetLimitUsageRequest) *stintv1.GetLimitUsageResponse {
	r.t.Helper()
	answer, err := r.queues.GetLimitUsage(r.ctx, m)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer
}

// TestLimitOverTheWire: a job shows what it takes; runs take no more than there is; usage says who has it and how many
// wait; a change acts at once; a limit in use is not deleted, and says how many jobs name it, unless forced.
func TestLimitOverTheWire(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		start := timestamppb.Now()
		made := r.limit("db", 2)
		uses := []*stintv1.LimitUse{{Name: "db", Key: "main", Units: 1}}
		want := &stintv1.Limit{Name: "db", Policy: &stintv1.LimitPolicy{MaxUnits: 2}, CreateTime: start, Etag: made.GetEtag()}
		if diff := cmp.Diff(want, made, protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
		var ids []string
		for i, answer := range r.submit(limited("q", uses...), limited("q", uses...), limited("p", uses...), limited("p", uses...)) {
			if answer.GetError() != nil {
				t.Fatalf("job %d: %v", i, answer.GetError())
			}
			ids = append(ids, answer.GetId())
		}
		if diff := cmp.Diff(uses, r.job(ids[0]).GetLimits(), protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
		first, second := r.claim("q"), r.claim("q")
		if diff := cmp.Diff(uses, first.GetLimits(), protocmp.Transform()); diff != "" {
			t.Error("an assignment:", diff)
		}
		r.accept(first)
		third, err := r.workers.ClaimJobs(r.ctx, &stintv1.ClaimJobsRequest{Worker: "test", Queues: []string{"p"}})
		if err != nil || len(third.GetAssignments()) > 0 {
			t.Fatalf("a third run of two: %v, %v", third, err)
		}
		k := r.usage(&stintv1.GetLimitUsageRequest{Name: "db"}).GetKeys()
		if len(k) != 1 || k[0].GetKey() != "main" || k[0].GetLiveUnits() != 2 || k[0].GetMaxUnits() != 2 || k[0].GetWaitingJobs() != 2 ||
			len(k[0].GetHolders()) != 2 || k[0].GetHolders()[0].GetJobId() != ids[0] || k[0].GetHolders()[1].GetUnits() != 1 ||
			k[0].GetHolders()[0].GetQueue() != "q" || k[0].GetHolders()[0].GetZombie() || k[0].GetHolders()[0].GetInstanceId() == "" {
			t.Errorf("usage: %v", k)
		}
		r.accept(second)
		r.succeed(second)
		if next := r.claim("p"); next.GetJobId() != ids[2] {
			t.Errorf("job %s came, want %s", next.GetJobId(), ids[2])
		}
		_, err = r.queues.DeleteLimit(r.ctx, &stintv1.DeleteLimitRequest{Name: "db"})
		if err == nil || !strings.Contains(err.Error(), "3 jobs") {
			t.Errorf("delete: %v", err)
		}
		r.limit("db", 3)
		r.claim("p")
		if _, err := r.queues.DeleteLimit(r.ctx, &stintv1.DeleteLimitRequest{Name: "db", Force: true}); err != nil {
			t.Error(err)
		}
		if got := r.submitOne(limited("q", uses...)); got.reason != stintv1.Reason_REASON_LIMIT_NOT_FOUND {
			t.Errorf("a job of a deleted limit: %s", got)
		}
	})
}

// TestLimitRepeats: a job that is there is found by its id whatever became of its limit, and no two limits or orders of
// them are the same content.
func TestLimitRepeats(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.limit("a", 1)
		r.limit("b", 1)
		spec := limited("q", &stintv1.LimitUse{Name: "b"}, &stintv1.LimitUse{Name: "a"})
		spec.Id = newID()
		r.submit(spec)
		if _, err := r.queues.DeleteLimit(r.ctx, &stintv1.DeleteLimitRequest{Name: "a", Force: true}); err != nil {
			t.Fatal(err)
		}
		again := limited("q", &stintv1.LimitUse{Name: "a", Units: 1}, &stintv1.LimitUse{Name: "b"})
		again.Id = spec.GetId()
		if got := r.submit(again)[0]; got.GetStatus() != stintv1.SubmitStatus_SUBMIT_STATUS_EXISTING {
			t.Errorf("the same in another order: %v", got)
		}
		again.Limits = again.GetLimits()[:1]
		if got := r.submitOne(again); got.reason != stintv1.Reason_REASON_ID_CONFLICT {
			t.Errorf("one limit less: %s", got)
		}
	})
}

// TestLimitBounds is every bound of what has to do with limits.
func TestLimitBounds(t *testing.T) {
	put := func(name string, p *stintv1.LimitPolicy) try {
		return func(r *rig) said { return r.putLimit(&stintv1.PutLimitRequest{Name: name, Policy: p}) }
	}
	named := func(name string) try { return put(name, &stintv1.LimitPolicy{MaxUnits: 1}) }
	most := func(n uint32) try { return put("l", &stintv1.LimitPolicy{MaxUnits: n}) }
	zombie := func(v int32) try { return put("l", &stintv1.LimitPolicy{MaxUnits: 1, OnZombie: stintv1.OnZombie(v)}) }
	keys := func(n int, key string, most uint32) try {
		of := map[string]uint32{}
		for i := range n - 1 {
			of[fmt.Sprint(i)] = 1
		}
		of[key] = most
		return put("l", &stintv1.LimitPolicy{MaxUnits: 1, MaxUnitsOf: of})
	}
	rate := func(rate *stintv1.Rate) try { return put("l", &stintv1.LimitPolicy{Rate: rate}) }
	queueRate := call(updateQueue, func(m *stintv1.UpdateQueueRequest, r *stintv1.Rate) {
		m.Name, m.Policy = "q", &stintv1.QueuePolicy{Rate: r}
	})
	rates := func(rate func(*stintv1.Rate) try) []limit {
		of := func(permits, burst uint32, period *durationpb.Duration) try {
			return rate(&stintv1.Rate{Permits: permits, Burst: burst, Period: period})
		}
		period := func(d *durationpb.Duration) try { return of(1, 0, d) }
		return []limit{
			{field: "policy.rate.permits", at: []try{of(1, 0, nil), of(1e6, 0, nil), of(1000, 0, durationpb.New(time.Millisecond))}, beyond: []try{of(0, 0, nil), of(1e6+1, 0, nil), of(1001, 0, durationpb.New(time.Millisecond))}},
			{field: "policy.rate.period", at: tries(period, durations(time.Millisecond, day)...), beyond: tries(period, badDurations(time.Millisecond-1, day+1)...)},
			{field: "policy.rate.burst", at: []try{of(1, 10_000, nil)}, beyond: []try{of(1, 10_001, nil)}},
		}
	}
	rateOf := func(n int, key string, rate *stintv1.Rate) try {
		of := map[string]*stintv1.Rate{}
		for i := range n - 1 {
			of[fmt.Sprint(i)] = &stintv1.Rate{Permits: 1}
		}
		of[key] = rate
		return put("l", &stintv1.LimitPolicy{RateOf: of})
	}
	breakers := func(set func(*stintv1.CircuitBreaker) try) []limit {
		failures := func(n uint32) try { return set(&stintv1.CircuitBreaker{Failures: n}) }
		retry := func(d *durationpb.Duration) try { return set(&stintv1.CircuitBreaker{Failures: 1, RetryIn: d}) }
		return []limit{
			{field: "policy.circuit_breaker.failures", at: tries(failures, 1, 1000), beyond: tries(failures, 0, 1001)},
			{field: "policy.circuit_breaker.retry_in", at: tries(retry, durations(time.Second, day)...), beyond: tries(retry, badDurations(time.Second-1, day+1)...)},
		}
	}
	queueBreaker := call(updateQueue, func(m *stintv1.UpdateQueueRequest, b *stintv1.CircuitBreaker) {
		m.Name, m.Policy = "q", &stintv1.QueuePolicy{CircuitBreaker: b}
	})
	gate := func(m *stintv1.OpenGateRequest) try {
		return func(r *rig) said {
			r.limit("l", 1)
			_, err := r.queues.OpenGate(r.ctx, m)
			return ofCall(err)
		}
	}
	queueGate := func(name, key string) try {
		return gate(&stintv1.OpenGateRequest{Of: &stintv1.OpenGateRequest_Queue{Queue: name}, Key: key})
	}
	limitGate := func(name, key string) try {
		return gate(&stintv1.OpenGateRequest{Of: &stintv1.OpenGateRequest_Limit{Limit: name}, Key: key})
	}
	use := func(uses ...*stintv1.LimitUse) try {
		return func(r *rig) said {
			r.limit("l", 4)
			return r.submitOne(limited("q", uses...))
		}
	}
	many := func(n int) (uses []*stintv1.LimitUse) {
		for i := range n {
			uses = append(uses, &stintv1.LimitUse{Name: "l", Key: fmt.Sprint(i)})
		}
		return uses
	}
	usage := func(name, key string) try {
		return func(r *rig) said {
			_, err := r.queues.GetLimitUsage(r.ctx, &stintv1.GetLimitUsageRequest{Name: name, Key: &key})
			return ofCall(err)
		}
	}
	expectLimits(t, slices.Concat(rates(rate), rates(queueRate), breakers(queueBreaker), breakers(func(b *stintv1.CircuitBreaker) try {
		return put("l", &stintv1.LimitPolicy{CircuitBreaker: b})
	}), []limit{
		{field: "policy.rate_of", at: []try{rateOf(1000, letters(200), &stintv1.Rate{Permits: 1})}, beyond: []try{rateOf(1001, "k", &stintv1.Rate{Permits: 1}), rateOf(1, letters(201), &stintv1.Rate{Permits: 1})}},
		{field: "policy.rate_of.permits", beyond: []try{rateOf(1, "k", nil), rateOf(1, "k", &stintv1.Rate{})}},
		{field: "of", beyond: []try{gate(&stintv1.OpenGateRequest{})}},
		{field: "queue", beyond: []try{queueGate("Q", "")}},
		{field: "limit", beyond: []try{limitGate("L", "")}},
		{field: "key", at: []try{limitGate("l", letters(200))}, beyond: []try{limitGate("l", letters(201)), queueGate("q", "k")}},
		{field: "name", at: tries(named, "l", "a/b", letters(200)), beyond: append(tries(named, "", "A", "a//b", "_stint/l", "a*", letters(201)),
			usage("L", ""), func(r *rig) said {
				_, err := r.queues.DeleteLimit(r.ctx, &stintv1.DeleteLimitRequest{Name: "L"})
				return ofCall(err)
			})},
		{field: "policy.max_units", at: tries(most, 1, 1<<32-1), beyond: tries(most, 0)},
		{field: "policy.on_zombie", at: tries(zombie, 0, 1, 2), beyond: tries(zombie, 3, -1)},
		{
			field: "policy.max_units_of", at: []try{keys(1000, letters(200), 1), keys(1, "", 1<<32-1)},
			beyond: []try{keys(1001, "k", 1), keys(1, letters(201), 1), keys(1, "k", 0)},
		},
		{field: "limits", at: []try{use(many(8)...)}, beyond: []try{use(many(9)...)}},
		{field: "limits[0].name", beyond: []try{use(&stintv1.LimitUse{}), use(&stintv1.LimitUse{Name: "L"})}},
		{field: "limits[1].key", at: []try{use(&stintv1.LimitUse{Name: "l", Key: letters(200)})}, beyond: []try{use(&stintv1.LimitUse{Name: "l"}, &stintv1.LimitUse{Name: "l", Key: letters(201)})}},
		{field: "limits[1]", beyond: []try{use(&stintv1.LimitUse{Name: "l", Key: "k"}, &stintv1.LimitUse{Name: "l", Key: "k", Units: 2})}},
		{field: "key", at: []try{usage("l", letters(200))}, beyond: []try{usage("l", letters(201))}},
	}))
}

// TestLimitReads: limits and keys are listed in pages, by name; an etag guards a change; a key that nobody takes is free;
// a key's own maximum holds.
func TestLimitReads(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		for i := range 5 {
			r.limit(fmt.Sprint("l", i), 1)
		}
		var names []string
		for token := ""; ; {
			page, err := r.queues.ListLimits(r.ctx, &stintv1.ListLimitsRequest{PageSize: 2, PageToken: token})
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range page.GetLimits() {
				names = append(names, l.GetName())
			}
			if token = page.GetNextPageToken(); token == "" {
				break
			}
		}
		if got := strings.Join(names, " "); got != "l0 l1 l2 l3 l4" {
			t.Errorf("listed %s", got)
		}
		old := r.limit("l0", 1)
		if now := r.limit("l0", 2); now.GetEtag() == old.GetEtag() {
			t.Error("the etag did not change")
		} else if same := r.limit("l0", 2); same.GetEtag() != now.GetEtag() {
			t.Error("set twice, the etag changed")
		}
		stale := &stintv1.PutLimitRequest{Name: "l0", Etag: old.GetEtag(), Policy: &stintv1.LimitPolicy{MaxUnits: 3}}
		if got := r.putLimit(stale); got != (said{stintv1.Reason_REASON_ETAG_MISMATCH, codes.Aborted, "etag", false}) {
			t.Errorf("a stale etag: %s", got)
		}
		if got := r.putLimit(&stintv1.PutLimitRequest{Name: "new", Etag: "x", Policy: stale.GetPolicy()}); got.reason != stintv1.Reason_REASON_ETAG_MISMATCH {
			t.Errorf("an etag of a limit that is not there: %s", got)
		}
		stale.Etag, stale.Policy.MaxUnitsOf = "", map[string]uint32{"k3": 7}
		if got := r.putLimit(stale); got != (said{}) {
			t.Error(got)
		}
		for i := range 5 {
			r.submit(limited("q", &stintv1.LimitUse{Name: "l0", Key: fmt.Sprint("k", i)}))
		}
		var keys []string
		for m := (&stintv1.GetLimitUsageRequest{Name: "l0", PageSize: 2}); ; {
			page := r.usage(m)
			for _, k := range page.GetKeys() {
				keys = append(keys, fmt.Sprint(k.GetKey(), ":", k.GetMaxUnits(), ":", k.GetWaitingJobs()))
			}
			if m.PageToken = page.GetNextPageToken(); m.PageToken == "" {
				break
			}
		}
		if got := strings.Join(keys, " "); got != "k0:3:1 k1:3:1 k2:3:1 k3:7:1 k4:3:1" {
			t.Errorf("keys %s", got)
		}
		free := r.usage(&stintv1.GetLimitUsageRequest{Name: "l0", Key: new("none")}).GetKeys()
		if len(free) != 1 || free[0].GetMaxUnits() != 3 || free[0].GetLiveUnits() != 0 {
			t.Errorf("a key that nobody takes: %v", free)
		}
	})
}
