package simtest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// stormRun is a handler that is done after a while, and gives way to an interrupt or does not.
func stormRun(d *dice) client.Handler {
	return func(ctx context.Context, _ *client.Run) error {
		end := time.NewTimer(d.between(20*time.Millisecond, 3*time.Second))
		defer end.Stop()
		obeys := ctx.Done()
		if d.chance(20) {
			obeys = nil
		}
		select {
		case <-end.C:
			return nil
		case <-obeys:
			return context.Cause(ctx)
		}
	}
}

// asking is what a job was interrupted with, and the first answer that came.
type asking struct {
	level  stintv1.InterruptLevel
	answer *stintv1.InterruptResult
}

// ask interrupts a job until an answer comes. The ones that were lost may have counted.
func ask(l *link, id string, level stintv1.InterruptLevel) (*stintv1.InterruptResult, error) {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		answer, err := l.Jobs().InterruptJobs(ctx, &stintv1.InterruptJobsRequest{
			Ids: []string{id}, Level: level, Reason: "storm", Requester: "simtest",
		})
		cancel()
		if err == nil {
			return answer.GetResults()[0], nil
		}
		if client.ReasonOf(err) == stintv1.Reason_REASON_INVALID_FIELD {
			return nil, err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestInterruptStorm interrupts each of 2,000 jobs at a random moment, while every connection is cut once a second and
// the server crashes three times. No level falls, no interrupt is lost, and each ends with how it ended.
func TestInterruptStorm(t *testing.T) {
	jobs := 2000
	if testing.Short() {
		jobs = 400
	}
	eachSeed(t, 1, func(t *testing.T, seed uint64) {
		w, d := newWorld(t, seed), newDice(seed, "storm")
		l := w.connect()
		worker := l.NewWorker(client.WorkerConfig{Name: "storm"})
		worker.Handle("storm", 128, stormRun(d))
		ended := make(chan error, 1)
		go func() { ended <- worker.Run(context.Background()) }()
		over := make(chan struct{})
		var weather sync.WaitGroup
		weather.Go(func() {
			for d.rest(over, time.Second, time.Second) {
				w.cut(d.chance(50))
			}
		})
		weather.Go(func() {
			for range 3 {
				if !d.rest(over, time.Second, 10*time.Second) {
					return
				}
				w.crashFor(50*d.n(3), d.between(0, 3*time.Second))
			}
		})
		asked := storm(t, l, d, jobs)
		for id := range asked {
			if _, err := l.Wait(context.Background(), id); err != nil {
				t.Fatal(err)
			}
		}
		close(over)
		weather.Wait()
		worker.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		for _, j := range w.list() {
			checkStorm(t, j, asked[j.GetId()])
		}
	})
}

// storm submits the jobs and interrupts each at a random moment after that.
func storm(t *testing.T, l *link, d *dice, jobs int) map[string]asking {
	var mu sync.Mutex
	var callers sync.WaitGroup
	asked := make(map[string]asking, jobs)
	stream := l.SubmitStream(context.Background(), client.SubmitConfig{})
	for range jobs {
		id := uuid.Must(uuid.NewV7()).String()
		if err := stream.Send(context.Background(), client.Job{ID: id, Queue: "storm"}); err != nil {
			t.Fatal(err)
		}
		level := stintv1.InterruptLevel_INTERRUPT_LEVEL_RETRY
		if d.chance(50) {
			level = stintv1.InterruptLevel_INTERRUPT_LEVEL_CANCEL
		}
		moment := d.between(0, 20*time.Second)
		callers.Go(func() {
			time.Sleep(moment)
			var answer *stintv1.InterruptResult
			var err error
			for { // it may not be stored yet
				answer, err = ask(l, id, level)
				if err != nil || answer.GetError().GetReason() != stintv1.Reason_REASON_JOB_NOT_FOUND {
					break
				}
				time.Sleep(100 * time.Millisecond)
			}
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			asked[id] = asking{level, answer}
		})
	}
	if err := stream.Close(); err != nil {
		t.Fatal(err)
	}
	callers.Wait()
	return asked
}

// checkStorm compares where a job ended with what was asked of it.
func checkStorm(t *testing.T, j *stintv1.Job, a asking) {
	state, status := j.GetState(), a.answer.GetStatus()
	if state != stintv1.JobState_JOB_STATE_SUCCEEDED && state != stintv1.JobState_JOB_STATE_CANCELLED {
		t.Errorf("job %s is %s", j.GetId(), state)
	}
	if err := a.answer.GetError(); err != nil {
		if err.GetReason() != stintv1.Reason_REASON_INTERRUPT_TOO_LATE {
			t.Errorf("the interrupt of job %s was refused: %v", j.GetId(), err)
		}
		return
	}
	cancel := a.level == stintv1.InterruptLevel_INTERRUPT_LEVEL_CANCEL
	if cancel && j.GetInterrupt().GetLevel() != a.level {
		t.Errorf("job %s was cancelled and stands under %v", j.GetId(), j.GetInterrupt())
	}
	if cancel && status == stintv1.InterruptStatus_INTERRUPT_STATUS_CANCELLED && state != stintv1.JobState_JOB_STATE_CANCELLED {
		t.Errorf("job %s was cancelled while it waited and is %s", j.GetId(), state)
	}
	if state == stintv1.JobState_JOB_STATE_CANCELLED && !cancel {
		t.Errorf("job %s is CANCELLED and nobody asked for that", j.GetId())
	}
	found := false
	for _, run := range j.GetHistory() {
		i := run.GetInterrupt()
		if i == nil {
			continue
		}
		found = found || i.GetLevel() >= a.level
		if i.GetEnd() == stintv1.InterruptEnd_INTERRUPT_END_UNSPECIFIED || i.GetEndTime() == nil || i.GetReason() != "storm" {
			t.Errorf("run %d of job %s ended under %v", run.GetNumber(), j.GetId(), i)
		}
	}
	if status == stintv1.InterruptStatus_INTERRUPT_STATUS_REQUESTED && !found {
		t.Errorf("job %s was interrupted and no run says so: %v", j.GetId(), errors.New(j.String()))
	}
}
