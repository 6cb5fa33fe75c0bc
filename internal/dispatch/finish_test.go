package dispatch_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/stintrun/stint/internal/dispatch"
	"github.com/stintrun/stint/internal/job"
)

// finishers are the two ways to hand a finish in.
var finishers = map[string]func(*rig, *stream, ...dispatch.Finish) []dispatch.Ack{
	"stream": func(_ *rig, s *stream, f ...dispatch.Finish) []dispatch.Ack {
		return s.say(dispatch.Message{Finishes: f}).Acks
	},
	"call": func(r *rig, _ *stream, f ...dispatch.Finish) []dispatch.Ack {
		r.t.Helper()
		acks, err := r.d.Finish(r.ctx, f)
		if err != nil {
			r.t.Fatal(err)
		}
		return acks
	},
}

// TestFinishes covers what becomes of a finish, for all the items of one message and item by item: one bad item is
// nobody else's trouble.
func TestFinishes(t *testing.T) {
	invalid := errors.New("no outcome")
	for name, finish := range finishers {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.plain("q", 4)
				s := r.open(hello(1))
				s.demand(room(4, "q"))
				runs := s.accepts(4)
				r.interrupt(runs[3].Job.Seq, job.LevelRetry)
				r.step(runs[3].Job.Seq, func(j *job.Job, now time.Time) (*job.Job, error) {
					return j.HardDeadline(now, job.Policy{}, 0.5)
				})
				token := func(i int) string { return runs[i].Token }
				got := finish(r, s,
					dispatch.Finish{Token: token(0), Outcome: success()},
					dispatch.Finish{Token: token(0), Outcome: success()}, // again
					dispatch.Finish{Token: token(0), Outcome: failure()}, // something else
					dispatch.Finish{Token: "none of ours", Outcome: success()},
					dispatch.Finish{Token: token(1), Invalid: invalid},
					dispatch.Finish{Token: token(1), Outcome: failure()},
					dispatch.Finish{Token: token(3), Outcome: success()}, // it was abandoned
					dispatch.Finish{Token: "none of ours", Invalid: invalid},
				)
				want := []dispatch.Ack{
					{Token: token(0), Status: dispatch.AckRecorded, State: job.Succeeded},
					{Token: token(0), Status: dispatch.AckDuplicate, State: job.Succeeded},
					{Token: token(0), Status: dispatch.AckConflict, State: job.Succeeded},
					{Token: "none of ours", Status: dispatch.AckUnknown},
					{Token: token(1), Status: dispatch.AckRejected, Err: invalid},
					{Token: token(1), Status: dispatch.AckRecorded, State: job.Backoff},
					{Token: token(3), Status: dispatch.AckSuperseded, State: job.Scheduled},
					{Token: "none of ours", Status: dispatch.AckRejected, Err: invalid},
				}
				if diff := cmp.Diff(want, got, cmpopts.EquateErrors()); diff != "" {
					t.Errorf("acks (-want +got):\n%s", diff)
				}
				r.expect(runs[2].Job.Seq, job.Running)

				again := finish(r, s,
					dispatch.Finish{Token: token(0), Outcome: success()},
					dispatch.Finish{Token: token(1), Outcome: success()},
				)
				if again[0].Status != dispatch.AckDuplicate || again[1].Status != dispatch.AckConflict {
					t.Errorf("later: %+v", again)
				}
				r.delete(runs[0].Job.Seq)
				if gone := finish(r, s, dispatch.Finish{Token: token(0), Outcome: success()}); gone[0].Status != dispatch.AckUnknown {
					t.Errorf("of a deleted job: %+v", gone)
				}
			})
		})
	}
}

// TestRejectedFinishLeavesTheRunLive: it may be finished well later.
func TestRejectedFinishLeavesTheRunLive(t *testing.T) {
	for name, finish := range finishers {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				seq := r.plain("q", 2)[0]
				s := r.open(hello(1))
				s.demand(room(1, "q"))
				a := s.accepts(1)[0]
				finish(r, s, dispatch.Finish{Token: a.Token, Invalid: errors.New("no outcome")})
				r.expect(seq, job.Running)
				s.takes(0) // its slot is taken
				r.recorded(finish(r, s, dispatch.Finish{Token: a.Token, Outcome: success()}))
				r.expect(seq, job.Succeeded)
				s.takes(1)
			})
		})
	}
}

// TestFinishImpliesAcceptance: a worker that is quick need not say seen.
func TestFinishImpliesAcceptance(t *testing.T) {
	for name, finish := range finishers {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				seq := r.plain("q", 1)[0]
				s := r.open(hello(1))
				s.demand(room(1, "q"))
				r.recorded(finish(r, s, finishes(success(), s.takes(1))...))
				if j := r.expect(seq, job.Succeeded); j.History[0].AcceptTime.IsZero() || j.Counters != (job.Counters{}) {
					t.Errorf("run %+v, counters %+v", j.History[0], j.Counters)
				}
				r.pass(dispatch.DeliveryTimeout)
				if err := s.Err(); err != nil {
					t.Error("the session ended:", err)
				}
			})
		})
	}
}

// TestFinishOfAnOlderRun: once a newer run was dispatched, the older one has no say.
func TestFinishOfAnOlderRun(t *testing.T) {
	for name, finish := range finishers {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				seq := r.plain("q", 1)[0]
				s := r.open(hello(1))
				s.demand(room(1, "q"))
				older := s.accepts(1)
				s.demand()
				r.pass(job.DefaultLease)
				r.pass(2 * time.Second)
				newer := r.claims(1, "q")
				if ack := finish(r, s, finishes(success(), older)...)[0]; ack.Status != dispatch.AckSuperseded || ack.State != job.Running {
					t.Errorf("the older run: %+v", ack)
				}
				r.recorded(finish(r, s, finishes(success(), newer)...))
				r.expect(seq, job.Succeeded)
			})
		})
	}
}

// TestLateFinish: the word of a worker that was taken for dead counts while its job still waits, and what its loss had
// cost is taken back.
func TestLateFinish(t *testing.T) {
	lost := func(r *rig, runs []dispatch.Assignment) {
		r.heartbeat(runs...)
		r.pass(job.DefaultLease)
		r.expectEnd(runs[0].Job.Seq, job.RunLost)
	}
	undelivered := func(r *rig, runs []dispatch.Assignment) {
		r.pass(job.DefaultLease)
		r.expectEnd(runs[0].Job.Seq, job.RunUndelivered)
	}
	for _, test := range []struct {
		what    string
		end     func(*rig, []dispatch.Assignment)
		outcome job.Outcome
		status  dispatch.AckStatus
		state   job.State
		want    job.Counters
	}{
		{"success of a lost run", lost, success(), dispatch.AckRecorded, job.Succeeded, job.Counters{}},
		{"failure of a lost run", lost, failure(), dispatch.AckRecorded, job.Backoff, job.Counters{Attempts: 1}},
		{"success of an undelivered run", undelivered, success(), dispatch.AckRecorded, job.Succeeded, job.Counters{}},
		{"failure of an undelivered run", undelivered, failure(), dispatch.AckRecorded, job.Backoff, job.Counters{Attempts: 1}},
		{"release of a lost run", lost, released(job.Released{}), dispatch.AckSuperseded, job.Backoff, job.Counters{Crashes: 1}},
	} {
		for name, finish := range finishers {
			t.Run(test.what+"/"+name, func(t *testing.T) {
				inBubble(t, func(t *testing.T, r *rig) {
					seq := r.plain("q", 1)[0]
					runs := r.claims(1, "q")
					test.end(r, runs)
					s := r.open(hello(9))
					ack := finish(r, s, finishes(test.outcome, runs)...)[0]
					if ack.Status != test.status || ack.State != test.state {
						t.Errorf("ack %+v", ack)
					}
					if j := r.expect(seq, test.state); j.Counters != test.want {
						t.Errorf("counters %+v, want %+v", j.Counters, test.want)
					}
				})
			})
		}
	}
}

// TestLateFinishOfAParkedJob takes back the crash that parked it.
func TestLateFinishOfAParkedJob(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seq := r.plain("q", 1)[0]
		var runs []dispatch.Assignment
		for range job.MaxCrashes {
			runs = r.claims(1, "q")
			r.heartbeat(runs...)
			r.pass(job.DefaultLease + 10*time.Second)
		}
		r.expect(seq, job.Parked)
		acks, err := r.d.Finish(r.ctx, finishes(success(), runs))
		if err != nil {
			t.Fatal(err)
		}
		r.recorded(acks)
		if j := r.expect(seq, job.Succeeded); j.Counters.Crashes != job.MaxCrashes-1 {
			t.Errorf("counters %+v", j.Counters)
		}
	})
}

// TestFinishHandsItsSlotOn in the batch that records it: the next run needs no further word of the worker.
func TestFinishHandsItsSlotOn(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seqs := r.plain("q", 3)
		s := r.open(hello(1))
		s.demand(room(1, "q"))
		var got []uint64
		for range seqs {
			runs := s.takes(1)
			got = append(got, seqsOf(runs)...)
			s.succeed(runs...)
		}
		if !slices.Equal(got, seqs) {
			t.Errorf("order %v, want %v", got, seqs)
		}
	})
}
