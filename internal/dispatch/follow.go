package dispatch

import "github.com/stintrun/stint/internal/store"

// follower waits for changes of one job.
type follower struct{ changed chan struct{} }

// Follow tells of changes of the job with the given sequence. After each change that is on disk there is a value in
// changed; many changes that nobody fetched are one value. Follow first, then read the job: so no change is missed. stop
// ends it and must be called.
func (d *Dispatcher) Follow(seq uint64) (changed <-chan struct{}, stop func()) {
	f := &follower{changed: make(chan struct{}, 1)}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.followers[seq] == nil {
		d.followers[seq] = map[*follower]struct{}{}
	}
	d.followers[seq][f] = struct{}{}
	return f.changed, func() { d.unfollow(seq, f) }
}

func (d *Dispatcher) unfollow(seq uint64, f *follower) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.followers[seq], f)
	if len(d.followers[seq]) == 0 {
		delete(d.followers, seq)
	}
}

// followed notes a change of a job that somebody may follow.
func (d *Dispatcher) followed(c store.Change) {
	j := c.New
	if j == nil {
		j = c.Old
	}
	if d.followers[j.Seq] != nil {
		d.unsealed.followed = append(d.unsealed.followed, j.Seq)
	}
}

// signal tells a job's followers.
func (d *Dispatcher) signal(seq uint64) {
	for f := range d.followers[seq] {
		select {
		case f.changed <- struct{}{}:
		default:
		}
	}
}
