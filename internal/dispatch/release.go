package dispatch

import (
	"slices"
	"time"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// How parked jobs are looked for that a new build releases. The search passes over all jobs: it happens only while a
// queue with a new build has parked ones, and slowly.
const (
	releaseAfter  = 10 * time.Second // how long a build is gone before others release what it parked: it may reconnect
	releaseEvery  = time.Second      // between two looks
	releaseMax    = 100              // jobs that one look releases
	releaseBudget = 10_000           // jobs that one look passes over
)

// releaser is what the search for parked jobs goes by. It is guarded by the dispatcher's mutex.
type releaser struct {
	builds map[string]int   // open sessions by build
	left   map[string]int64 // when the last session of a build ended, for about releaseAfter
	asked  chan struct{}    // for a pass over all jobs
}

func newReleaser() releaser {
	return releaser{builds: map[string]int{}, left: map[string]int64{}, asked: make(chan struct{}, 1)}
}

// joins counts an open session.
func (r *releaser) joins(build string) {
	if build != "" {
		r.builds[build]++
	}
}

// leaves counts it no more. The last one of a build leaves the jobs that it parked to others.
func (r *releaser) leaves(build string, now int64) {
	if build == "" {
		return
	}
	if r.builds[build]--; r.builds[build] == 0 {
		delete(r.builds, build)
		r.left[build] = now
		r.ask()
	}
}

// parked asks for a pass if no session of the build that has parked the job is left.
func (r *releaser) parked(j *job.Job) {
	if j.ParkBuild != "" && r.builds[j.ParkBuild] == 0 {
		r.ask()
	}
}

// ask has a pass begin, releaseAfter from now or, if one is awaited or under way, after that.
func (r *releaser) ask() {
	select {
	case r.asked <- struct{}{}:
	default:
	}
}

// open are the builds that have a session, or may be about to have one again.
func (r *releaser) open(now int64) map[string]bool {
	open := make(map[string]bool, len(r.builds))
	for build := range r.builds {
		open[build] = true
	}
	for build, at := range r.left {
		if now-at < int64(releaseAfter) {
			open[build] = true
		} else {
			delete(r.left, build)
		}
	}
	return open
}

// releaseParked makes a pass over all jobs whenever it is asked to.
func (d *Dispatcher) releaseParked() {
	for {
		select {
		case <-d.ctx.Done():
			return
		case <-d.releaser.asked:
		}
		if !d.rest(releaseAfter) {
			return
		}
		for from := uint64(1); from != 0; {
			next, err := d.releaseSome(from)
			if err == nil {
				from = next
			} else {
				d.logFailure("release parked jobs", err)
			}
			if !d.rest(releaseEvery) {
				return
			}
		}
	}
}

// rest waits; false if the dispatcher closes first.
func (d *Dispatcher) rest(long time.Duration) bool {
	timer := time.NewTimer(long)
	defer timer.Stop()
	select {
	case <-d.ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// releaseSome is one look, from a job on, and returns where the next one begins; 0: nowhere. It finds jobs beside the
// store's writes, and looks at those again in a transaction.
func (d *Dispatcher) releaseSome(from uint64) (next uint64, err error) {
	var found []uint64
	err = d.store.View(d.ctx, func(r store.Reader) (err error) {
		f := d.fleet()
		if !f.mayRelease(r) {
			return nil
		}
		next, err = r.Scan(from, false, releaseBudget, func(j *job.Job) bool {
			if f.release(r.Now(), j) == nil {
				return true
			}
			if len(found) == releaseMax {
				return false // the next look starts with it
			}
			found = append(found, j.Seq)
			return true
		})
		return err
	})
	if err == nil && len(found) > 0 {
		err = d.store.Update(d.ctx, func(tx store.Tx) error { return d.releaseAll(tx, found) })
	}
	return next, err
}

func (d *Dispatcher) releaseAll(tx store.Tx, seqs []uint64) error {
	jobs, err := tx.Load(seqs)
	if err != nil {
		return err
	}
	f := d.fleet()
	var changes []store.Change
	for _, j := range jobs {
		if j == nil {
			continue
		}
		if next := f.release(tx.Now(), j); next != nil {
			changes = append(changes, store.Change{Old: j, New: next})
		}
	}
	return tx.Put(changes...)
}

// fleet is what builds there are.
type fleet struct {
	open   map[string]bool
	serves map[string][]string // with room for jobs of the queue
}

func (d *Dispatcher) fleet() fleet {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := fleet{open: d.releaser.open(d.now()), serves: map[string][]string{}}
	for s := range d.sessions {
		build := s.hello.Build
		if build == "" || s.quiet || s.worker.draining {
			continue
		}
		for _, p := range s.pools {
			for _, seat := range p.seats {
				if name := seat.queue.name; !slices.Contains(f.serves[name], build) {
					f.serves[name] = append(f.serves[name], build)
				}
			}
		}
	}
	return f
}

// mayRelease reports whether there is a parked job in a queue that a build serves.
func (f fleet) mayRelease(r store.Reader) bool {
	for name := range f.serves {
		if q := r.Queue(name); q != nil && q.Counts[job.Parked] > 0 {
			return true
		}
	}
	return false
}

// release is the job's next version if a build releases it; else nil.
func (f fleet) release(now time.Time, j *job.Job) *job.Job {
	if j.State != job.Parked || f.open[j.ParkBuild] {
		return nil
	}
	for _, build := range f.serves[j.Spec.Queue] {
		if next, err := j.ReleaseByBuild(now, build); err == nil && next != j {
			return next
		}
	}
	return nil
}
