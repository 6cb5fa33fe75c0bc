package dispatch_test

import (
	"testing"
	"time"

	"github.com/stintrun/stint/internal/dispatch"
	"github.com/stintrun/stint/internal/job"
)

// news takes what there is to tell of runs, and expects no assignments.
func (s *stream) news() (told []dispatch.Verdict) {
	s.r.t.Helper()
	before := len(s.out)
	s.takes(0)
	for _, out := range s.out[before:] {
		told = append(told, out.News...)
	}
	return told
}

// holding is a session with n runs that its worker has named.
func (r *rig) holding(n int, specs ...*job.Spec) (*stream, []dispatch.Assignment) {
	r.t.Helper()
	r.submit(specs...)
	s := r.open(hello(1))
	s.demand(room(n, "q"))
	return s, s.accepts(n)
}

// TestInterruptIsTold: at once, again with every report and heartbeat until it is acknowledged, and to a new session in
// any case; the job remembers when.
func TestInterruptIsTold(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		s, held := r.holding(1, r.spec("q"))
		seq := held[0].Job.Seq
		r.interrupt(seq, job.LevelRetry)
		if j := r.job(seq); !j.Interrupted().DeliverTime.IsZero() {
			t.Errorf("delivered before it was taken: %+v", j.Interrupted())
		}
		told := s.news()
		if len(told) != 1 || told[0].Token != held[0].Token || told[0].Action != dispatch.Continue ||
			told[0].Interrupt.Level != job.LevelRetry || told[0].Interrupt.Generation != 1 || told[0].GraceLeft != job.RetryGrace {
			t.Fatalf("told %+v", told)
		}
		if again := s.news(); len(again) != 0 {
			t.Errorf("told twice: %+v", again)
		}
		r.pass(0)
		if i := r.job(seq).Interrupted(); i.DeliverTime.IsZero() || !i.AckTime.IsZero() {
			t.Errorf("told, and recorded as %+v", i)
		}
		r.pass(2 * time.Second)
		if v := s.report(held...).Verdicts[0]; v.Interrupt.Generation != 1 || v.GraceLeft != job.RetryGrace-2*time.Second {
			t.Errorf("the next report is answered %+v", v)
		}
		s.say(dispatch.Message{Acks: []dispatch.InterruptAck{{Token: held[0].Token, Generation: 7}, {Token: "x", Generation: 1}}})
		if v := s.report(held...).Verdicts[0]; v.Interrupt.Level != job.LevelRetry {
			t.Errorf("after the acknowledgement of another generation: %+v", v)
		}
		s.say(dispatch.Message{Acks: []dispatch.InterruptAck{{Token: held[0].Token, Generation: 1}}})
		if v := s.report(held...).Verdicts[0]; v.Action != dispatch.Continue || v.Interrupt != (job.Interrupt{}) {
			t.Errorf("after the acknowledgement: %+v", v)
		}
		if i := r.job(seq).Interrupted(); i.AckTime.IsZero() {
			t.Errorf("acknowledged, and recorded as %+v", i)
		}
		s.Close()
		s = r.open(hello(1, held...))
		if v := s.welcome.Verdicts[0]; v.Interrupt.Level != job.LevelRetry || v.Interrupt.AckTime.IsZero() {
			t.Errorf("a new session is welcomed with %+v", v)
		}
		r.interrupt(seq, job.LevelCancel)
		if told := s.news(); len(told) != 1 || told[0].Interrupt.Level != job.LevelCancel || told[0].Interrupt.Generation != 2 {
			t.Errorf("of the higher level: %+v", told)
		}
	})
}

// TestInterruptOfUnaryRun: who calls is told with every heartbeat, until an acknowledgement came with one.
func TestInterruptOfUnaryRun(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.plain("q", 1)
		held := r.claims(1, "q")
		r.heartbeat(held...)
		r.interrupt(held[0].Job.Seq, job.LevelCancel)
		for range 2 {
			if v := r.heartbeat(held...)[0]; v.Interrupt.Level != job.LevelCancel {
				t.Errorf("told %+v", v)
			}
		}
		acks := []dispatch.InterruptAck{{Token: held[0].Token, Generation: 1}}
		verdicts, _, err := r.d.Heartbeat(r.ctx, tokensOf(held), acks)
		if err != nil || verdicts[0].Action != dispatch.Continue || verdicts[0].Interrupt.Level != job.LevelNone {
			t.Errorf("after the acknowledgement: %+v, %v", verdicts, err)
		}
		for range 2 {
			r.pass(20 * time.Second)
			r.heartbeat(held...)
		}
		r.pass(20 * time.Second)
		if v := r.heartbeat(held...)[0]; v.Action != dispatch.Stop || v.Reason != dispatch.StopAbandoned {
			t.Errorf("after the hard deadline: %+v", v)
		}
	})
}

// TestInterruptIsToldOnceOnDisk: nobody hears of an interrupt that a crash could take back.
func TestInterruptIsToldOnceOnDisk(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		s, held := r.holding(1, r.spec("q"))
		resume := r.hang("other")
		interrupted := make(chan struct{})
		go func() {
			defer close(interrupted)
			r.interrupt(held[0].Job.Seq, job.LevelCancel)
		}()
		if told := s.news(); len(told) != 0 {
			t.Errorf("told before it was on disk: %+v", told)
		}
		resume()
		<-interrupted
		if told := s.news(); len(told) != 1 {
			t.Errorf("then told %+v", told)
		}
	})
}

// TestHardDeadline: a worker that ignores CANCEL is left behind. It is told to stop, its late finish is superseded, and
// its slot is taken until it no longer lists the run.
func TestHardDeadline(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		s, held := r.holding(1, r.spec("q"), r.spec("q"))
		seq := held[0].Job.Seq
		r.interrupt(seq, job.LevelCancel)
		s.news()
		s.keep(job.CancelHard-time.Second, held...)
		r.expect(seq, job.Running)
		r.pass(time.Second)
		j := r.expectEnd(seq, job.RunAbandoned)
		if j.State != job.Cancelled || j.History[0].Interrupt.End != job.EndAbandoned {
			t.Errorf("the job is %s, its interrupt %+v", j.State, j.History[0].Interrupt)
		}
		if told := s.news(); len(told) != 1 || told[0].Action != dispatch.Stop || told[0].Reason != dispatch.StopAbandoned {
			t.Errorf("told %+v", told)
		}
		if v := s.report(held...).Verdicts[0]; v.Reason != dispatch.StopAbandoned {
			t.Errorf("the report is answered %+v", v)
		}
		s.takes(0)
		if acks := s.finish(success(), held...); acks[0].Status != dispatch.AckSuperseded {
			t.Errorf("its late finish is answered %+v", acks[0])
		}
		s.report()
		s.takes(1)
	})
}

// TestHardDeadlineAfterRetry: the earlier of two deadlines holds, and a job whose RETRY was ignored comes back.
func TestHardDeadlineAfterRetry(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		s, held := r.holding(1, r.spec("q"))
		seq := held[0].Job.Seq
		for _, hard := range []time.Duration{40 * time.Second, 20 * time.Second, time.Hour} {
			r.step(seq, func(j *job.Job, now time.Time) (*job.Job, error) {
				next, _, err := j.RequestInterrupt(now, job.InterruptRequest{Level: job.LevelRetry, Source: job.SourceUser, HardDeadline: &hard})
				return next, err
			})
		}
		s.keep(19*time.Second, held...)
		r.expect(seq, job.Running)
		r.pass(time.Second)
		if j := r.expectEnd(seq, job.RunAbandoned); j.State != job.Scheduled || j.Counters.Interrupts != 1 {
			t.Errorf("the job is %s, %+v", j.State, j.Counters)
		}
		r.pass(job.InterruptDelay)
		s.report()
		s.accepts(1)
	})
}

// TestTimeout counts from acceptance. A run that takes longer is interrupted with RETRY and, if it goes on, left behind;
// that is a failed attempt.
func TestTimeout(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		slow, quick := r.spec("q"), r.spec("q")
		slow.Timeout, quick.Timeout = 20*time.Second, 20*time.Second
		r.submit(slow, quick)
		s := r.open(hello(1))
		s.demand(room(2, "q"))
		held := s.takes(2)
		r.pass(5 * time.Second)
		s.see()
		s.keep(10*time.Second, held...)
		s.succeed(held[1])
		held = held[:1]
		s.keep(9*time.Second, held...)
		if told := s.news(); len(told) != 0 {
			t.Errorf("before its time: %+v", told)
		}
		r.pass(time.Second)
		told := s.news()
		if len(told) != 1 || told[0].Interrupt.Source != job.SourceTimeout || told[0].GraceLeft != job.TimeoutGrace {
			t.Fatalf("told %+v", told)
		}
		s.keep(job.TimeoutHard-time.Second, held...)
		r.expect(held[0].Job.Seq, job.Running)
		r.pass(time.Second)
		j := r.expectEnd(held[0].Job.Seq, job.RunAbandoned)
		if j.State != job.Backoff || j.Counters.Attempts != 1 || j.Failure.Class != job.TimedOut {
			t.Errorf("the job is %s, %+v, %+v", j.State, j.Counters, j.Failure)
		}
	})
}

// TestDeadlinesAfterRestart: what passed while the server was away fires only after a full lease, so that a worker that
// ended meanwhile can say so.
func TestDeadlinesAfterRestart(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		timed := r.spec("q")
		timed.Timeout = 40 * time.Second
		s, held := r.holding(2, timed, r.spec("q"))
		r.interrupt(held[1].Job.Seq, job.LevelCancel)
		s.Close()
		r.restart()
		r.pass(25 * time.Second) // less than a lease
		r.restart()
		s = r.open(hello(1, held...))
		s.keep(29*time.Second, held...) // the timeout was due 14 s ago
		for _, a := range held {
			r.expect(a.Job.Seq, job.Running)
			if level := r.job(a.Job.Seq).Interrupted().Level; a.Job.Seq == held[0].Job.Seq && level != job.LevelNone {
				t.Errorf("timed out at level %d before a lease was over", level)
			}
		}
		r.pass(time.Second)
		if i := r.job(held[0].Job.Seq).Interrupted(); i.Source != job.SourceTimeout {
			t.Errorf("after a lease: %+v", i)
		}
		s.keep(4*time.Second, held...)
		r.pass(2 * time.Second)
		r.expect(held[1].Job.Seq, job.Cancelled)
	})
}

// TestDeadlinesAfterStall: nobody is judged by what passed while the store stood still.
func TestDeadlinesAfterStall(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		s, held := r.holding(1, r.spec("q"))
		seq := held[0].Job.Seq
		r.interrupt(seq, job.LevelCancel)
		s.keep(job.CancelHard-5*time.Second, held...)
		r.occupy()
		r.pass(10 * time.Second)
		r.goOn()
		r.pass(0)
		r.expect(seq, job.Running)
		s.keep(20*time.Second, held...)
		r.expect(seq, job.Running)
		r.pass(15 * time.Second)
		r.expect(seq, job.Cancelled)
	})
}

// TestEscalationAfterRestart: a new word about a run whose deadline is over does not take back the lease that its worker
// has to be heard.
func TestEscalationAfterRestart(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		s, held := r.holding(1, r.spec("q"))
		seq := held[0].Job.Seq
		r.step(seq, func(j *job.Job, now time.Time) (*job.Job, error) {
			next, _, err := j.RequestInterrupt(now, job.InterruptRequest{
				Level: job.LevelRetry, Source: job.SourceUser, HardDeadline: new(20 * time.Second),
			})
			return next, err
		})
		s.Close()
		r.restart()
		r.pass(25 * time.Second)
		r.interrupt(seq, job.LevelCancel)
		s = r.open(hello(1, held...))
		if v := s.welcome.Verdicts[0]; v.Action != dispatch.Continue || v.Interrupt.Level != job.LevelCancel {
			t.Errorf("welcomed with %+v", v)
		}
		s.keep(4*time.Second, held...)
		r.expect(seq, job.Running)
		r.pass(time.Second)
		r.expect(seq, job.Cancelled)
	})
}

// TestInterruptBetweenSessions: what came while a run had no session is told once, by the welcome.
func TestInterruptBetweenSessions(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		s, held := r.holding(1, r.spec("q"))
		s.Close()
		r.interrupt(held[0].Job.Seq, job.LevelRetry)
		s = r.open(hello(1, held...))
		if v := s.welcome.Verdicts[0]; v.Interrupt.Level != job.LevelRetry {
			t.Errorf("welcomed with %+v", v)
		}
		if told := s.news(); len(told) != 0 {
			t.Errorf("told again: %+v", told)
		}
		r.interrupt(held[0].Job.Seq, job.LevelCancel)
		if told := s.news(); len(told) != 1 || told[0].Interrupt.Level != job.LevelCancel {
			t.Errorf("of the higher level: %+v", told)
		}
	})
}
