package simtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// effort is how long a run takes: most are short, some longer than a lease.
func (s *sim) effort(d *dice) time.Duration {
	switch n := d.n(10); {
	case s.calm.Load():
		return d.between(0, time.Second)
	case s.long && n == 0:
		return d.between(0, 4*s.minute())
	case n < 5:
		return d.between(0, 500*time.Millisecond)
	case n < 8:
		return d.between(time.Second, 10*time.Second)
	default:
		return d.between(20*time.Second, 70*time.Second)
	}
}

// work takes its time, unless ctx ends first and the worker listens.
func (s *sim) work(ctx context.Context, d *dice) error {
	listens := ctx.Done()
	if s.mischief && d.chance(30) {
		listens = nil
	}
	if !d.rest(listens, 0, s.effort(d)) {
		return context.Cause(ctx)
	}
	return nil
}

// result is what a run brings: no two bring the same, and some are so large that the store keeps them apart.
func result(d *dice, fence uint64) []byte {
	return fmt.Appendf(nil, "of run %d %s", fence, make([]byte, d.n(10)*d.n(100)))
}

// builds are what workers may be of. A job that one of them parks is released by another.
var builds = []string{"", "v1", "v2", "v3"}

// cancelGrace is longer than the server is away, and than a run takes that does not listen.
func (s *sim) cancelGrace() time.Duration {
	if s.long {
		return 24 * time.Hour
	}
	return 5 * time.Minute
}

// bySDK is a worker of the SDK.
func (s *sim) bySDK(d *dice, dies <-chan struct{}) {
	l := s.connect()
	w := l.NewWorker(client.WorkerConfig{
		Name: "sdk", BuildID: builds[d.n(len(builds))], ShutdownGrace: 20 * time.Second, CancelGrace: s.cancelGrace(),
	})
	w.HandlePool(queues[:2], 3, s.handler(d))
	w.Handle(queues[2], 3, s.handler(d))
	ended := make(chan error, 1)
	go func() { ended <- w.Run(context.Background()) }()
	var err error
	select {
	case err = <-ended: // it was drained
	case <-s.leave:
		w.Stop()
		err = <-ended
	case <-dies:
		// Its handlers go on, as an abandoned worker's may, but nothing of it is heard any more.
		s.note("worker %s dies", w.InstanceID())
		l.sever()
		w.Stop()
		s.crew.Go(func() {
			<-ended
			l.close()
		})
		return
	}
	if err != nil {
		s.witness.fault("a worker gave up: %v", err)
	}
	l.close()
}

func (s *sim) handler(d *dice) client.Handler {
	return func(ctx context.Context, run *client.Run) error {
		s.handlers.Add(1)
		run.OnCleanUp(func(context.Context) error {
			s.handlers.Add(-1)
			return errors.New("nobody minds")
		})
		err := s.work(ctx, d)
		run.SetResult(result(d, run.Fence), "text/plain")
		if err != nil || s.calm.Load() || !s.mischief {
			return err
		}
		failure := errors.New("bad luck")
		switch n := d.n(100); {
		case n < 60:
			return nil
		case n < 72:
			return failure
		case n < 75:
			return client.Final(failure)
		case n < 78:
			return client.Infrastructure(failure)
		case n < 80:
			return client.Malformed(failure)
		case n < 82:
			return client.Park(failure)
		case n < 90:
			if n >= 88 {
				return s.overloaded(d, run)
			}
			return client.Release(d.between(0, 5*time.Second), "later")
		case n < 94:
			return client.NotMe("somebody else")
		case n < 98:
			return client.Interrupted("no time", d.between(0, 5*time.Second))
		default:
			panic("a handler may")
		}
	}
}

// overloaded says so of something that the run takes, or of its queue.
func (s *sim) overloaded(d *dice, run *client.Run) error {
	cooldown := d.between(time.Millisecond, 20*time.Second)
	if len(run.Limits) == 0 {
		return client.Throttled("", "", cooldown, "busy")
	}
	u := run.Limits[d.n(len(run.Limits))]
	return client.Throttled(u.GetName(), u.GetKey(), cooldown, "busy")
}

// hand is a worker that makes unary calls.
type hand struct {
	*link
	s        *sim
	d        *dice
	instance string
}

// byHand is a worker that makes unary calls.
func (s *sim) byHand(d *dice, dies <-chan struct{}) {
	h := &hand{link: s.connect(), s: s, d: d, instance: uuid.NewString()}
	defer h.close()
	alive, die := context.WithCancel(context.Background())
	defer die()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		h.live(alive)
	}()
	select {
	case <-gone:
	case <-dies:
		s.note("worker %s dies", h.instance)
		h.sever()
		die()
		<-gone
	}
}

// live claims and works until its instance is drained, or it shall leave.
func (h *hand) live(alive context.Context) {
	for {
		request := newID()
		var claimed []*stintv1.Assignment
		for claimed == nil {
			select {
			case <-h.s.leave:
				return
			case <-alive.Done():
				return
			default:
			}
			h.s.dark.pass()
			ctx, cancel := context.WithTimeout(alive, h.d.between(5*time.Second, 20*time.Second))
			resp, err := h.Workers().ClaimJobs(ctx, &stintv1.ClaimJobsRequest{
				Worker: "hand", InstanceId: h.instance, Queues: queues, MaxRuns: uint32(1 + h.d.n(3)),
				Wait: durationpb.New(h.d.between(0, 20*time.Second)), RequestId: request,
			})
			cancel()
			switch claimed = resp.GetAssignments(); {
			case client.ReasonOf(err) == stintv1.Reason_REASON_DRAINING:
				return
			case claimed == nil:
				h.d.rest(alive.Done(), 0, time.Second)
			}
		}
		var runs sync.WaitGroup
		for _, a := range claimed {
			runs.Go(func() { h.run(alive, a) })
		}
		runs.Wait()
	}
}

// run executes one run. A bad worker may forget the heartbeats, and may finish what it was told to stop.
func (h *hand) run(alive context.Context, a *stintv1.Assignment) {
	ctx, cancel := context.WithCancelCause(alive)
	defer cancel(nil)
	beats := make(chan struct{})
	forgets := h.s.mischief && !h.s.calm.Load() && h.d.chance(30)
	go func() {
		defer close(beats)
		if !forgets {
			h.beat(ctx, a.GetLeaseToken(), cancel)
		}
	}()
	err := h.s.work(ctx, h.d)
	if errors.Is(context.Cause(ctx), client.ErrStopped) && h.s.mischief && h.d.chance(50) {
		err = nil
	}
	if alive.Err() == nil && !errors.Is(err, client.ErrStopped) {
		h.finish(alive, h.ending(a, err))
	}
	cancel(nil)
	<-beats
}

// beat keeps a run alive until ctx ends, and ends it when the server says so.
func (h *hand) beat(ctx context.Context, token string, cancel context.CancelCauseFunc) {
	for ctx.Err() == nil {
		h.s.dark.pass()
		call, done := context.WithTimeout(ctx, 5*time.Second)
		resp, err := h.Workers().HeartbeatRuns(call, &stintv1.HeartbeatRunsRequest{LeaseTokens: []string{token}})
		done()
		if err != nil {
			h.d.rest(ctx.Done(), 0, time.Second)
			continue
		}
		switch v := resp.GetVerdicts()[0]; {
		case v.GetAction() == stintv1.VerdictAction_VERDICT_ACTION_STOP:
			cancel(client.ErrStopped)
			return
		case v.GetInterrupt() != nil:
			cancel(&client.InterruptError{Level: v.GetInterrupt().GetLevel()})
			// The run is held until it is finished, so it is kept alive on the worker's own context.
		}
		next := resp.GetNextHeartbeatIn().AsDuration()
		h.d.rest(ctx.Done(), next/2, next)
	}
}

// ending is how a run ends.
func (h *hand) ending(a *stintv1.Assignment, err error) *stintv1.Finish {
	f := &stintv1.Finish{LeaseToken: a.GetLeaseToken()}
	brings := &stintv1.Payload{Content: &stintv1.Payload_Data{Data: result(h.d, a.GetFence())}}
	n := 0
	if h.s.mischief && !h.s.calm.Load() {
		n = h.d.n(100)
	}
	switch {
	case err != nil:
		f.Outcome = &stintv1.Finish_Interrupted{Interrupted: &stintv1.Interrupted{Reason: err.Error()}}
	case n < 70:
		f.Outcome = &stintv1.Finish_Success{Success: &stintv1.Success{Result: brings}}
	case n < 85:
		f.Outcome = &stintv1.Finish_Failure{Failure: &stintv1.Failure{Message: "bad luck"}}
	case n < 95:
		f.Outcome = &stintv1.Finish_Released{Released: &stintv1.Released{}}
	default:
		f.Outcome = &stintv1.Finish_Released{Released: &stintv1.Released{Kind: &stintv1.Released_NotMe{NotMe: &stintv1.NotMe{}}}}
	}
	return f
}

// finish repeats a finish until it is answered.
func (h *hand) finish(alive context.Context, f *stintv1.Finish) {
	for alive.Err() == nil {
		h.s.dark.pass()
		ctx, cancel := context.WithTimeout(alive, 5*time.Second)
		_, err := h.Workers().FinishRuns(ctx, &stintv1.FinishRunsRequest{Finishes: []*stintv1.Finish{f}})
		cancel()
		if err == nil {
			return
		}
		h.d.rest(alive.Done(), 0, time.Second)
	}
}
