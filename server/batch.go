package server

import (
	"bytes"
	"errors"
	"time"

	"github.com/google/uuid"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// batch is the jobs of one message on their way into the store. All that needs no store is done when it is made,
// because submit runs on the goroutine that commits for everybody.
type batch struct {
	items   []submission
	ids     []job.ID // of the valid items whose id the caller chose, in their order
	full    func() bool
	results []result // of the last run of submit
}

// submission is one job of a batch: valid, or refused.
type submission struct {
	id      string // as asked or as made
	spec    *job.Spec
	made    bool // the id was made here, so that nobody knows it
	delayed bool
	delay   time.Duration
	first   int   // the index of the first item with this id: its own, or that of an earlier one
	refused error // why the job is not valid
}

// result is what became of one submission.
type result struct {
	status stintv1.SubmitStatus
	job    *job.Job // made now; nil if it was not
	holder job.ID   // of its unique key, if that is another job
	state  job.State
	policy job.Policy // zero: none to tell
	err    error
}

// newBatch checks and converts the jobs of a message.
func (s *Server) newBatch(jobs []*stintv1.JobSpec, trace traceContext) *batch {
	b := &batch{items: make([]submission, len(jobs)), ids: make([]job.ID, 0, len(jobs)), full: s.store.Full}
	tooMany := error(nil)
	if len(jobs) > itemsMax {
		tooMany = checkCount("jobs", len(jobs))
	}
	var scratch []byte
	for i, m := range jobs {
		item := &b.items[i]
		if item.refused = tooMany; tooMany == nil {
			*item = s.newSubmission(m, trace, &scratch)
		}
		item.id, item.first = m.GetId(), i
		if item.refused != nil {
			continue
		}
		if item.made {
			item.id = item.spec.ID.String()
		} else {
			b.ids = append(b.ids, item.spec.ID)
		}
	}
	b.linkRepeats()
	return b
}

// newSubmission is the job that m asks for. scratch is lent for its digest.
func (s *Server) newSubmission(m *stintv1.JobSpec, trace traceContext, scratch *[]byte) submission {
	if err := checkJobSpec(m); err != nil {
		return submission{refused: err}
	}
	payload, contentType, err := payloadContent(m.GetPayload())
	if err != nil {
		return submission{refused: err}
	}
	if len(payload) > s.cfg.MaxPayload {
		return submission{refused: tooLarge("payload", "at most %d bytes; this has %d", s.cfg.MaxPayload, len(payload))}
	}
	item := submission{delayed: m.GetDelay() != nil, delay: m.GetDelay().AsDuration(), made: m.GetId() == ""}
	spec := specFrom(m)
	if item.made {
		spec.ID = job.ID(uuid.Must(uuid.NewV7()))
	} else if spec.ID, err = parseID("id", m.GetId()); err != nil {
		return submission{refused: err}
	}
	spec.Payload, spec.PayloadSize, spec.ContentType = payload, len(payload), contentType
	if own := m.GetTraceContext(); own.GetTraceparent() != "" {
		trace.parent, trace.state = traceFrom(own.GetTraceparent(), own.GetTracestate())
	}
	spec.Traceparent, spec.Tracestate = trace.parent, trace.state
	spec.Digest = digest(m, payload, spec.Limits, scratch)
	item.spec = &spec
	return item
}

// linkRepeats notes which items repeat the id of an earlier one. Ids that rise, as those of a client that makes
// UUIDv7s do, need no more than a comparison each.
func (b *batch) linkRepeats() {
	rising := true
	for i := 1; i < len(b.ids) && rising; i++ {
		rising = bytes.Compare(b.ids[i-1][:], b.ids[i][:]) < 0
	}
	if rising {
		return
	}
	firsts := make(map[job.ID]int, len(b.ids))
	for i := range b.items {
		item := &b.items[i]
		if item.refused != nil || item.made {
			continue
		}
		if first, repeated := firsts[item.spec.ID]; repeated {
			item.first = first
		} else {
			firsts[item.spec.ID] = i
		}
	}
}

// submit stores the batch's jobs as if they had come one after another. It is the function of a transaction and may
// run more than once.
func (b *batch) submit(tx store.Tx) error {
	found, err := tx.Find(b.ids)
	if err != nil {
		return err
	}
	b.results = make([]result, len(b.items))
	run := submitRun{tx: tx, now: tx.Now(), horizon: tx.Horizon(), full: b.full()}
	for i := range b.items {
		item := &b.items[i]
		if item.refused != nil {
			b.results[i].err = item.refused
			continue
		}
		var known store.Found
		if !item.made {
			known, found = found[0], found[1:]
		}
		if first := &b.results[item.first]; item.first != i && first.job != nil {
			known.Job = first.job
		}
		switch {
		case known.Job != nil:
			if b.results[i], err = run.existing(item.spec, known.Job); err != nil {
				return err
			}
		case known.State != job.StateNone: // nothing is left to compare with
			b.results[i] = result{status: stintv1.SubmitStatus_SUBMIT_STATUS_EXISTING, state: known.State, policy: job.Effective(item.spec, job.Policy{})}
		default:
			if b.results[i], err = run.create(item); err != nil {
				return err
			}
		}
	}
	return nil
}

// submitRun is one run of batch.submit.
type submitRun struct {
	tx      store.Tx
	now     time.Time
	horizon time.Time
	full    bool
	queue   *store.Queue // of the last new job; mostly all are of one
	plainOf *store.Queue // the queue whose policy in force is plain
	plain   job.Policy
	change  [1]store.Change

	replaced bool // a job was: those that were found before may not be the newest versions
}

// create stores a new job, or says why not.
func (r *submitRun) create(item *submission) (result, error) {
	if made, ok := item.spec.ID.V7Time(); ok && !item.made && !made.After(r.horizon) {
		return result{err: errIDTooOld}, nil
	}
	if item.spec.Unique != nil {
		if answer, held, err := r.meetHolder(item); held || err != nil {
			return answer, err
		}
	}
	if r.full {
		return result{err: errStorageFull}, nil
	}
	if refused, is := refuseUses(r.tx, item.spec.Limits); is {
		return refused, nil
	}
	if r.queue == nil || r.queue.Name != item.spec.Queue {
		queue, err := r.tx.MakeQueue(item.spec.Queue)
		if errors.Is(err, store.ErrTooManyQueues) {
			return result{err: errTooManyQueues}, nil
		}
		if err != nil {
			return result{}, err
		}
		r.queue = queue
	}
	j := job.New(item.startingFrom(r.now), r.now)
	answer := result{status: stintv1.SubmitStatus_SUBMIT_STATUS_CREATED, job: j, state: j.State, policy: r.policyOf(j.Spec)}
	r.change[0].New = j
	err := r.tx.Put(r.change[:]...)
	if errors.Is(err, store.ErrFull) { // it has become full just now
		r.full = true
		return result{err: errStorageFull}, nil
	}
	return answer, err
}

// policyOf is the policy in force for a new job. Most have none of their own, and share their queue's.
func (r *submitRun) policyOf(s *job.Spec) job.Policy {
	if s.Lease != 0 || s.Retry != nil {
		return job.Effective(s, r.queue.Policy)
	}
	if r.plainOf != r.queue {
		r.plainOf, r.plain = r.queue, job.Effective(s, r.queue.Policy)
	}
	return r.plain
}

// existing answers for an id that a job has.
func (r *submitRun) existing(asked *job.Spec, j *job.Job) (result, error) {
	if asked.Digest != j.Spec.Digest {
		return result{err: errIDConflict}, nil
	}
	if r.replaced {
		newest, err := r.tx.Load([]uint64{j.Seq})
		if err != nil {
			return result{}, err
		}
		j = newest[0]
	}
	return result{status: stintv1.SubmitStatus_SUBMIT_STATUS_EXISTING, state: j.State, policy: job.Effective(j.Spec, policyOf(r.tx, j))}, nil
}

// startingFrom is the job to store when it is received at now: a delay counts from there.
func (i *submission) startingFrom(now time.Time) *job.Spec {
	if !i.delayed {
		return i.spec
	}
	spec := *i.spec
	spec.RunAt = now.Add(i.delay)
	return &spec
}

// answers says what became of the batch's jobs, and counts it.
func (b *batch) answers(m *metrics) []*stintv1.SubmitResult {
	all := make([]stintv1.SubmitResult, len(b.results))
	answers := make([]*stintv1.SubmitResult, len(b.results))
	var policy job.Policy
	var shared *stintv1.JobPolicy // most jobs of a message have the same
	var statuses submitCounts
	for i := range b.results {
		r, a := &b.results[i], &all[i]
		answers[i] = a
		a.Id = b.items[i].id
		if r.holder != (job.ID{}) {
			a.HolderId, a.State = r.holder.String(), stintv1.JobState(r.state)
			if b.items[i].made { // an id that names nothing
				a.Id = ""
			}
		}
		if r.err != nil {
			a.Error = itemError(i, r.err)
			m.refused(a.Error.Reason)
			continue
		}
		if r.policy != policy {
			if policy, shared = r.policy, nil; policy != (job.Policy{}) {
				shared = wirePolicy(policy)
			}
		}
		a.Status, a.State, a.Policy = r.status, stintv1.JobState(r.state), shared
		statuses[r.status]++
	}
	m.submitted(&statuses)
	return answers
}
