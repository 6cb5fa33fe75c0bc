package simtest

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// rollingWorker is one of a fleet; stop ends it as a deploy does.
type rollingWorker struct {
	*client.Worker
	ended chan error
}

func startRolling(l *link, d *dice, build string) *rollingWorker {
	// Some give their handlers time to end, some interrupt them at once.
	grace := []time.Duration{-1, 500 * time.Millisecond, time.Minute}[d.n(3)]
	w := &rollingWorker{
		Worker: l.NewWorker(client.WorkerConfig{Name: "rolling", BuildID: build, ShutdownGrace: grace}),
		ended:  make(chan error, 1),
	}
	w.Handle("rolling", 16, func(ctx context.Context, _ *client.Run) error {
		end := time.NewTimer(d.between(10*time.Millisecond, 2*time.Second))
		defer end.Stop()
		select {
		case <-end.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	go func() { w.ended <- w.Run(context.Background()) }()
	return w
}

func (w *rollingWorker) stop(t *testing.T) {
	w.Stop()
	if err := <-w.ended; err != nil {
		t.Error(err)
	}
}

// TestRollingRestarts replaces all workers of a fleet, one after the other, twenty times under load: every job succeeds,
// and none has lost an attempt or counts a crash.
func TestRollingRestarts(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 5
	}
	eachSeed(t, 1, func(t *testing.T, seed uint64) {
		w, d := newWorld(t, seed), newDice(seed, "rolling")
		l := w.connect()
		var ids []string
		submit := func(n int) {
			jobs := make([]client.Job, n)
			for i := range jobs {
				jobs[i] = client.Job{ID: uuid.Must(uuid.NewV7()).String(), Queue: "rolling"}
				ids = append(ids, jobs[i].ID)
			}
			answers, err := l.Submit(context.Background(), jobs...)
			if err != nil || len(answers) != n {
				t.Fatalf("submitted %d, %v", len(answers), err)
			}
		}
		submit(200)
		fleet := make([]*rollingWorker, 3)
		for i := range fleet {
			fleet[i] = startRolling(l, d, "build 0")
		}
		for round := range rounds {
			for i, old := range fleet {
				submit(40)
				d.rest(nil, 0, 500*time.Millisecond)
				fleet[i] = startRolling(l, d, "build "+string(rune('a'+round)))
				old.stop(t)
			}
		}
		interrupts := uint32(0)
		for _, id := range ids {
			j, err := l.Wait(context.Background(), id)
			if err != nil {
				t.Fatal(err)
			}
			c := j.GetCounters()
			interrupts += c.GetInterrupts()
			if j.GetState() != stintv1.JobState_JOB_STATE_SUCCEEDED || c.GetAttempts()+c.GetCrashes() > 0 {
				t.Errorf("job %s is %s with %v", id, j.GetState(), c)
			}
		}
		if interrupts == 0 {
			t.Error("no restart interrupted a run: there was no load")
		}
		for _, worker := range fleet {
			worker.stop(t)
		}
	})
}
