package client

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// kept keeps what a listener is told.
type kept struct {
	mu     sync.Mutex
	events []Event
}

func (k *kept) tell(e Event) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.events = append(k.events, e)
}

func (k *kept) kinds() (kinds []EventKind) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range k.events {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

func (k *kept) expect(t *testing.T, who string, want ...EventKind) {
	t.Helper()
	synctest.Wait()
	if diff := cmp.Diff(want, k.kinds()); diff != "" {
		t.Errorf("%s was told (-want +got):\n%s", who, diff)
	}
}

// finishes takes the next finish and answers it.
func finishes(t *testing.T, s *workStream, status stintv1.FinishStatus, state stintv1.JobState) {
	t.Helper()
	req := s.recv(t)
	for len(req.Finishes) == 0 {
		req = s.recv(t)
	}
	s.send(t, &stintv1.WorkResponse{FinishAcks: []*stintv1.FinishAck{
		{LeaseToken: req.Finishes[0].LeaseToken, Status: status, JobState: state},
	}})
	synctest.Wait()
}

const recordedStatus = stintv1.FinishStatus_FINISH_STATUS_RECORDED

// TestEventsOfALife: every event that a worker knows, in its order.
func TestEventsOfALife(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		var all, sessions, jobs kept
		w := run(t, c, WorkerConfig{OnEvent: all.tell}, 1, untilCancelled)
		w.Listen(sessions.tell, SessionOpened, SessionLost)
		w.Listen(jobs.tell, JobConsumed, JobAbandoned, JobParked)
		first := next(t, s.works)
		welcome(t, first, 300)
		assign(t, first, assignment(1))
		first.fail(status.Error(codes.Unavailable, "gone"))
		stream := next(t, s.works)
		welcome(t, stream, 300)
		synctest.Wait()
		stream.send(t, &stintv1.WorkResponse{Interrupts: []*stintv1.Verdict{{
			LeaseToken: "t1", Action: stintv1.VerdictAction_VERDICT_ACTION_CONTINUE, Interrupt: &stintv1.Interrupt{Level: retry, Generation: 1},
		}}})
		finishes(t, stream, recordedStatus, stintv1.JobState_JOB_STATE_SCHEDULED)
		w.Stop()
		drains(t, stream)
		if err := w.ended(t); err != nil {
			t.Errorf("Run: %v", err)
		}
		want := []EventKind{
			SessionOpened, RunAssigned, RunStarted, SessionLost, SessionOpened, RunAdopted, RunInterrupted, RunFinished, JobAbandoned, Draining,
		}
		all.expect(t, "OnEvent", want...)
		sessions.expect(t, "a listener to sessions", SessionOpened, SessionLost, SessionOpened)
		jobs.expect(t, "a listener to jobs", JobAbandoned)
		if e := sessions.events; e[0].Resumed || !e[2].Resumed || e[1].Err == nil {
			t.Errorf("the sessions: %+v", e)
		}
		if e := jobs.events[0]; e.Run.JobID != "job1" || e.JobState != stintv1.JobState_JOB_STATE_SCHEDULED || e.Time.IsZero() {
			t.Errorf("JobAbandoned = %+v", e)
		}
		if !slices.IsSortedFunc(all.events, func(a, b Event) int { return a.Time.Compare(b.Time) }) {
			t.Error("the events are not in the order of their times")
		}
	})
}

// TestWhatBecameOfAJob: its state after the run says whether it was consumed, abandoned or parked, and a finish that did not
// count says nothing.
func TestWhatBecameOfAJob(t *testing.T) {
	type answer struct {
		status stintv1.FinishStatus
		state  stintv1.JobState
	}
	want := map[answer]EventKind{
		{stintv1.FinishStatus_FINISH_STATUS_DUPLICATE, stintv1.JobState_JOB_STATE_SUCCEEDED}:  JobConsumed,
		{stintv1.FinishStatus_FINISH_STATUS_SUPERSEDED, stintv1.JobState_JOB_STATE_SUCCEEDED}: 0,
		{recordedStatus, stintv1.JobState_JOB_STATE_UNSPECIFIED}:                              0,
	}
	for state, kind := range map[stintv1.JobState]EventKind{
		stintv1.JobState_JOB_STATE_SUCCEEDED: JobConsumed, stintv1.JobState_JOB_STATE_FAILED: JobConsumed,
		stintv1.JobState_JOB_STATE_CANCELLED: JobConsumed, stintv1.JobState_JOB_STATE_EXPIRED: JobConsumed,
		stintv1.JobState_JOB_STATE_PARKED: JobParked, stintv1.JobState_JOB_STATE_READY: JobAbandoned,
		stintv1.JobState_JOB_STATE_SCHEDULED: JobAbandoned, stintv1.JobState_JOB_STATE_BACKOFF: JobAbandoned,
	} {
		want[answer{recordedStatus, state}] = kind
	}
	for a, kind := range want {
		t.Run(a.status.String()+" "+a.state.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, s *scripted, c *Client) {
				var jobs kept
				w := run(t, c, WorkerConfig{}, 1, func(context.Context, *Run) error { return nil })
				w.Listen(jobs.tell, RunFinished, JobConsumed, JobAbandoned, JobParked)
				stream := next(t, s.works)
				welcome(t, stream, 300)
				stream.send(t, &stintv1.WorkResponse{Assignments: []*stintv1.Assignment{assignment(1)}})
				finishes(t, stream, a.status, a.state)
				if kind == 0 {
					jobs.expect(t, "the listener", RunFinished)
				} else {
					jobs.expect(t, "the listener", RunFinished, kind)
				}
				w.kill(t)
			})
		})
	}
}

func TestListenersComeAndGo(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		var early, late kept
		w := run(t, c, WorkerConfig{}, 1, func(context.Context, *Run) error { return nil })
		remove := w.Listen(early.tell)
		stream := next(t, s.works)
		welcome(t, stream, 300)
		synctest.Wait()
		remove()
		remove()
		w.Listen(late.tell, RunAssigned)
		stream.send(t, &stintv1.WorkResponse{Assignments: []*stintv1.Assignment{assignment(1)}})
		finishes(t, stream, recordedStatus, stintv1.JobState_JOB_STATE_SUCCEEDED)
		early.expect(t, "the one that was removed", SessionOpened)
		late.expect(t, "the one that came", RunAssigned)
		w.kill(t)
	})
}

// TestListenerThatPanics, or ends its goroutine, is told the next event all the same, and nobody else notices.
func TestListenerThatPanics(t *testing.T) {
	for name, fail := range map[string]func(){"panic": func() { panic("boom") }, "Goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *scripted, c *Client) {
				var bad, good kept
				w := run(t, c, WorkerConfig{OnEvent: func(e Event) { bad.tell(e); fail() }}, 1, func(context.Context, *Run) error { return nil })
				w.Listen(good.tell)
				stream := next(t, s.works)
				welcome(t, stream, 300)
				stream.send(t, &stintv1.WorkResponse{Assignments: []*stintv1.Assignment{assignment(1)}})
				finishes(t, stream, recordedStatus, stintv1.JobState_JOB_STATE_SUCCEEDED)
				want := []EventKind{SessionOpened, RunAssigned, RunStarted, RunFinished, JobConsumed}
				bad.expect(t, "the one that fails", want...)
				good.expect(t, "the other one", want...)
				w.Stop()
				drains(t, stream)
				if err := w.ended(t); err != nil {
					t.Errorf("Run: %v", err)
				}
			})
		})
	}
}

// TestSlowListener delays nobody: neither runs, nor other listeners, nor, for more than a moment, the worker's end. It is
// told everything in order once it goes on.
func TestSlowListener(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		hold := make(chan struct{})
		var slow, quick kept
		w := run(t, c, WorkerConfig{OnEvent: func(e Event) { <-hold; slow.tell(e) }}, 1, func(context.Context, *Run) error { return nil })
		w.Listen(quick.tell)
		stream := next(t, s.works)
		welcome(t, stream, 300)
		begin := time.Now()
		for n := 1; n <= 3; n++ {
			stream.send(t, &stintv1.WorkResponse{Assignments: []*stintv1.Assignment{assignment(n)}})
			finishes(t, stream, recordedStatus, stintv1.JobState_JOB_STATE_SUCCEEDED)
		}
		w.Stop()
		drains(t, stream)
		if err := w.ended(t); err != nil || time.Since(begin) != listenerPatience {
			t.Errorf("Run ended with %v after %v; want to wait for the listener for %v", err, time.Since(begin), listenerPatience)
		}
		if kinds := slow.kinds(); len(kinds) != 0 {
			t.Errorf("the slow one was told %v", kinds)
		}
		close(hold)
		slow.expect(t, "the slow one", quick.kinds()...)
	})
}

// TestListenerBacklogIsBounded: what a listener is too slow for is counted.
func TestListenerBacklogIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		var told kept
		w := New(nil).NewWorker(WorkerConfig{OnEvent: func(e Event) { <-hold; told.tell(e) }})
		emit := func() {
			w.mu.Lock()
			w.event(Event{Kind: RunAssigned})
			w.mu.Unlock()
		}
		emit()
		synctest.Wait() // it is being told
		for range listenerBacklog + 10 {
			emit()
		}
		close(hold)
		synctest.Wait()
		emit()
		synctest.Wait()
		if n := len(told.events); n != listenerBacklog+2 || told.events[n-1].Missed != 10 || told.events[n-2].Missed != 0 {
			t.Errorf("it was told %d events, the last with %d missed; want %d and 10", n, told.events[n-1].Missed, listenerBacklog+2)
		}
	})
}

// TestListenerMayCallTheWorker: also its Stop, and even Wait, which it then waits for in vain.
func TestListenerMayCallTheWorker(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		var w *running
		begun := make(chan struct{})
		w = run(t, c, WorkerConfig{OnEvent: func(Event) {
			<-begun
			w.Stop()
			_, _ = w.Stats(), w.Dispatching()
			w.Wait(-1)
		}}, 1, func(context.Context, *Run) error { return errors.New("not reached") })
		close(begun)
		stream := next(t, s.works)
		welcome(t, stream, 300)
		drains(t, stream)
		if err := w.ended(t); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}
