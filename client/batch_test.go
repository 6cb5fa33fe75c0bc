package client

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
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

// TestRepeatedAnswer: the server repeats its last answer to have the next report sooner; the answer to a report before
// the one under way says nothing any more.
func TestRepeatedAnswer(t *testing.T) {
	s := finishing()
	now := time.Now()
	s.watchdog = time.AfterFunc(time.Hour, func() {})
	defer s.watchdog.Stop()
	answer := func(seq uint64, in time.Duration) time.Duration {
		s.applyAnswer(&stintv1.ReportAnswer{Seq: seq, NextReportIn: durationpb.New(in)}, s.w.version, now)
		return s.reportDue.Sub(now)
	}
	s.opened, s.cadence = true, defaultCadence
	if got := answer(0, 2*time.Second); got != 2*time.Second {
		t.Errorf("before its first report the next is due in %v", got)
	}
	s.takeReport(7, s.reportDue)
	s.reportDue = time.Time{}
	if answer(0, time.Second); !s.reportDue.IsZero() {
		t.Error("an old answer counts while a report is under way")
	}
	if got := answer(7, 15*time.Second); got != 15*time.Second {
		t.Errorf("after an answer the next report is due in %v", got)
	}
	if got := answer(7, 3*time.Second); got != 3*time.Second {
		t.Errorf("after the answer repeated, sooner, the next report is due in %v", got)
	}
	if got := answer(6, time.Second); got != 3*time.Second {
		t.Errorf("after an older answer the next report is due in %v", got)
	}
}
