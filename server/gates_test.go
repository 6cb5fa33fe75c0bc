package server_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

func (r *rig) openGate(m *stintv1.OpenGateRequest) *stintv1.Gate {
	r.t.Helper()
	answer, err := r.queues.OpenGate(r.ctx, m)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer.GetWas()
}

// keyGate is the gate of a key, as usage shows it.
func (r *rig) keyGate(limit, key string) *stintv1.Gate {
	return r.usage(&stintv1.GetLimitUsageRequest{Name: limit, Key: &key}).GetKeys()[0].GetGate()
}

// TestGatesOverTheWire: what closes a gate is shown with its cause, in the history and by metrics too, until it is opened.
func TestGatesOverTheWire(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		policy := &stintv1.LimitPolicy{
			Rate: &stintv1.Rate{Permits: 1, Period: durationpb.New(10 * time.Second)}, RateOf: map[string]*stintv1.Rate{"k": {Permits: 9, Period: durationpb.New(time.Second), Burst: 3}},
			CircuitBreaker: &stintv1.CircuitBreaker{Failures: 2, RetryIn: durationpb.New(time.Hour)}, MaxUnitsOf: map[string]uint32{"j": 2},
		}
		set, err := r.queues.PutLimit(r.ctx, &stintv1.PutLimitRequest{Name: "api", Policy: policy})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(policy, set.GetLimit().GetPolicy(), protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(&stintv1.Gate{NextPermitTime: timestamppb.New(time.Now().Add(10 * time.Second))}, r.keyGate("api", "j"), protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
		if got := r.submitOne(limited("q", &stintv1.LimitUse{Name: "api", Key: "k", Units: 4})); got.reason != stintv1.Reason_REASON_UNITS_OVER_LIMIT {
			t.Errorf("more units than ever gather: %s", got)
		}
		time.Sleep(time.Second)
		ids := r.submit(limited("q", &stintv1.LimitUse{Name: "api", Key: "k"}), limited("q", &stintv1.LimitUse{Name: "api", Key: "k"}))
		first, second := r.claim("q"), r.claim("q")
		notHeld := &stintv1.Finish{LeaseToken: first.GetLeaseToken(), Outcome: &stintv1.Finish_Released{Released: &stintv1.Released{
			Kind: &stintv1.Released_Throttled{Throttled: &stintv1.Throttled{Limit: "api", Key: "j"}},
		}}}
		if got := r.finishOne(notHeld); got != (said{stintv1.Reason_REASON_INVALID_FIELD, codes.InvalidArgument, "released.throttled", false}) {
			t.Errorf("a key that it does not hold: %s", got)
		}
		throttled := &stintv1.Throttled{Limit: "api", Key: "k", Cooldown: durationpb.New(time.Minute)}
		notHeld.GetReleased().Reason, notHeld.GetReleased().Kind = "429", &stintv1.Released_Throttled{Throttled: throttled}
		if got := r.finishOne(notHeld); got != (said{}) {
			t.Error(got)
		}
		until := timestamppb.New(time.Now().Add(time.Minute))
		want := &stintv1.Gate{ThrottledUntil: until, ThrottleReason: "429", ThrottledBy: ids[0].GetId()}
		if diff := cmp.Diff(want, r.keyGate("api", "k"), protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
		j := r.job(ids[0].GetId())
		if diff := cmp.Diff(throttled, j.GetHistory()[0].GetThrottled(), protocmp.Transform()); diff != "" || !j.GetDueTime().AsTime().Equal(until.AsTime()) {
			t.Errorf("due at %v; %s", j.GetDueTime(), diff)
		}
		if got := r.metrics(); got[`stint_gates_closed{cause="throttled"}`] != 1 || got[`stint_gate_closings_total{cause="throttled"}`] != 1 {
			t.Errorf("metrics: %v", got)
		}
		if was := r.openGate(&stintv1.OpenGateRequest{Of: &stintv1.OpenGateRequest_Limit{Limit: "api"}, Key: "k"}); was.GetThrottleReason() != "429" {
			t.Errorf("it was %v", was)
		}
		if g := r.keyGate("api", "k"); g != nil {
			t.Errorf("opened, it is %v", g)
		}
		failed := &stintv1.Finish{LeaseToken: second.GetLeaseToken(), Outcome: &stintv1.Finish_Failure{Failure: &stintv1.Failure{Message: "down"}}}
		if got := r.finishOne(failed); got != (said{}) {
			t.Error(got)
		}
		if g := r.keyGate("api", "k"); g.GetFailures() != 1 || g.GetTripTime() != nil {
			t.Errorf("after a failure it is %v", g)
		}
	})
}
