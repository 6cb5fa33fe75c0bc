package server_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// told are the events since the last look that are not of jobs or runs, with what they name, while time passes: it looks on
// until so many times nothing has come for 15 s.
func (w *watch) told(quiet int) (lines []string) {
	w.r.t.Helper()
	var all []*stintv1.Event
	for range quiet {
		all = append(all, w.events()...)
	}
	for _, e := range all {
		kind := strings.ToLower(strings.TrimPrefix(e.GetKind().String(), "EVENT_KIND_"))
		if strings.HasPrefix(kind, "job_") || strings.HasPrefix(kind, "run_") || strings.HasPrefix(kind, "interrupt_") {
			continue
		}
		line := fmt.Sprintf("%s %s%s", kind, e.GetQueue(), e.GetLimit())
		if e.GetKey() != "" {
			line += "/" + e.GetKey()
		}
		if e.GetJobId() != "" {
			line += " by a job"
		}
		if e.GetUntil() != nil {
			line += fmt.Sprintf(" until +%v", e.GetUntil().AsTime().Sub(e.GetTime().AsTime()))
		}
		if e.GetReason() != "" {
			line += " (" + e.GetReason() + ")"
		}
		lines = append(lines, line)
	}
	return lines
}

func (w *watch) expect(what string, quiet int, want ...string) {
	w.r.t.Helper()
	if diff := cmp.Diff(want, w.told(quiet)); diff != "" {
		w.r.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// TestWatchEventsOfPolicies tells of each change of queues and limits.
func TestWatchEventsOfPolicies(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		w := r.watch(nil)
		_, err := r.setPolicy("q", "", &stintv1.QueuePolicy{MaxRunning: 1})
		r.must(err)
		_, err = r.setPolicy("q", "", &stintv1.QueuePolicy{MaxRunning: 2})
		r.must(err)
		_, err = r.queues.DeleteQueue(r.ctx, &stintv1.DeleteQueueRequest{Name: "q"})
		r.must(err)
		r.limit("l", 1)
		r.limit("l", 2)
		_, err = r.queues.DeleteLimit(r.ctx, &stintv1.DeleteLimitRequest{Name: "l"})
		r.must(err)
		w.expect("queues and limits", 1, "queue_created q", "queue_updated q", "queue_deleted q", "limit_created l", "limit_updated l", "limit_deleted l")
	})
}

// TestWatchEventsOfGates tells of gates that workers and breakers close, and of their opening.
func TestWatchEventsOfGates(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		done := func(got said) {
			t.Helper()
			if got != (said{}) {
				t.Fatal(got)
			}
		}
		done(r.putLimit(&stintv1.PutLimitRequest{Name: "api", Policy: &stintv1.LimitPolicy{
			MaxUnits: 5, CircuitBreaker: &stintv1.CircuitBreaker{Failures: 1, RetryIn: durationpb.New(time.Minute)},
		}}))
		use := limited("q", &stintv1.LimitUse{Name: "api", Key: "k"})
		w := r.watch(nil)
		r.submit(use, use)
		done(r.finishOne(&stintv1.Finish{LeaseToken: r.claim("q").GetLeaseToken(), Outcome: &stintv1.Finish_Released{Released: &stintv1.Released{
			Reason: "429", Kind: &stintv1.Released_Throttled{Throttled: &stintv1.Throttled{Limit: "api", Key: "k", Cooldown: durationpb.New(time.Minute)}},
		}}}))
		w.expect("throttled", 1, "queue_created q", "gate_closed api/k by a job until +1m0s (429)")
		r.openGate(&stintv1.OpenGateRequest{Of: &stintv1.OpenGateRequest_Limit{Limit: "api"}, Key: "k"})
		w.expect("opened by somebody", 1, "gate_opened api/k")
		done(r.finishOne(&stintv1.Finish{LeaseToken: r.claim("q").GetLeaseToken(), Outcome: &stintv1.Finish_Failure{Failure: &stintv1.Failure{Message: "down"}}}))
		w.expect("a failure", 8, "gate_closed api/k until +1m0s (down)")
		r.succeed(r.claim("q"))
		w.expect("a success", 1, "gate_opened api/k")
	})
}

// TestWatchEventsOfZombies tells of a run that was left behind, and of its end.
func TestWatchEventsOfZombies(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		held := r.hold(&stintv1.JobSpec{Queue: "q"}, false)
		w := r.watch(nil)
		r.interruptBy("a", stintv1.InterruptLevel_INTERRUPT_LEVEL_CANCEL, 2*time.Second)
		time.Sleep(3 * time.Second)
		w.expect("left behind", 1, "zombie_left q by a job")
		held.stream.cancel()
		w.expect("its worker is gone", 8, "worker_gone ", "zombie_ended q by a job")
	})
}

// TestWatchEventsOfResumedWorkers tells a reconnecting worker from a new one.
func TestWatchEventsOfResumedWorkers(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		id := newInstance()
		first := r.work()
		first.say(hello(id))
		synctest.Wait()
		w := r.watch(nil)
		first.cancel()
		time.Sleep(time.Second)
		r.work().say(hello(id))
		w.expect("a second session", 1, "worker_gone ", "worker_resumed ")
	})
}
