package server_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// interrupt interrupts one job.
func (r *rig) interrupt(job string, level stintv1.InterruptLevel, reason string) *stintv1.InterruptResult {
	r.t.Helper()
	answer, err := r.jobs.InterruptJobs(r.ctx, &stintv1.InterruptJobsRequest{
		Ids: []string{r.id(job)}, Level: level, Reason: reason, Requester: "ada",
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return answer.GetResults()[0]
}

const (
	retry  = stintv1.InterruptLevel_INTERRUPT_LEVEL_RETRY
	cancel = stintv1.InterruptLevel_INTERRUPT_LEVEL_CANCEL
)

// TestSessionInterrupt: the level is told at once, in the next verdict and in every one after it until it is acknowledged, in a heartbeat's reply and in
// the welcome of a new stream; it never falls, and what the worker then reports ends as the level says.
func TestSessionInterrupt(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		instance := newInstance()
		w := r.work()
		w.say(hello(instance))
		w.say(demand(1, "q", 1))
		r.add("q", "a")
		w.say(seen(1))
		w.skip()
		w.step("RETRY", func() { r.interrupt("a", retry, "make room") })
		w.say(report(r.token("a/1")))
		w.say(report(r.token("a/1")))
		w.step("CANCEL", func() { r.interrupt("a", cancel, "wrong input") })
		w.say(report(r.token("a/1")))
		w.step("RETRY", func() { r.interrupt("a", retry, "again") })
		w.say(report(r.token("a/1")))
		w.expect(`
			- RETRY
			< told a/1 CONTINUE under RETRY 1 of USER "make room"
			> 4, report a/1
			< report 4; a/1 CONTINUE 30s under RETRY 1 of USER "make room", next in ~3s
			> 5, report a/1
			< report 5; a/1 CONTINUE 30s under RETRY 1 of USER "make room", next in ~3s
			- CANCEL
			< told a/1 CONTINUE under CANCEL 2 of USER "wrong input"
			> 6, report a/1
			< report 6; a/1 CONTINUE 30s under CANCEL 2 of USER "wrong input", next in ~3s
			- RETRY
			> 7, report a/1
			< report 7; a/1 CONTINUE 30s under CANCEL 2 of USER "wrong input", next in ~3s`)

		beat, err := r.workers.HeartbeatRuns(r.ctx, &stintv1.HeartbeatRunsRequest{LeaseTokens: r.tokens("a/1")})
		if err != nil {
			t.Fatal(err)
		}
		i := beat.GetVerdicts()[0].GetInterrupt()
		if i.GetLevel() != cancel || i.GetRequester() != "ada" || i.GetReason() != "wrong input" || !i.GetRequestTime().IsValid() {
			t.Errorf("a heartbeat tells of the interrupt %v", i)
		}

		again := r.work()
		m := hello(instance, r.token("a/1"))
		m.Hello.ResumeToken = w.resume
		again.say(m)
		again.say(finish(failure(r.token("a/1"))))
		again.expect(`
			> 1, hello a/1
			< welcome; a/1 CONTINUE 30s under CANCEL 2 of USER "wrong input", report in ~3s
			> 2, finish a/1 failure
			< ack a/1 RECORDED, job CANCELLED, recorded 2`)
	})
}

// TestSessionWithdrawn: an interrupt takes back what its worker has not named. The worker hears of it when it does.
func TestSessionWithdrawn(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		w := r.work()
		w.say(hello(newInstance()))
		w.say(demand(1, "q", 1))
		r.add("q", "a", "b")
		w.skip()
		w.step("CANCEL", func() { r.interrupt("a", cancel, "") })
		w.say(&stintv1.WorkRequest{Seen: 1, Report: &stintv1.Report{Held: r.tokens("a/1")}})
		w.say(report()) // its handler is gone, so that its slot is free
		w.expect(`
			- CANCEL
			< told a/1 STOP WITHDRAWN
			> 3, seen 1, report a/1
			< report 3; a/1 STOP WITHDRAWN, next in ~3s
			> 4, report
			< report 4, next in ~3s
			< assignment 2: b/1 of q in pool 0`)
	})
}

// TestSessionDrainWorkers: a drained worker is told once, gets nothing more, and what it holds after the grace is
// interrupted. Coming back does not undo it, another process of the same name is not meant.
func TestSessionDrainWorkers(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		instance := newInstance()
		w := r.work()
		w.say(hello(instance))
		w.say(demand(1, "q", 2))
		r.add("q", "a")
		w.say(seen(1))
		w.skip()
		w.step("drain", func() {
			answer, err := r.workers.DrainWorkers(r.ctx, &stintv1.DrainWorkersRequest{
				InstanceIds: []string{instance, newInstance(), "x"}, Grace: durationpb.New(5 * time.Second), Reason: "new release",
			})
			if err != nil {
				t.Fatal(err)
			}
			if runs := answer.GetResults()[0].GetRuns(); runs != 1 {
				t.Errorf("it holds %d runs, want 1", runs)
			}
			for i, want := range []stintv1.Reason{0, stintv1.Reason_REASON_WORKER_NOT_FOUND, stintv1.Reason_REASON_INVALID_FIELD} {
				e := answer.GetResults()[i].GetError()
				if e.GetReason() != want || int(e.GetIndex()) != i && want != 0 {
					t.Errorf("worker %d: %v, want %s", i, e, want)
				}
			}
		})
		w.step("submit b", func() { r.add("q", "b") })
		w.pass(4 * time.Second)
		w.say(report(r.token("a/1")))
		w.pass(time.Second)
		w.say(report(r.token("a/1")))
		w.expect(`
			- drain
			< drain "new release" within 5s
			- submit b
			- 4s pass
			> 4, report a/1
			< report 4; a/1 CONTINUE 30s, next in ~3s
			- 1s pass
			< told a/1 CONTINUE under RETRY 1 of DRAIN "new release"
			> 5, report a/1
			< report 5; a/1 CONTINUE 30s under RETRY 1 of DRAIN "new release", next in ~3s`)

		again, fresh := r.work(), r.work()
		m := hello(instance, r.token("a/1"))
		m.Hello.ResumeToken = w.resume
		again.say(m)
		again.say(demand(1, "q", 2))
		again.expect(`
			> 1, hello a/1
			< welcome; a/1 CONTINUE 30s under RETRY 1 of DRAIN "new release", report in ~3s
			< drain "new release" within 5s
			> 2, demand 1 q×2
			< demand 1`)
		fresh.say(hello(newInstance()))
		fresh.say(demand(1, "q", 2))
		fresh.expect(`
			> 1, hello
			< welcome, report in ~15s
			> 2, demand 1 q×2
			< report 0, next in ~3s
			< assignment 1: b/1 of q in pool 0
			< demand 1`)
	})
}

// shutdown stops the server with a grace. It returns how long that took, when it is done.
func (r *rig) shutdown(grace time.Duration) <-chan time.Duration {
	done := make(chan time.Duration, 1)
	go func() {
		began := time.Now()
		ctx, stop := context.WithTimeout(context.WithoutCancel(r.ctx), grace)
		defer stop()
		r.server.Shutdown(ctx)
		done <- time.Since(began)
	}()
	synctest.Wait()
	return done
}

// TestShutdown: every session is told and may finish what it has, but gets nothing more; when the last is gone the server
// is down, before its grace is over.
func TestShutdown(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		w := r.work()
		w.say(hello(newInstance()))
		w.say(demand(1, "q", 2))
		r.add("q", "a", "b", "c")
		w.say(seen(2))
		silent := r.work() // has not said hello
		w.skip()
		var done <-chan time.Duration
		w.step("shutdown", func() { done = r.shutdown(20 * time.Second) })
		silent.expect(`< end SERVER_STOPPING, Unavailable`)
		if _, _, wait := refusalOf(silent.err); wait <= 0 {
			t.Errorf("come back after %s", wait)
		}
		if _, err := r.jobs.CountJobs(r.ctx, &stintv1.CountJobsRequest{}); status.Code(err) != codes.Unavailable {
			t.Errorf("a call after the shutdown began: %v", err)
		}
		w.pass(3 * time.Second)
		w.say(report(r.tokens("a/1", "b/1")...))
		w.say(finish(success(r.token("a/1"))))
		w.step("close", func() { w.close() })
		w.expect(`
			- shutdown
			< going away
			- 3s pass
			> 4, report a/1 b/1
			< report 4; a/1 CONTINUE 30s; b/1 CONTINUE 30s, next in ~3s
			> 5, finish a/1 success
			< ack a/1 RECORDED, job SUCCEEDED, recorded 5
			- close
			< end OK`)
		if took := <-done; took != 3*time.Second {
			t.Errorf("the shutdown took %s, want the 3s that its last session took", took)
		}
		for _, m := range w.all {
			if away := m.GetGoingAway(); away != nil {
				if in := away.GetReconnectIn().AsDuration(); in < 100*time.Millisecond || in > 500*time.Millisecond {
					t.Errorf("reconnect in %s", in)
				}
			}
		}
	})
}

// TestShutdownGrace: a session that does not go, and one that does not even read, are cut off when the grace is over.
func TestShutdownGrace(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		r.deaf("loud")
		w := r.work()
		w.say(hello(newInstance()))
		w.say(demand(1, "q", 1))
		w.skip()
		var done <-chan time.Duration
		w.step("shutdown", func() { done = r.shutdown(5 * time.Second) })
		w.step("the end", func() {
			if took := <-done; took != 5*time.Second {
				t.Errorf("the shutdown took %s, want its grace of 5s", took)
			}
		})
		w.expect(`
			- shutdown
			< going away
			- the end
			< end Unavailable`)
	})
}
