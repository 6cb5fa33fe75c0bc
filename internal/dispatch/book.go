package dispatch

import (
	"math/rand/v2"
	"time"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// book holds the jobs of one transaction: each is loaded once, may take several steps, and is put once.
type book struct {
	tx     store.Tx
	now    time.Time
	pages  map[uint64]*page
	order  []*page
	queue  string // whose policy is the next field
	policy job.Policy
}

type page struct{ old, now *job.Job }

// openBook loads the jobs of the runs.
func openBook(tx store.Tx, refs []ref) (*book, error) {
	b := &book{tx: tx, now: tx.Now(), pages: make(map[uint64]*page, len(refs))}
	return b, b.load(refs)
}

// load adds the jobs of more runs.
func (b *book) load(refs []ref) error {
	seqs := make([]uint64, 0, len(refs))
	for _, r := range refs {
		if _, ok := b.pages[r.seq]; !ok {
			b.pages[r.seq] = nil
			seqs = append(seqs, r.seq)
		}
	}
	if len(seqs) == 0 {
		return nil
	}
	jobs, err := b.tx.Load(seqs)
	if err != nil {
		return err
	}
	pages := make([]page, len(seqs))
	for i, j := range jobs {
		if j != nil {
			pages[i] = page{old: j, now: j}
			b.pages[seqs[i]] = &pages[i]
			b.order = append(b.order, &pages[i])
		}
	}
	return nil
}

// job is the newest version of a run's job; nil if there is none.
func (b *book) job(r ref) *job.Job {
	if p := b.pages[r.seq]; p != nil {
		return p.now
	}
	return nil
}

// live is a run's job if the run is live; else nil.
func (b *book) live(r ref) *job.Job {
	if j := b.job(r); j != nil && j.State == job.Running && j.Run.Fence == r.fence {
		return j
	}
	return nil
}

// put makes j its job's newest version; nil changes nothing.
func (b *book) put(j *job.Job) {
	if j != nil {
		b.pages[j.Seq].now = j
	}
}

// policyOf is the policy of the job's queue.
func (b *book) policyOf(j *job.Job) job.Policy {
	if name := j.Spec.Queue; name != b.queue {
		b.queue, b.policy = name, job.Policy{}
		if q := b.tx.Queue(name); q != nil {
			b.policy = q.Policy
		}
	}
	return b.policy
}

// accept notes that the run's worker has named it.
func (b *book) accept(r ref) error {
	j := b.live(r)
	if j == nil || j.Run.State != job.RunDispatched {
		return nil
	}
	next, err := j.Accept(b.now)
	b.put(next)
	return err
}

// lose ends a run whose worker is gone; one that its worker has not named is undelivered.
func (b *book) lose(r ref, note string) error {
	j := b.live(r)
	if j == nil {
		return nil
	}
	next, err := j.Lose(b.now, b.policyOf(j), rand.Float64(), note)
	b.put(next)
	return err
}

// close puts what has changed.
func (b *book) close() error {
	changes := make([]store.Change, 0, len(b.order))
	for _, p := range b.order {
		if p.now != p.old {
			changes = append(changes, store.Change{Old: p.old, New: p.now})
		}
	}
	if len(changes) == 0 {
		return nil
	}
	return b.tx.Put(changes...)
}
