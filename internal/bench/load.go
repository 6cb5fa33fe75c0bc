package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// shape is how a load is cut into streams and messages.
type shape struct {
	streams int // Submit streams
	batch   int // jobs a message, both ways
	window  int // messages without an answer on each Submit stream
	workers int // Work streams
	room    int // runs in flight on all Work streams together
}

// load is one set of jobs on its way through one server: its queue, its submitters and its workers.
type load struct {
	*tally
	shape

	target   *target
	queue    string
	contents []byte              // random bytes that payloads are cut from
	size     int                 // of a payload
	limits   int                 // that each job names
	uses     []*stintv1.LimitUse // not nil: what each job takes instead
	keys     []string            // of each limit
	began    func(job int)
	told     func(job int) // not nil: workers hold runs until they are told to stop
	outcome  outcome       // of every run
	ends     stintv1.JobState
	ctx      context.Context
	cancel   context.CancelCauseFunc
	running  sync.WaitGroup
	sessions []*session
}

// newLoad makes a load of the given number of jobs. The caller ends it with close.
func newLoad(ctx context.Context, t *target, s shape, jobs int, c Config) *load {
	l := &load{
		tally: newTally(jobs), shape: s, target: t, size: c.Payload, contents: randomBytes(c.Payload + 1<<16), limits: c.Limits,
		outcome: successful, ends: stintv1.JobState_JOB_STATE_SUCCEEDED,
	}
	l.queue = "bench/" + l.ids.set
	for i := range c.Keys {
		l.keys = append(l.keys, fmt.Sprint("key-", i))
	}
	l.ctx, l.cancel = context.WithCancelCause(ctx)
	return l
}

// randomBytes makes bytes that do not compress.
func randomBytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

// run runs f as one of the load's goroutines; its error ends the load.
func (l *load) run(f func() error) {
	l.running.Go(func() {
		if err := f(); err != nil {
			l.cancel(err)
		}
	})
}

// errClosed is the cause with which close ends a load.
var errClosed = errors.New("load closed")

// close ends what is still under way and waits for it.
func (l *load) close() {
	l.cancel(errClosed)
	l.running.Wait()
}

// batchOf makes the specs of the jobs from up to, not including, to.
func (l *load) batchOf(from, to int) []*stintv1.JobSpec {
	n := to - from
	slab := make([]struct {
		spec    stintv1.JobSpec
		payload stintv1.Payload
		data    stintv1.Payload_Data
	}, n)
	specs := make([]*stintv1.JobSpec, n)
	now := time.Now()
	text := make([]byte, 0, n*idLen)
	for job := from; job < to; job++ {
		text = l.ids.append(text, now, job)
	}
	names := string(text)
	for i := range slab {
		s := &slab[i]
		at := (from + i) * 61 % (len(l.contents) - l.size)
		s.data.Data = l.contents[at : at+l.size]
		s.payload.Content = &s.data
		s.spec.Id = names[i*idLen : (i+1)*idLen]
		s.spec.Queue = l.queue
		s.spec.Payload = &s.payload
		s.spec.Limits = l.usesOf(from + i)
		specs[i] = &s.spec
	}
	return specs
}

// usesOf is what a job takes: of each limit one unit of a key, seldom the same ones together.
func (l *load) usesOf(job int) []*stintv1.LimitUse {
	if l.limits == 0 || l.uses != nil {
		return l.uses
	}
	slab := make([]stintv1.LimitUse, l.limits)
	uses := make([]*stintv1.LimitUse, l.limits)
	for i := range slab {
		slab[i].Name, slab[i].Key = limitNames[i], l.keys[job*(2*i+1)%len(l.keys)]
		uses[i] = &slab[i]
	}
	return uses
}

// checkSubmit counts the answers to a message of jobs.
func (l *load) checkSubmit(jobs []*stintv1.JobSpec, results []*stintv1.SubmitResult) error {
	if len(results) != len(jobs) {
		return fmt.Errorf("%d jobs were answered with %d results", len(jobs), len(results))
	}
	good := 0
	for i, r := range results {
		switch {
		case r.GetError() != nil:
			l.fault("job %s refused: %s: %s", jobs[i].Id, r.Error.GetReason(), r.Error.GetMessage())
		case r.GetId() != jobs[i].Id || r.GetStatus() != stintv1.SubmitStatus_SUBMIT_STATUS_CREATED:
			l.fault("job %s answered %s %s", jobs[i].Id, r.GetId(), r.GetStatus())
		default:
			if _, ok := l.mark(r.Id, jobCreated); ok {
				good++
			}
		}
	}
	l.created.add(good)
	return nil
}

// checkAssignment notes that a run was received; false means that it must not count.
func (l *load) checkAssignment(a *stintv1.Assignment) {
	job, ok := l.mark(a.GetJobId(), jobStarted)
	if !ok {
		return
	}
	if a.GetRunNumber() != 1 || len(a.GetPayload().GetData()) != l.size {
		l.fault("job %s came as run %d with %d bytes", a.JobId, a.GetRunNumber(), len(a.GetPayload().GetData()))
	}
	if l.began != nil {
		l.began(job)
	}
	l.started.add(1)
}

// checkFinish notes the answer to the finish of a job.
func (l *load) checkFinish(id string, ack *stintv1.FinishAck) {
	if ack.GetStatus() != stintv1.FinishStatus_FINISH_STATUS_RECORDED ||
		ack.GetJobState() != l.ends {
		l.fault("finish of job %s answered %s, job %s: %s",
			id, ack.GetStatus(), ack.GetJobState(), ack.GetError().GetMessage())
		return
	}
	if _, ok := l.mark(id, jobRecorded); ok {
		l.recorded.add(1)
	}
}
