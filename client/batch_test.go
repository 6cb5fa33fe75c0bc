package client

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// finishing is a session with finishes to send, without a stream.
func finishing(sizes ...int) *session {
	w := New(nil).NewWorker(WorkerConfig{})
	w.Handle("q", maxRuns, untilCancelled)
	s := &session{w: w, seq: 1, demanded: true, wake: make(chan struct{}, 1)}
	s.takeDemand()
	w.session = s
	for i, size := range sizes {
		h := &held{token: fmt.Sprint(i), run: &Run{}, session: s}
		h.ctx, h.cancel = context.WithCancelCause(context.Background())
		w.held[h.token] = h
		h.run.SetResult(make([]byte, size), "")
		w.finished(h, outcome(h.run, nil, nil))
	}
	return s
}

// messages composes until nothing is due and returns how many finishes each message has.
func messages(t *testing.T, s *session) (counts []int) {
	t.Helper()
	for {
		req, _, err := s.compose(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if req == nil {
			return counts
		}
		counts = append(counts, len(req.Finishes))
	}
}

func TestFinishesTravelTogether(t *testing.T) {
	for name, test := range map[string]struct {
		sizes []int
		want  []int
	}{
		"all in one":            {make([]int, 50), []int{50}},
		"at most a thousand":    {make([]int, 2100), []int{1000, 1000, 100}},
		"at most two MiB":       {[]int{900 << 10, 900 << 10, 900 << 10}, []int{2, 1}},
		"a larger one alone":    {[]int{10, 3 << 20, 10}, []int{1, 1, 1}},
		"too large is replaced": {[]int{5 << 20, 10}, []int{2}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, messages(t, finishing(test.sizes...))); diff != "" {
				t.Errorf("finishes per message (-want +got):\n%s", diff)
			}
		})
	}
}

func TestResultTooLargeForAMessage(t *testing.T) {
	s := finishing(5 << 20)
	req, _, err := s.compose(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if f := req.Finishes[0].GetFailure(); f.GetType() != "result_too_large" || !f.GetFinal() || req.Finishes[0].LeaseToken != "0" {
		t.Errorf("finish = %v; want a final failure that says why", req.Finishes[0])
	}
}

func TestEverythingDueTravelsInOneMessage(t *testing.T) {
	s := finishing(1, 2)
	now := time.Now()
	s.watchdog = time.AfterFunc(time.Hour, func() {})
	defer s.watchdog.Stop()
	s.opened, s.cadence, s.reportDue, s.received = true, defaultCadence, now, 2
	s.w.Stop()
	req, _, err := s.compose(now)
	if err != nil {
		t.Fatal(err)
	}
	if req.Seq != 2 || req.Seen != 2 || len(req.Finishes) != 2 || len(req.Report.GetHeld()) != 2 || req.Drain == nil || req.Demand == nil {
		t.Errorf("message = %v; want seen, finishes, report, demand and drain", req)
	}
	if again, _, _ := s.compose(now); again != nil {
		t.Errorf("then = %v; want nothing", again)
	}
}
