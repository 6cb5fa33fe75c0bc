package dispatch_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stintrun/stint/internal/dispatch"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

func TestDemandIsNeverExceeded(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.plain("q", 10)
		s := r.open(hello(1))
		s.takes(0)
		s.demand(room(3, "q"))
		held := s.accepts(3)
		s.report(held...)
		s.takes(0)

		s.succeed(held[0])
		held = append(held[1:], s.accepts(1)...)
		s.takes(0)

		s.demand(room(1, "q")) // what is in flight goes on
		s.succeed(held[0], held[1])
		s.takes(0)
		s.succeed(held[2])
		s.accepts(1)

		s.demand(room(4, "q")) // the one in flight is one of the four
		s.takes(3)
	})
}

// TestDemandCountsWhatIsUnderWay looks at runs that are matched and not yet taken by the sender.
func TestDemandCountsWhatIsUnderWay(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		s := r.open(hello(1))
		s.demand(room(2, "q"))
		for range 5 {
			r.plain("q", 1)
			synctest.Wait()
		}
		s.takes(2)
	})
}

// TestDemandOverLayouts moves runs in flight between pools: each counts where its queue is served, once, and one whose
// queue is not asked for counts again when it is.
func TestDemandOverLayouts(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.plain("a", 10)
		r.plain("b", 10)
		s := r.open(hello(1))
		s.demand(room(2, "a"), room(1, "b"))
		if got := poolsOf(s.accepts(3)); !slices.Equal(got, []int{0, 0, 1}) {
			t.Errorf("pools %v, want two runs in the first and one in the second", got)
		}
		for _, step := range []struct {
			what  string
			pools []dispatch.Pool
			want  []string // queues of what comes
		}{
			{"the pools change places", []dispatch.Pool{room(1, "b"), room(2, "a")}, nil},
			{"one pool for all", []dispatch.Pool{room(3, "b", "a")}, nil},
			{"one more", []dispatch.Pool{room(4, "b", "a")}, []string{"a"}},
			{"a is not asked for", []dispatch.Pool{room(2, "b")}, []string{"b"}},
			{"nothing is", nil, nil},
			{"a again, of which three are in flight", []dispatch.Pool{room(3, "a")}, nil},
			{"both again, with room for one more of b", []dispatch.Pool{room(3, "a"), room(3, "b")}, []string{"b"}},
			{"a twice: runs count in the first pool", []dispatch.Pool{room(3, "a"), room(3, "b"), room(1, "a")}, []string{"a"}},
			{"their numbers only", []dispatch.Pool{room(3, "a"), room(3, "b"), room(2, "a")}, []string{"a"}},
		} {
			s.demand(step.pools...)
			var got []string
			for _, a := range s.accepts(len(step.want)) {
				got = append(got, a.Job.Spec.Queue)
			}
			if diff := cmp.Diff(step.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", step.what, diff)
			}
		}
	})
}

// TestRunsStayInTheirPool when pools of the same queue are laid out anew: all in one would leave room in the other.
func TestRunsStayInTheirPool(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.plain("q", 5)
		s := r.open(hello(1))
		s.demand(room(1, "q"), room(1, "q"))
		s.accepts(2)
		s.demand(room(1, "q", "p"), room(1, "q"))
		s.takes(0)
	})
}

func poolsOf(runs []dispatch.Assignment) []int {
	pools := make([]int, len(runs))
	for i, a := range runs {
		pools[i] = a.Pool
	}
	return pools
}

// TestDemandCountsAdoptedRuns also looks at a run that was lost meanwhile: its worker may be busy with it until it no
// longer lists it.
func TestDemandCountsAdoptedRuns(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		specs := []*job.Spec{r.spec("q"), r.spec("q"), r.spec("q")}
		specs[0].Lease = 5 * time.Second
		r.submit(specs...)
		r.plain("q", 7)
		s := r.open(hello(1))
		s.demand(room(3, "q"))
		held := s.accepts(3)
		s.Close()
		r.pass(6 * time.Second)
		r.expectEnd(held[0].Job.Seq, job.RunLost)

		s = r.open(hello(1, held...))
		if got := s.welcome.Verdicts[0]; got.Action != dispatch.Stop || got.Reason != dispatch.StopLost {
			t.Errorf("the lost run got the verdict %+v", got)
		}
		s.demand(room(4, "q"))
		more := s.accepts(1)
		held = append(held, more...)
		s.report(held...)
		s.takes(0)
		s.report(held[1:]...)
		s.takes(1)
	})
}

// TestDemandCountsAdoptedClaims adopts runs that were claimed by a call.
func TestDemandCountsAdoptedClaims(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.plain("q", 5)
		claimed, err := r.d.Claim(r.ctx, claim(1, 2, "q"))
		if err != nil || len(claimed) != 2 {
			t.Fatal(claimed, err)
		}
		s := r.open(hello(1, claimed...))
		s.demand(room(3, "q"))
		s.accepts(1)
		s.succeed(claimed...)
		s.accepts(2)
	})
}

// TestLostRunKeepsItsSlot: a run whose lease ran out in a live session may still be busy, until a report says not.
func TestLostRunKeepsItsSlot(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		short := r.spec("q")
		short.Lease = 5 * time.Second
		r.submit(short)
		r.plain("q", 2)
		s := r.open(hello(1))
		s.demand(room(1, "q"))
		held := s.accepts(1)
		r.pass(5 * time.Second)
		r.expectEnd(held[0].Job.Seq, job.RunLost)
		s.takes(0)
		s.report(held...)
		s.takes(0)
		s.report()
		s.takes(1)
	})
}

// TestStoppedRunFreesItsSlotByItsFinish is the other way to hear that a handler is gone.
func TestStoppedRunFreesItsSlotByItsFinish(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.plain("q", 2)
		s := r.open(hello(1))
		s.demand(room(1, "q"))
		held := s.takes(1)
		r.interrupt(held[0].Job.Seq, job.LevelCancel)
		r.expectEnd(held[0].Job.Seq, job.RunWithdrawn)
		s.takes(0)
		if ack := s.finish(success(), held...)[0]; ack.Status != dispatch.AckSuperseded {
			t.Errorf("finish of a withdrawn run: %+v", ack)
		}
		s.takes(1)
	})
}

func TestByteBudgetIsOvershotByOneJob(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		for range 6 {
			s := r.spec("q")
			s.Payload, s.PayloadSize = make([]byte, 400), 400
			r.submit(s)
		}
		s := r.open(hello(1))
		s.demand(dispatch.Pool{Queues: []string{"q"}, MaxRuns: 10, MaxBytes: 1000})
		held := s.accepts(3) // 800 leave room for one more
		s.succeed(held[0])   // so do 800 again
		held = append(held[1:], s.accepts(1)...)
		s.demand(dispatch.Pool{Queues: []string{"q"}, MaxRuns: 10, MaxBytes: 1})
		s.succeed(held[:2]...)
		s.takes(0)
		s.succeed(held[2]) // no job is too large to come
		s.takes(1)
	})
}

// TestNothingOfAnOlderDemandFollowsItsEcho has a run matched that is still on its way to the disk when the demand
// changes.
func TestNothingOfAnOlderDemandFollowsItsEcho(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		s := r.open(hello(1))
		s.demand(room(2, "q"))
		if s.takes(0); s.echo() != 1 {
			t.Fatalf("demand 1 is echoed as %d", s.echo())
		}
		resume := r.hang("q") // with a run that is matched
		answered := s.post(demandOf(2))
		if s.takes(0); s.echo() != 1 {
			t.Errorf("demand 2 is echoed while a run of demand 1 is under way")
		}
		resume()
		<-answered
		if s.takes(1); s.echo() != 2 {
			t.Errorf("the last echo is %d, want 2", s.echo())
		}
		r.plain("q", 1)
		s.takes(0)
	})
}

// echo is the demand version echoed last.
func (s *stream) echo() uint64 { return s.out[len(s.out)-1].Demand }

// TestEchoPassesWithdrawnRuns: a run of an older demand that was taken back before it was sent holds up no echo.
func TestEchoPassesWithdrawnRuns(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		s := r.open(hello(1))
		s.demand(room(1, "q"))
		seqs := r.plain("q", 1)
		synctest.Wait()
		s.demand()
		r.interrupt(seqs[0], job.LevelCancel)
		if s.takes(0); s.echo() != 2 {
			t.Errorf("the echo is %d, want 2", s.echo())
		}
	})
}

func TestDemandVersionsRise(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.plain("q", 3)
		s := r.open(hello(1))
		s.version = 6
		s.demand(room(1, "q"))
		s.takes(1)
		for _, version := range []uint64{0, 6, 7} {
			a := s.say(demandOf(version, room(9, "q")))
			if len(a.Errors) != 1 || a.Errors[0].Part != "demand" || !errors.Is(a.Errors[0].Err, dispatch.ErrDemandVersion) {
				t.Errorf("demand %d after 7: errors %v", version, a.Errors)
			}
			s.takes(0)
		}
		s.demand(room(2, "q"))
		s.takes(1)
	})
}

// TestTooManyQueues: what would make one queue too many is refused, and what else was asked for is not.
func TestTooManyQueues(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.update(func(tx store.Tx) error {
			for i := range store.QueuesMax {
				if _, err := tx.MakeQueue(fmt.Sprint("q", i)); err != nil {
					return err
				}
			}
			return nil
		})
		r.plain("q7", 2)
		s := r.open(hello(1))
		a := s.say(demandOf(1, room(1, "q7", "new")))
		if len(a.Errors) != 1 || a.Errors[0].Part != "demand" || !errors.Is(a.Errors[0].Err, store.ErrTooManyQueues) {
			t.Errorf("errors of the demand: %v", a.Errors)
		}
		s.takes(1)
		if runs, err := r.d.Claim(r.ctx, claim(2, 1, "new")); !errors.Is(err, store.ErrTooManyQueues) {
			t.Errorf("a claim: %v, %v", runs, err)
		}
		if got := r.d.Stats().Waiting; got != 0 {
			t.Errorf("%d pools stand in line", got)
		}
	})
}

// TestAssignmentFollowsItsSync: what a crash could take back is shown to nobody.
func TestAssignmentFollowsItsSync(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		s := r.open(hello(1))
		s.demand(room(1, "q"))
		waiting := claim(2, 1, "q")
		waiting.Wait = time.Minute
		claiming := r.claiming(r.ctx, waiting)

		resume := r.hang("q", "q")
		r.pass(time.Second)
		if matched := r.d.Stats().Matched; matched != 2 {
			t.Fatalf("%d runs are matched, want 2", matched)
		}
		s.takes(0)
		select {
		case c := <-claiming:
			t.Fatalf("a claim was answered before its sync: %+v", c)
		default:
		}
		resume()
		s.takes(1)
		if c := <-claiming; c.err != nil || len(c.runs) != 1 {
			t.Errorf("the claim was answered with %+v", c)
		}
	})
}

// TestTakeHandsOutByBytes: a message carries no more than asked unless a single assignment is larger.
func TestTakeHandsOutByBytes(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		for _, size := range []int{300, 300, 3000, 10} {
			s := r.spec("q")
			s.Payload, s.PayloadSize = make([]byte, size), size
			r.submit(s)
		}
		s := r.open(hello(1))
		s.demand(room(9, "q"))
		synctest.Wait()
		var got [][]int
		for more := true; more; {
			out := s.Take(1500)
			var sizes []int
			for _, a := range out.Assignments {
				sizes = append(sizes, a.Job.Spec.PayloadSize)
			}
			got, more = append(got, sizes), out.More
		}
		if diff := cmp.Diff([][]int{{300, 300}, {3000}, {10}}, got); diff != "" {
			t.Errorf("payload sizes by message (-want +got):\n%s", diff)
		}
	})
}
