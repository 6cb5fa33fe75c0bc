package dispatch

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
