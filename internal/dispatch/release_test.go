package dispatch_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stintrun/stint/internal/dispatch"
	"github.com/stintrun/stint/internal/job"
)

const (
	settled = 10 * time.Second // how long after a change of builds jobs are looked at
	quietly = 25 * time.Second // by then all changes have been; sessions that are silent longer are ended
)

func malformed() job.Outcome {
	return job.Outcome{Failure: &job.Failure{Class: job.Malformed}}
}

// build opens the session of worker n, of this build, with room for one run of each queue.
func (r *rig) build(n byte, build string, queues ...string) *stream {
	r.t.Helper()
	h := hello(n)
	h.Build = build
	s := r.open(h)
	s.demand(room(1, queues...))
	return s
}

// parks has the session's worker park the job it is handed next.
func (s *stream) parks() uint64 {
	s.r.t.Helper()
	held := s.accepts(1)
	s.r.recorded(s.finish(malformed(), held...))
	return held[0].Job.Seq
}

// released checks how often a job has been reopened.
func (r *rig) released(seq uint64, times uint32) {
	r.t.Helper()
	if j := r.job(seq); j.Epoch != times+1 {
		r.t.Fatalf("job %d was released %d times, want %d; it is %s", seq, j.Epoch-1, times, j.State)
	}
}

// TestNewBuildReleases what an older build has parked, once no session of that is left; whichever comes last.
func TestNewBuildReleases(t *testing.T) {
	for name, change := range map[string]func(r *rig, old *stream){
		"the old build goes": func(r *rig, old *stream) {
			r.build(2, "b2", "q").keep(quietly)
			old.Close()
		},
		"the new one comes": func(r *rig, old *stream) {
			old.Close()
			r.pass(quietly)
			r.build(2, "b2", "q")
		},
		"the new one asks for the queue": func(r *rig, old *stream) {
			old.Close()
			s := r.build(2, "b2", "other")
			s.keep(quietly)
			s.demand(room(1, "other", "q"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				seq := r.plain("q", 1)[0]
				old := r.build(1, "b1", "q")
				old.parks()
				change(r, old)
				r.pass(settled - time.Second)
				r.released(seq, 0)
				r.pass(2 * time.Second)
				r.released(seq, 1)
				if j := r.expect(seq, job.Running); j.Run.Build != "b2" {
					t.Errorf("it runs on build %q", j.Run.Build)
				}
			})
		})
	}
}

// TestWhatReleasesNothing: what is no new build for the job, and what is no build's to release.
func TestWhatReleasesNothing(t *testing.T) {
	for name, change := range map[string]func(r *rig, seq uint64){
		"the same build": func(r *rig, _ uint64) { r.build(2, "b1", "q") },
		"no build":       func(r *rig, _ uint64) { r.build(2, "", "q") },
		"another queue's": func(r *rig, _ uint64) {
			r.plain("other", 1)
			r.build(2, "b2", "other").parks()
		},
		"one that drains":   func(r *rig, _ uint64) { r.build(2, "b2", "q").say(dispatch.Message{Drain: true}) },
		"one being drained": func(r *rig, _ uint64) { r.build(2, "b2", "q"); r.d.Drain([]job.ID{{2}}, dispatch.DrainNotice{}) },
		"an operator's": func(r *rig, seq uint64) {
			r.step(seq, func(j *job.Job, now time.Time) (*job.Job, error) {
				return j.Park(now, job.By{Reason: "look", Requester: "ops"})
			})
			r.build(2, "b2", "q")
		},
		"a short absence": func(r *rig, _ uint64) {
			r.build(2, "b2", "q")
			r.pass(settled - time.Second)
			r.build(3, "b1", "other")
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				seq := r.plain("q", 1)[0]
				s := r.build(1, "b1", "q")
				s.parks()
				s.Close()
				change(r, seq)
				r.pass(quietly)
				r.released(seq, 0)
			})
		})
	}
}

// TestNoBuildIsReplacedByNone: a worker without a build parks for people only.
func TestNoBuildIsReplacedByNone(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seq := r.plain("q", 1)[0]
		s := r.build(1, "", "q")
		s.parks()
		s.Close()
		r.build(2, "b2", "q")
		r.pass(quietly)
		r.released(seq, 0)
	})
}

// TestBuildReleasesOnce: builds that take turns do not hand a bad job back and forth.
func TestBuildReleasesOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seq := r.plain("q", 1)[0]
		s := r.build(1, "b1", "q")
		s.parks()
		for i, build := range []string{"b2", "b1", "b2", "b1", "b3", "b2", "b1"} {
			s.Close()
			s = r.build(byte(i+2), build, "q")
			r.pass(quietly)
			want := []uint32{1, 2, 2, 2, 3, 3, 3}[i]
			r.released(seq, want)
			if r.job(seq).State == job.Running {
				s.parks()
			}
		}
		r.restart()
		r.build(99, "b1", "q")
		r.pass(quietly)
		r.released(seq, 3)
	})
}

// TestParkedAfterItsBuildHasGone: what the last word of a gone worker parks is released too.
func TestParkedAfterItsBuildHasGone(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seq := r.plain("q", 1)[0]
		old := r.build(1, "b1", "q")
		held := old.accepts(1)
		old.Close()
		s := r.build(2, "b2", "q")
		s.keep(quietly)
		acks, err := r.d.Finish(r.ctx, finishes(malformed(), held))
		if err != nil {
			t.Fatal(err)
		}
		r.recorded(acks)
		r.expect(seq, job.Parked)
		s.keep(quietly)
		r.released(seq, 1)
	})
}

// TestReleaseIsSlow: so many jobs a second, and so many looked at, however many there are.
func TestReleaseIsSlow(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		const jobs = 250
		r.plain("other", 10_000) // the first look passes over these
		r.plain("q", jobs)
		h := hello(1)
		h.Build = "b1"
		old := r.open(h)
		old.demand(room(jobs, "q"))
		r.recorded(old.finish(malformed(), old.accepts(jobs)...))
		old.Close()
		r.pause("q", true)
		r.pass(quietly)
		r.build(2, "b2", "q")
		r.pass(settled - time.Millisecond)
		for i, want := range []uint64{0, 0, 100, 200, jobs, jobs} {
			if got := r.queue("q").Counts[job.Ready]; got != want {
				t.Errorf("after %d looks %d are released, want %d", i, got, want)
			}
			r.pass(time.Second)
		}
	})
}

// TestBuildsAreForgotten once their sessions are over.
func TestBuildsAreForgotten(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		for i := range byte(50) {
			h := hello(i)
			h.Build = fmt.Sprint("b", i)
			r.open(h).Close()
			r.pass(300 * time.Millisecond)
		}
		r.pass(time.Minute)
		if n := r.d.Builds(); n > 0 {
			t.Errorf("%d builds are remembered", n)
		}
	})
}

// TestBuildThatReconnects keeps what it has parked, also if builds are looked at while it is away.
func TestBuildThatReconnects(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		seq := r.plain("q", 1)[0]
		old := r.build(1, "b1", "q")
		old.parks()
		s := r.build(2, "b2", "q")
		r.pass(settled - time.Second) // the look that the first sessions have asked for comes in a second
		old.Close()
		r.pass(settled - time.Second)
		old = r.build(1, "b1", "q")
		s.keep(quietly)
		r.released(seq, 0)
		old.Close()
		s.keep(quietly)
		r.released(seq, 1)
	})
}
