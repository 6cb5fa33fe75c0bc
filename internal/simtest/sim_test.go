package simtest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// script is what happens in a simulation.
type script struct {
	lasts    time.Duration    // how long harm is done
	gap      [2]time.Duration // between two harms
	outage   [3]time.Duration // how long the server is away: at least, mostly at most, at most
	harms    []func(*sim)     // one of them at a time
	long     bool             // many times are hours that are minutes otherwise
	mischief bool             // workers fail, give back, do not listen; and operators interfere
	rule     func(*stintv1.Job) error
	jobs     int              // of each submitter
	lease    [2]time.Duration // of jobs
}

// sim is one simulation: a world, those who live in it, and a script.
type sim struct {
	*world
	script
	seed uint64
	harm *dice
	calm atomic.Bool // workers do what they should
	// handlers are those of the SDK that were called and are not cleaned up.
	handlers atomic.Int64
	over     chan struct{} // closed when the script has been played
	leave    chan struct{} // closed when workers shall go

	submitters, watchers, crew sync.WaitGroup
	seats                      []chan struct{} // a value kills the worker that sits there

	following sync.WaitGroup
	followers []*follower
	joiners   []*joiner

	idsMu sync.Mutex
	ids   []string // of all jobs that were sent
}

var queues = []string{"sim/a", "sim/b", "sim/c"}

func newID() string { return uuid.Must(uuid.NewV7()).String() }

// play runs a script, and compares what is left with what was seen.
func play(t *testing.T, seed uint64, sc script) {
	w := newWorld(t, seed)
	w.witness.rule = sc.rule
	if sc.long {
		w.patient = patienceLong
	}
	s := &sim{
		world: w, script: sc, seed: seed, harm: newDice(seed, "harm"),
		over: make(chan struct{}), leave: make(chan struct{}),
	}
	s.limit()
	s.populate()
	harms := 0
	for time.Since(s.began) < s.lasts {
		s.harm.rest(nil, s.gap[0], s.gap[1])
		s.harms[s.harm.n(len(s.harms))](s)
		harms++
	}
	s.note("the script is over")
	s.t.Logf("%d harms; the server was well for %s of %s", harms, s.witness.well(s.began), time.Since(s.began))
	s.calm.Store(true)
	close(s.over)
	s.awaitAll("submitters are answered", &s.submitters)
	s.awaitAll("watchers end", &s.watchers)
	jobs := s.settle()
	close(s.leave)
	s.awaitAll("workers leave", &s.crew)
	if n := s.handlers.Load(); n != 0 {
		s.witness.fault("%d handlers were not cleaned up", n)
	}
	s.compare(jobs)
	s.compareFollowers(jobs)
	s.crash(0)
	s.start()
	s.compare(s.list())
	s.unused()
}

func (s *sim) awaitAll(what string, group *sync.WaitGroup) {
	s.t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		group.Wait()
	}()
	s.await(what, done)
}

// populate lets everybody in.
func (s *sim) populate() {
	for i := range 2 {
		s.submitters.Go(func() { s.submitByStream(newDice(s.seed, fmt.Sprint("stream", i))) })
		s.watchers.Go(func() { s.getOneByOne(newDice(s.seed, fmt.Sprint("getter", i))) })
		s.employ(fmt.Sprint("hand", i), s.byHand)
	}
	for i := range 3 {
		s.employ(fmt.Sprint("sdk", i), s.bySDK)
	}
	s.submitters.Go(func() { s.submitByCalls(newDice(s.seed, "calls")) })
	s.watchers.Go(func() { s.listAll(newDice(s.seed, "lister")) })
	s.watchers.Go(func() { s.waitForOne(newDice(s.seed, "waiter")) })
	for i := range 3 {
		s.follow(i)
		s.join(i)
	}
	if s.mischief {
		s.watchers.Go(func() { s.operate(newDice(s.seed, "operator")) })
	}
}

// minute is one, or an hour in a long script.
func (s *sim) minute() time.Duration {
	if s.long {
		return time.Hour
	}
	return time.Minute
}

// newJob is a job of some kind.
func (s *sim) newJob(d *dice) client.Job {
	job := client.Job{
		ID: newID(), Queue: queues[d.n(len(queues))], Priority: stintv1.Priority(10 * (1 + d.n(5))), Lease: d.between(s.lease[0], s.lease[1]),
		Payload: fmt.Appendf(nil, "payload %d %s", d.n(1000), make([]byte, d.n(10)*d.n(100))),
		Labels:  map[string]string{"seed": fmt.Sprint(s.seed)},
		Retry: &stintv1.RetryPolicy{MaxAttempts: 3, Backoff: &stintv1.RetryPolicy_Exponential{
			Exponential: &stintv1.ExponentialBackoff{Initial: durationpb.New(time.Second), Max: durationpb.New(5 * time.Second)},
		}},
	}
	second := time.Second
	if s.long && d.chance(50) {
		second = s.minute() / 60
	}
	if d.chance(20) {
		job.Delay = d.between(0, 20*second)
	}
	if d.chance(40) {
		job.Limits = simUses(d)
	}
	if d.chance(30) {
		job.FairnessKey = []string{"a", "b"}[d.n(2)]
	}
	if s.mischief && d.chance(10) {
		job.StartBy = time.Now().Add(d.between(0, 60*second))
	}
	if s.mischief && d.chance(20) {
		job.Timeout = d.between(time.Second, 40*second)
	}
	s.idsMu.Lock()
	defer s.idsMu.Unlock()
	s.ids = append(s.ids, job.ID)
	return job
}

// someID is a job that was sent, mostly one of late; empty if there is none yet.
func (s *sim) someID(d *dice) string {
	s.idsMu.Lock()
	defer s.idsMu.Unlock()
	if len(s.ids) == 0 {
		return ""
	}
	from := 0
	if d.chance(80) {
		from = max(0, len(s.ids)-50)
	}
	return s.ids[from+d.n(len(s.ids)-from)]
}

// pace is how long a submitter pauses so that its jobs fill the script.
func (s *sim) pace(batch int) time.Duration {
	return s.lasts * time.Duration(batch) / time.Duration(s.jobs)
}

func (s *sim) submitByStream(d *dice) {
	l := s.connect()
	defer l.close()
	stream := l.SubmitStream(context.Background(), client.SubmitConfig{BatchSize: 1 + d.n(5), Window: 1 + d.n(8), OnResult: s.answered})
	for range s.jobs {
		if err := stream.Send(context.Background(), s.newJob(d)); err != nil {
			s.witness.fault("a submitter did not take a job: %v", err)
		}
		d.rest(s.over, 0, 2*s.pace(1))
	}
	if err := stream.Close(); err != nil {
		s.witness.fault("a submitter ended before its time: %v", err)
	}
}

// answered judges the answer that a submitter gives its user: in the end every job is stored.
func (s *sim) answered(got client.Submitted) {
	if got.Err != nil {
		s.witness.fault("job %s was not stored: %v", got.ID, got.Err)
	}
}

func (s *sim) submitByCalls(d *dice) {
	l := s.connect()
	defer l.close()
	for sent := 0; sent < s.jobs; {
		var jobs []client.Job
		for range 1 + d.n(4) {
			jobs = append(jobs, s.newJob(d))
		}
		answers, err := l.Submit(context.Background(), jobs...)
		if err != nil {
			s.witness.fault("a submit gave up: %v", err)
		}
		for _, got := range answers {
			s.answered(got)
		}
		sent += len(jobs)
		d.rest(s.over, 0, 2*s.pace(len(jobs)))
	}
}

// employ keeps one worker after another at a seat until all shall leave. A worker ends when it is done, or when it is
// killed by a value from dies.
func (s *sim) employ(name string, work func(d *dice, dies <-chan struct{})) {
	seat := make(chan struct{}, 1)
	s.seats = append(s.seats, seat)
	s.crew.Go(func() {
		for n := 0; ; n++ {
			s.dark.pass()
			select {
			case <-s.leave:
				return
			default:
				work(newDice(s.seed, fmt.Sprint(name, ".", n)), seat)
			}
		}
	})
}

// settle waits until every job has ended. What was parked is retried, and what was paused resumed.
func (s *sim) settle() []*stintv1.Job {
	l := s.connect()
	defer l.close()
	for _, name := range queues {
		if _, err := l.Queues().ResumeQueue(context.Background(), &stintv1.ResumeQueueRequest{Name: name}); err != nil {
			s.t.Fatalf("resume %s: %v", name, err)
		}
	}
	for began := time.Now(); ; time.Sleep(s.minute() / 12) {
		open := s.list(unended...)
		if len(open) == 0 {
			break
		}
		if time.Since(began) > s.patient {
			s.t.Fatalf("%d jobs do not end, among them %v", len(open), open[0])
		}
		parked := &stintv1.RetryJobsRequest{}
		for _, j := range open {
			if j.GetState() == stintv1.JobState_JOB_STATE_PARKED && len(parked.Ids) < 1000 {
				parked.Ids = append(parked.Ids, j.GetId())
			}
		}
		if len(parked.Ids) == 0 {
			continue
		}
		if _, err := l.Jobs().RetryJobs(context.Background(), parked); err != nil {
			s.t.Fatalf("retry what is parked: %v", err)
		}
	}
	s.note("all jobs have ended")
	return s.list()
}

// unended are the states of jobs that have not ended.
var unended = []stintv1.JobState{
	stintv1.JobState_JOB_STATE_SCHEDULED, stintv1.JobState_JOB_STATE_READY, stintv1.JobState_JOB_STATE_RUNNING,
	stintv1.JobState_JOB_STATE_BACKOFF, stintv1.JobState_JOB_STATE_PARKED,
}
