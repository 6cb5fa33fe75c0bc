package dispatch_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stintrun/stint/internal/dispatch"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// ends are ways in which a run of worker 1 can end while its worker still lists it, and what its worker is told.
var ends = []struct {
	what string
	end  func(*rig, *stream, dispatch.Assignment)
	want dispatch.Verdict
}{
	{
		"it goes on",
		func(*rig, *stream, dispatch.Assignment) {},
		dispatch.Verdict{Action: dispatch.Continue, Lease: job.DefaultLease},
	},
	{
		"it is interrupted",
		func(r *rig, _ *stream, a dispatch.Assignment) { r.interrupt(a.Job.Seq, job.LevelRetry) },
		dispatch.Verdict{
			Action: dispatch.Continue, Lease: job.DefaultLease,
			Interrupt: job.Interrupt{Level: job.LevelRetry, Generation: 1, Source: job.SourceUser, Reason: "asked"},
			Epoch:     1, Run: 1, GraceLeft: job.RetryGrace,
		},
	},
	{
		"it is finished",
		func(_ *rig, s *stream, a dispatch.Assignment) { s.succeed(a) },
		dispatch.Verdict{Action: dispatch.Finished},
	},
	{
		"it is finished, by failing",
		func(_ *rig, s *stream, a dispatch.Assignment) { s.finish(failure(), a) },
		dispatch.Verdict{Action: dispatch.Finished},
	},
	{
		"it is finished, and its job is terminal by another run",
		func(r *rig, s *stream, a dispatch.Assignment) {
			s.demand()
			s.finish(failure(), a)
			r.pass(10 * time.Second)
			s.succeed(r.claims(1, "q")...)
		},
		dispatch.Verdict{Action: dispatch.Finished},
	},
	{
		"its lease is lost",
		func(r *rig, _ *stream, a dispatch.Assignment) {
			r.pass(job.DefaultLease)
			r.expectEnd(a.Job.Seq, job.RunLost)
		},
		dispatch.Verdict{Action: dispatch.Stop, Reason: dispatch.StopLost},
	},
	{
		"it is left behind at a hard deadline",
		func(r *rig, _ *stream, a dispatch.Assignment) {
			r.interrupt(a.Job.Seq, job.LevelRetry)
			r.step(a.Job.Seq, func(j *job.Job, now time.Time) (*job.Job, error) { return j.HardDeadline(now, job.Policy{}, 0.5) })
		},
		dispatch.Verdict{Action: dispatch.Stop, Reason: dispatch.StopAbandoned},
	},
	{
		"its job was lost and deleted",
		func(r *rig, _ *stream, a dispatch.Assignment) {
			r.pass(job.DefaultLease)
			r.delete(a.Job.Seq)
		},
		dispatch.Verdict{Action: dispatch.Stop, Reason: dispatch.StopDeleted},
	},
	{
		"its job has had so many runs since that nothing is known of it",
		func(r *rig, s *stream, a dispatch.Assignment) {
			s.finish(released(job.Released{}), a)
			r.step(a.Job.Seq, func(j *job.Job, _ time.Time) (*job.Job, error) { return releaseOften(j, job.HistoryEdge) })
		},
		dispatch.Verdict{Action: dispatch.Stop, Reason: dispatch.StopSuperseded},
	},
}

// releaseOften is the job after n more runs that were given back at once.
func releaseOften(j *job.Job, n int) (*job.Job, error) {
	var atOnce time.Duration
	var err error
	for i := range n {
		if j.State != job.Ready {
			if j, err = j.Wake(j.DueTime); err != nil {
				return nil, err
			}
		}
		fence := uint64(1_000_000 + i)
		if j, err = j.Dispatch(j.ReadyTime, job.Dispatch{Fence: fence, Lease: job.DefaultLease}); err != nil {
			return nil, err
		}
		if j, _, err = j.Finish(j.ReadyTime, fence, released(job.Released{Delay: &atOnce}), job.Policy{}, 0.5); err != nil {
			return nil, err
		}
	}
	return j, nil
}

// TestVerdicts asks in each way that there is.
func TestVerdicts(t *testing.T) {
	for ask, verdict := range map[string]func(*rig, *stream, dispatch.Assignment) dispatch.Verdict{
		"report": func(_ *rig, s *stream, a dispatch.Assignment) dispatch.Verdict {
			return s.report(a).Verdicts[0]
		},
		"heartbeat": func(r *rig, _ *stream, a dispatch.Assignment) dispatch.Verdict {
			return r.heartbeat(a)[0]
		},
		"hello": func(r *rig, s *stream, a dispatch.Assignment) dispatch.Verdict {
			s.Close()
			return r.open(hello(1, a)).welcome.Verdicts[0]
		},
	} {
		for _, test := range ends {
			t.Run(ask+"/"+test.what, func(t *testing.T) {
				inBubble(t, func(t *testing.T, r *rig) {
					r.plain("q", 1)
					s := r.open(hello(1))
					s.demand(room(1, "q"))
					a := s.accepts(1)[0]
					if test.want.Reason == dispatch.StopSuperseded {
						a = s.hundredth(a)
					}
					test.end(r, s, a)
					got := verdict(r, s, a)
					if got.Token != a.Token {
						t.Errorf("the verdict is on %q, want %q", got.Token, a.Token)
					}
					got.Token, got.Interrupt.RequestTime, got.Interrupt.GraceTime, got.Interrupt.DeliverTime = "", time.Time{}, time.Time{}, time.Time{}
					if diff := cmp.Diff(test.want, got); diff != "" {
						t.Errorf("verdict (-want +got):\n%s", diff)
					}
				})
			})
		}
	}
}

// hundredth gives the run back, lets its job have a hundred runs more, and takes the next: of all runs a history keeps
// the first hundred and the last, and this is to be one of those in between.
func (s *stream) hundredth(a dispatch.Assignment) dispatch.Assignment {
	s.r.t.Helper()
	s.finish(released(job.Released{}), a)
	s.r.step(a.Job.Seq, func(j *job.Job, _ time.Time) (*job.Job, error) { return releaseOften(j, job.HistoryEdge) })
	s.r.pass(time.Second)
	return s.accepts(1)[0]
}

// TestVerdictsOnWhatWasNotAccepted: a delivery that was taken back is WITHDRAWN, whoever took it back.
func TestVerdictsOnWhatWasNotAccepted(t *testing.T) {
	withdrawn := dispatch.Verdict{Action: dispatch.Stop, Reason: dispatch.StopWithdrawn}
	inBubble(t, func(t *testing.T, r *rig) {
		seqs := r.plain("q", 2)
		s := r.open(hello(1))
		s.demand(room(2, "q"))
		held := s.takes(2)
		r.interrupt(seqs[0], job.LevelCancel)
		got := s.report(held[0]).Verdicts[0]
		got.Token = ""
		if diff := cmp.Diff(withdrawn, got); diff != "" {
			t.Errorf("verdict on a run that was interrupted (-want +got):\n%s", diff)
		}
		r.pass(dispatch.DeliveryTimeout)
		got = r.heartbeat(held[1])[0]
		got.Token = ""
		if diff := cmp.Diff(withdrawn, got); diff != "" {
			t.Errorf("verdict on a run that was not acknowledged in time (-want +got):\n%s", diff)
		}
	})
}

// TestVerdictsOnForeignTokens: what is none of ours is UNKNOWN, and the others of the report go on.
func TestVerdictsOnForeignTokens(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.plain("q", 1)
		s := r.open(hello(1))
		s.demand(room(1, "q"))
		held := s.accepts(1)
		foreign := []string{"", "x", held[0].Token + "A", "AAAAAAAAAAAAAAAAAAAAAA"}
		a := s.say(dispatch.Message{Report: true, Held: append(tokensOf(held), foreign...)})
		if !a.Reported || len(a.Verdicts) != 5 || a.Verdicts[0].Action != dispatch.Continue {
			t.Fatalf("answer %+v", a)
		}
		for i, v := range a.Verdicts[1:] {
			if diff := cmp.Diff(dispatch.Verdict{Token: foreign[i], Action: dispatch.Stop, Reason: dispatch.StopUnknown}, v); diff != "" {
				t.Errorf("verdict (-want +got):\n%s", diff)
			}
		}
	})
}

// TestHeartbeatIsNeverComplete: it renews the runs that it names, and says nothing about the others.
func TestHeartbeatIsNeverComplete(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seqs := r.plain("q", 2)
		runs := r.claims(2, "q")
		r.heartbeat(runs...)
		r.pass(20 * time.Second)
		r.heartbeat(runs[0])
		r.expect(seqs[1], job.Running)
		r.pass(10 * time.Second)
		r.expect(seqs[0], job.Running)
		r.expectEnd(seqs[1], job.RunLost)
	})
}

// TestCheckLease tells third parties which run owns a job.
func TestCheckLease(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seq := r.plain("q", 1)[0]
		id := r.job(seq).Spec.ID
		check := func(fence uint64, want dispatch.Lease) {
			t.Helper()
			got, found, err := r.d.CheckLease(r.ctx, id, fence)
			if err != nil || !found || got != want {
				t.Errorf("lease of fence %d: %+v, %t, %v; want %+v", fence, got, found, err, want)
			}
		}
		check(1, dispatch.Lease{})
		first := r.claims(1, "q")[0].Job.Run.Fence
		check(first, dispatch.Lease{Live: true, Newest: first})
		check(first+1, dispatch.Lease{Newest: first})
		r.pass(job.DefaultLease)
		check(first, dispatch.Lease{Newest: first})
		second := r.claims(1, "q")
		r.heartbeat(second...)
		fence := second[0].Job.Run.Fence
		r.interrupt(seq, job.LevelCancel)
		check(first, dispatch.Lease{Level: job.LevelCancel, Newest: fence})
		check(fence, dispatch.Lease{Live: true, Level: job.LevelCancel, Newest: fence})
		if _, found, err := r.d.CheckLease(r.ctx, job.ID{255}, 1); found || err != nil {
			t.Errorf("an unknown job was found; error %v", err)
		}
	})
}

// TestFollowTellsOfSyncedChanges of its job alone.
func TestFollowTellsOfSyncedChanges(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seqs := r.plain("q", 2)
		changed, stop := r.d.Follow(seqs[0])
		tells := func(want bool) {
			t.Helper()
			select {
			case <-changed:
				if !want {
					t.Error("told of a change too many")
				}
			default:
				if want {
					t.Error("not told of the change")
				}
			}
		}
		tells(false)
		r.interrupt(seqs[1], job.LevelCancel)
		tells(false)
		runs := r.claims(1, "q")
		r.heartbeat(runs...)
		tells(true)
		tells(false) // two changes that nobody fetched are one
		resume := r.hang("other")
		finishing := make(chan struct{})
		go func() {
			defer close(finishing)
			if _, err := r.d.Finish(r.ctx, finishes(success(), runs)); err != nil {
				t.Error(err)
			}
		}()
		r.pass(time.Second)
		tells(false)
		resume()
		<-finishing
		tells(true)
		r.delete(seqs[0])
		tells(true)
		stop()
		r.update(func(tx store.Tx) error { return nil })
		tells(false)
	})
}
