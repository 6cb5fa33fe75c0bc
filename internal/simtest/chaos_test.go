package simtest

import (
	"errors"
	"testing"
	"time"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// The harms. Each heals what it did, but for dead workers, in whose place come others.

// away is how long the server is away, or stands still.
func (s *sim) away() time.Duration {
	most := s.outage[1]
	if s.harm.chance(20) {
		most = s.outage[2]
	}
	return s.harm.between(s.outage[0], most)
}

func crash(s *sim) { s.crashFor(50*s.harm.n(3), s.away()) }

// crashBehindStall crashes a server that has a lot that is not synced.
func crashBehindStall(s *sim) {
	s.note("the disk stands still")
	from := time.Now()
	s.up.disk.shut()
	s.harm.rest(nil, 0, 5*time.Second)
	s.witness.troubled(from)
	crash(s)
}

func restart(s *sim) { s.restartFor(s.harm.between(0, 5*time.Second), s.away()) }

func stall(s *sim) { s.stallFor(s.away()) }

func stallDisk(s *sim) { s.stallDiskFor(s.away()) }

func reset(s *sim) {
	s.note("every connection is cut")
	s.cut(s.harm.chance(50))
}

// partition takes the network from one client for a while; other harm goes on meanwhile.
func partition(s *sim) {
	all := s.connected()
	if len(all) == 0 {
		return
	}
	l, away := all[s.harm.n(len(all))], s.harm.between(0, time.Minute)
	s.note("one client is cut off for %s", away)
	l.sever()
	s.watchers.Go(func() {
		time.Sleep(away)
		l.severed.Store(false)
	})
}

func death(s *sim) {
	select {
	case s.seats[s.harm.n(len(s.seats))] <- struct{}{}:
	default:
	}
}

// TestChaos lets everything happen at once.
func TestChaos(t *testing.T) {
	eachSeed(t, 4, func(t *testing.T, seed uint64) {
		play(t, seed, script{
			lasts: 5 * time.Minute, gap: [2]time.Duration{0, 5 * time.Second},
			outage: [3]time.Duration{0, 3 * time.Second, 45 * time.Second},
			harms: []func(*sim){
				crash, crash, crashBehindStall, crashBehindStall, restart, reset, reset, reset, stall, stallDisk,
				death, death, partition, partition,
			},
			mischief: true, jobs: 200, lease: [2]time.Duration{5 * time.Second, 30 * time.Second},
		})
	})
}

// TestShortOutages: while no worker dies, a server that is away or stands still for less than a lease interrupts no run.
func TestShortOutages(t *testing.T) {
	eachSeed(t, 2, func(t *testing.T, seed uint64) {
		play(t, seed, script{
			lasts: 6 * time.Minute, gap: [2]time.Duration{15 * time.Second, 25 * time.Second}, outage: [3]time.Duration{0, 8 * time.Second, 8 * time.Second},
			harms: []func(*sim){crash, crashBehindStall, restart, reset, stall, stallDisk}, jobs: 150, lease: [2]time.Duration{30 * time.Second, 30 * time.Second},
			rule: func(j *stintv1.Job) error {
				if c := j.GetCounters(); c.GetAttempts()+c.GetCrashes()+c.GetInterrupts()+c.GetSnoozes() > 0 {
					return errors.New("a short outage has interrupted a run")
				}
				return nil
			},
		})
	})
}

// TestLongOutages: while no worker dies, longer ones burn no attempt and no crash.
func TestLongOutages(t *testing.T) {
	eachSeed(t, 2, func(t *testing.T, seed uint64) {
		play(t, seed, script{
			lasts: 10 * time.Minute, gap: [2]time.Duration{0, 30 * time.Second}, outage: [3]time.Duration{20 * time.Second, 80 * time.Second, 80 * time.Second},
			harms: []func(*sim){crash, crashBehindStall, restart, stall, stallDisk}, jobs: 150, lease: [2]time.Duration{30 * time.Second, 30 * time.Second},
			rule: func(j *stintv1.Job) error {
				if c := j.GetCounters(); c.GetAttempts()+c.GetCrashes() > 0 {
					return errors.New("an outage has burnt an attempt or a crash")
				}
				return nil
			},
		})
	})
}
