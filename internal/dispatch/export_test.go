package dispatch

import "fmt"

// Unseen is how many assignments the session remembers because its worker has not acknowledged them.
func (s *Session) Unseen() int {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	return len(s.unseen)
}

// Known is how many queues, workers and claims the dispatcher remembers.
func (d *Dispatcher) Known() (queues, workers, claims int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.queues), len(d.workers), len(d.claims)
}

// Builds is how many builds of workers the dispatcher remembers.
func (d *Dispatcher) Builds() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.releaser.builds) + len(d.releaser.left)
}

// Shares is how many fairness keys of the queue the dispatcher remembers.
func (d *Dispatcher) Shares(queue string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if q := d.queues[queue]; q != nil {
		return len(q.shares)
	}
	return 0
}

// Gates is how many gates the dispatcher remembers.
func (d *Dispatcher) Gates() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.gates.all)
}

// CheckTurns says what is wrong with the order of lanes and with the counts behind it.
func (d *Dispatcher) CheckTurns() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	running := map[*share]uint64{}
	for _, r := range d.runs {
		if r.share != nil {
			running[r.share]++
		}
	}
	for _, q := range d.queues {
		all := map[*turns]bool{}
		for _, b := range q.bands {
			if b != nil {
				all[&b.turns] = true
			}
		}
		for key, s := range q.shares {
			if s.running != running[s] {
				return fmt.Errorf("fairness key %q of %s counts %d runs, and has %d", key, q.name, s.running, running[s])
			}
			for p := s.contested; p != nil; p = p.next {
				all[p.turns] = true
			}
			for h := range s.tried {
				if h.tried == nil || h.tried.share != s {
					return fmt.Errorf("fairness key %q of %s remembers a hook that tries none of its lanes", key, q.name)
				}
			}
		}
		for t := range all {
			if err := t.check(); err != nil {
				return fmt.Errorf("queue %s: %w", q.name, err)
			}
		}
	}
	return nil
}

func (t *turns) check() error {
	for i, p := range *t {
		listed := false
		for c := p.share.contested; c != nil; c = c.next {
			listed = listed || c == p
		}
		if p.at != i || p.turns != t || listed != (len(*t) > 1) {
			return fmt.Errorf("party %d of %d stands at %d, contested %t", i, len(*t), p.at, listed)
		}
		if i > 0 && t.Less(i, (i-1)/2) {
			return fmt.Errorf("key %q stands behind %q", p.share.key, (*t)[(i-1)/2].share.key)
		}
		for k, l := range p.lanes {
			if int(l.at) != k || l.in != p || l.share != p.share || k > 0 && p.lanes.Less(k, (k-1)/2) {
				return fmt.Errorf("lane %d of key %q is not in its place", k, p.share.key)
			}
		}
	}
	return nil
}
