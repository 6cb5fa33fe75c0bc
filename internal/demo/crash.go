package demo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stintrun/stint/client"
	"github.com/stintrun/stint/internal/bench/child"
)

// Crash is what the crash did.
type Crash struct {
	// Finished is how many jobs were done when the server was killed.
	Finished int
	// Away is the time from the kill until the server was ready again, and Back until every worker had a session again.
	Away, Back time.Duration
	// Held is how many runs the workers held at the kill.
	Held int
	// Adopted is how many of them the restarted server took over and accepted under the same fence.
	Adopted int
	// Answered is how many of them were finished and recorded at the kill, so that only the answer was repeated.
	Answered int
	// Again is how many jobs were handed out a second time.
	Again int
	// Resent is how many jobs were submitted again, for want of an answer, and known already.
	Resent int
}

// firstPart is how many jobs are submitted at once; the others wait for the moment of the crash.
func (s *show) firstPart() int { return len(s.files) * 3 / 4 }

// submit submits a job for every file, the second part when it may.
func (s *show) submit(ctx context.Context) error {
	sub := s.client.SubmitStream(ctx, client.SubmitConfig{
		OnResult: func(a client.Submitted) { s.ledger.submitted(a, time.Now()) },
	})
	for i, path := range s.files {
		if i == s.firstPart() {
			select {
			case <-s.second:
			case <-ctx.Done():
			}
		}
		s.ledger.sending(i, time.Now())
		job := client.Job{ID: s.ledger.entries[i].id, Queue: queue, Payload: []byte(path)}
		if err := sub.Send(ctx, job); err != nil {
			return errors.Join(fmt.Errorf("submit %s: %w", path, err), sub.Close())
		}
	}
	return sub.Close()
}

// crash waits until half of the jobs are done, lets the second part be submitted, kills the server in the middle of
// that, and starts it again on the same store and port once every worker has noticed.
func (s *show) crash(ctx context.Context) error {
	half := func() bool { return s.ledger.accepted >= len(s.files)/2 && s.ledger.answered >= s.firstPart() }
	if err := s.ledger.await(ctx, "half of the jobs to finish", half); err != nil {
		return err
	}
	close(s.second)
	flowing := func() bool { return s.ledger.answered > s.firstPart() }
	if err := s.ledger.await(ctx, "submits to flow", flowing); err != nil {
		return err
	}
	select {
	case <-s.caught: // runs are short: all that are held might be recorded at the kill, and none be adopted
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	s.killed = time.Now()
	if err := s.server.Kill(); err != nil {
		return err
	}
	noticed := func() bool { return s.ledger.sessions() == 0 }
	if err := s.ledger.await(ctx, "the workers to notice the crash", noticed); err != nil {
		return err
	}
	s.held = s.ledger.crossing()
	close(s.crashed)
	server, err := child.Start(ctx, child.Config{
		Binary: s.config.Binary, Data: s.config.Data, Listen: s.server.GRPC, HTTP: s.server.HTTP,
	})
	if err != nil {
		return err
	}
	s.server, s.ready = server, time.Now()
	back := func() bool { return s.ledger.sessions() == s.config.Workers }
	if err := s.ledger.await(ctx, "the workers to come back", back); err != nil {
		return err
	}
	s.resumed = time.Now()
	return nil
}

// crash counts what became of the runs that were held over the crash.
func (l *ledger) crash(killed time.Time) Crash {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := Crash{Resent: l.existing}
	for _, e := range l.entries {
		if len(e.runs) > 1 {
			c.Again++
		}
		for _, r := range e.runs {
			switch {
			case r.accepted() && r.acks[0].at.Before(killed):
				c.Finished++
			case r.wasAdopted():
				c.Adopted++
			case r.held && r.accepted():
				c.Answered++
			}
		}
	}
	return c
}

// wasAdopted says that the run was held over the crash, taken over by the restarted server, and only then recorded.
func (r *run) wasAdopted() bool { return r.held && !r.adopted.IsZero() && r.recorded() == 1 }

// example is the job to tell the story of: of those whose run was adopted, the one that was held longest.
func (l *ledger) example() *entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	var best *entry
	var longest time.Duration
	for _, e := range l.entries {
		for _, r := range e.runs {
			if !r.wasAdopted() {
				continue
			}
			if held := r.acks[0].at.Sub(r.assigned); held > longest {
				best, longest = e, held
			}
		}
	}
	return best
}
