package client

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// faulty is a server that keeps the contract, loses streams at any moment, and holds the worker to its side of it.
type faulty struct {
	t        *testing.T
	random   *rand.Rand
	jobs     int // left to assign
	limit    int
	live     map[string]bool // assigned and not recorded
	recorded map[string]int  // outcomes accepted
	faults   int

	// Of the present stream.
	stream  *workStream
	lists   map[string]bool // assigned here or adopted, its acknowledgement not sent
	covered map[string]bool // those of them that reports must list
	order   []string        // assigned here, by assignment_seq
	sent    map[string]bool // finishes that came on it
}

// serve runs one stream until it is lost, or the worker leaves.
func (f *faulty) serve(stream *workStream) (left bool) {
	f.stream, f.order = stream, nil
	f.lists, f.covered, f.sent = map[string]bool{}, map[string]bool{}, map[string]bool{}
	hello := stream.recv(f.t)
	if hello.Hello == nil {
		f.t.Fatalf("first message is %v", hello)
	}
	resp := &stintv1.WorkResponse{Welcome: &stintv1.Welcome{ResumeToken: "r", NextReportIn: seconds(3)}}
	held := map[string]bool{}
	for _, token := range hello.Hello.Held {
		held[token] = true
		verdict := goOn(token)
		switch {
		case f.recorded[token] > 0:
			verdict = &stintv1.Verdict{LeaseToken: token, Action: stintv1.VerdictAction_VERDICT_ACTION_FINISHED}
		case f.live[token]:
			f.lists[token], f.covered[token] = true, true
		default:
			verdict = stopIt(token, stintv1.StopReason_STOP_REASON_UNKNOWN)
		}
		resp.Welcome.Verdicts = append(resp.Welcome.Verdicts, verdict)
	}
	for token, seen := range f.live {
		if seen && !held[token] {
			f.t.Errorf("hello does not list %s, which the worker has seen and not finished", token)
		}
		if !held[token] {
			delete(f.live, token) // never arrived
			f.jobs++
		}
	}
	req := hello
	for {
		if f.random.IntN(15) == 0 {
			return f.lose()
		}
		f.apply(req, resp)
		if f.random.IntN(15) == 0 {
			return f.lose() // applied, and the answer is lost
		}
		if err := stream.stream.Send(resp); err != nil {
			return false
		}
		var ok bool
		if req, ok = <-stream.in; !ok {
			return f.jobs == 0 && len(f.live) == 0
		}
		resp = &stintv1.WorkResponse{}
	}
}

// lose loses the stream in one of the ways there are.
func (f *faulty) lose() bool {
	f.faults++
	switch f.random.IntN(3) {
	case 0:
		f.stream.fail(status.Error(codes.Unavailable, "lost"))
	case 1: // mute; the worker has to notice
	case 2:
		if f.stream.stream.Send(&stintv1.WorkResponse{GoingAway: &stintv1.GoingAway{ReconnectIn: seconds(1)}}) != nil {
			return false
		}
	}
	return false
}

// apply applies a message part by part, in the contract's order.
func (f *faulty) apply(req *stintv1.WorkRequest, resp *stintv1.WorkResponse) {
	if req.Demand != nil {
		f.limit = 0
		for _, p := range req.Demand.Pools {
			f.limit = int(p.MaxRuns)
		}
	}
	for _, token := range f.order[:min(int(req.Seen), len(f.order))] {
		if f.recorded[token] == 0 {
			f.live[token], f.covered[token] = true, true
		}
	}
	for _, finish := range req.Finishes {
		token := finish.LeaseToken
		if f.sent[token] {
			f.t.Errorf("%s is finished twice on one stream", token)
		}
		f.sent[token] = true
		ack := recorded(token)
		switch {
		case f.recorded[token] > 0:
			ack.Status = stintv1.FinishStatus_FINISH_STATUS_DUPLICATE
		case f.live[token] || f.lists[token]:
			f.recorded[token]++
			delete(f.live, token)
		default:
			ack.Status = stintv1.FinishStatus_FINISH_STATUS_UNKNOWN
		}
		delete(f.covered, token)
		resp.FinishAcks = append(resp.FinishAcks, ack)
	}
	if req.Report != nil {
		resp.ReportAnswer = f.report(req)
	}
	resp.Drained = req.Drain != nil
	for len(f.live) < f.limit && f.jobs > 0 && len(resp.Assignments) < 5 {
		f.jobs--
		token := fmt.Sprint("t", f.random.Uint64())
		f.live[token] = false
		f.lists[token] = true
		f.order = append(f.order, token)
		a := assignment(len(f.order))
		a.LeaseToken, a.JobId = token, token
		resp.Assignments = append(resp.Assignments, a)
	}
}

// report checks that a report lists exactly what it must.
func (f *faulty) report(req *stintv1.WorkRequest) *stintv1.ReportAnswer {
	answer := &stintv1.ReportAnswer{Seq: req.Seq, NextReportIn: seconds(3)}
	listed := map[string]bool{}
	for _, token := range req.Report.Held {
		listed[token] = true
		if !f.lists[token] {
			f.t.Errorf("a report lists %s, which is not of this session", token)
		}
		verdict := goOn(token)
		if f.recorded[token] > 0 {
			verdict = &stintv1.Verdict{LeaseToken: token, Action: stintv1.VerdictAction_VERDICT_ACTION_FINISHED}
		}
		answer.Verdicts = append(answer.Verdicts, verdict)
	}
	for token := range f.covered {
		if !listed[token] {
			f.t.Errorf("a report does not list %s", token)
		}
	}
	return answer
}

// TestNoRunIsLostOrDoneTwice: over any sequence of lost streams, every run that arrives is executed once, and its
// outcome is recorded once.
func TestNoRunIsLostOrDoneTwice(t *testing.T) {
	const jobs = 200
	faults := 0
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, func(t *testing.T, s *scripted, c *Client) {
				f := &faulty{t: t, random: rand.New(rand.NewPCG(seed, 1)), jobs: jobs, live: map[string]bool{}, recorded: map[string]int{}}
				executed := make(chan string, 4*jobs)
				w := run(t, c, WorkerConfig{}, 8, func(_ context.Context, run *Run) error {
					time.Sleep(time.Duration(run.Fence%5) * 700 * time.Millisecond)
					executed <- run.JobID
					return nil
				})
				for len(f.recorded) < jobs {
					f.serve(next(t, s.works))
				}
				w.Stop()
				for ended := false; !ended; {
					select {
					case stream := <-s.works:
						f.serve(stream)
					case err := <-w.done:
						if err != nil {
							t.Errorf("Run: %v", err)
						}
						ended = true
					}
				}
				synctest.Wait()
				close(executed)
				times := map[string]int{}
				for token := range executed {
					times[token]++
				}
				for token, n := range f.recorded {
					if n != 1 || times[token] != 1 {
						t.Errorf("%s: recorded %d times, executed %d times", token, n, times[token])
					}
				}
				faults += f.faults
			})
		})
	}
	if faults < 40 {
		t.Errorf("only %d faults; the test shows nothing", faults)
	}
}
