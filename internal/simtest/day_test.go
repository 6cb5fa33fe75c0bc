package simtest

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stintrun/stint/client"
)

// TestQuietDay: for a day a worker holds runs and reports, jobs are scheduled an hour ahead, and nothing else happens.
// Each run goes on to its end, and each scheduled job starts within a second of its time.
func TestQuietDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const held, each = 8, 20
		hours := 24
		if testing.Short() {
			hours = 4
		}
		w := newWorld(t, 1)
		l := w.connect()
		var mu sync.Mutex
		late := map[time.Duration]int{} // by how many seconds, of those scheduled
		worker := l.NewWorker(client.WorkerConfig{Name: "day"})
		worker.Handle("day/held", held, func(ctx context.Context, _ *client.Run) error {
			select {
			case <-time.After(time.Duration(hours) * time.Hour):
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
		worker.Handle("day/scheduled", each, func(_ context.Context, run *client.Run) error {
			mu.Lock()
			defer mu.Unlock()
			late[time.Since(run.SubmitTime.Add(time.Hour)).Truncate(time.Second)]++
			return nil
		})
		ended := make(chan error, 1)
		go func() { ended <- worker.Run(context.Background()) }()
		var jobs []client.Job
		for range held {
			jobs = append(jobs, client.Job{Queue: "day/held"})
		}
		submit(t, l, jobs)
		for range hours {
			jobs = nil
			for range each {
				jobs = append(jobs, client.Job{Queue: "day/scheduled", Delay: time.Hour})
			}
			submit(t, l, jobs)
			time.Sleep(time.Hour)
		}
		time.Sleep(time.Minute)
		worker.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		got := map[end]int{}
		for _, j := range w.list() {
			got[endOf(j)]++
		}
		want := map[end]int{
			{Queue: "day/held", State: "JOB_STATE_SUCCEEDED", Runs: 1}:      held,
			{Queue: "day/scheduled", State: "JOB_STATE_SUCCEEDED", Runs: 1}: hours * each,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(map[time.Duration]int{0: hours * each}, late); diff != "" {
			t.Error("how late the scheduled jobs started:", diff)
		}
	})
}

// submit submits jobs, which must be taken.
func submit(t *testing.T, l *link, jobs []client.Job) {
	t.Helper()
	answers, err := l.Submit(t.Context(), jobs...)
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range answers {
		if got.Err != nil {
			t.Fatalf("job %s was refused: %v", got.ID, got.Err)
		}
	}
}
