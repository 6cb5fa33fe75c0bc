package server_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// TestPolicyOfQueueIsObeyed: what a queue says holds for what its runs and interrupts lead to.
func TestPolicyOfQueueIsObeyed(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		if _, err := r.setPolicy("q", "", &stintv1.QueuePolicy{Retry: &stintv1.RetryPolicy{
			OnFailure: stintv1.OnFailure_ON_FAILURE_PARK, InterruptDelay: durationpb.New(time.Minute),
		}}); err != nil {
			t.Fatal(err)
		}
		r.add("q", "withdrawn")
		r.claim("q")
		if got := r.interrupt("withdrawn", retry, "").GetStatus(); got != stintv1.InterruptStatus_INTERRUPT_STATUS_WITHDRAWN {
			t.Errorf("the interrupt did %s", got)
		}
		if got := time.Until(r.job(r.id("withdrawn")).GetDueTime().AsTime()); got != time.Minute {
			t.Errorf("the withdrawn job comes back in %s", got)
		}
		r.add("q", "failed")
		if got := r.finishOne(&stintv1.Finish{LeaseToken: r.claim("q").GetLeaseToken(), Outcome: &stintv1.Finish_Failure{Failure: &stintv1.Failure{}}}); got != (said{}) {
			t.Errorf("the finish was answered %s", got)
		}
		if j := r.job(r.id("failed")); j.GetState() != stintv1.JobState_JOB_STATE_PARKED || j.GetParkReason() != stintv1.ParkReason_PARK_REASON_POLICY {
			t.Errorf("the failed job is %s (%s)", j.GetState(), j.GetParkReason())
		}
	})
}
