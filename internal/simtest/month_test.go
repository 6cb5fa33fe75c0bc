package simtest

import (
	"testing"
	"time"
)

// TestMonth plays a month in which the server is mostly away: it is up for some minutes at a time, in which everything
// happens that may, and then down for hours or days, over which leases, timeouts, deadlines and start times pass.
func TestMonth(t *testing.T) {
	seeds := 2
	if soaks() {
		seeds = 1000
	}
	forSeeds(t, seeds, func(t *testing.T, seed uint64) {
		play(t, seed, script{
			lasts: 30 * 24 * time.Hour, gap: [2]time.Duration{0, 2 * time.Minute},
			outage: [3]time.Duration{0, 10 * time.Second, 10 * time.Minute},
			harms: []func(*sim){
				night, night, nap, crash, crashBehindStall, restart, reset, stall, stallDisk, death, partition,
			},
			mischief: true, long: true, jobs: 30, lease: [2]time.Duration{5 * time.Second, time.Minute},
		})
	})
}

// night is a long time without server and network; whoever worked is gone in the morning.
func night(s *sim) {
	for _, seat := range s.seats {
		select {
		case seat <- struct{}{}:
		default:
		}
	}
	s.sleep(s.harm.between(time.Hour, 60*time.Hour))
}

// nap is a shorter one, over which workers hold on to their runs.
func nap(s *sim) { s.sleep(s.harm.between(10*time.Minute, 5*time.Hour)) }

func (s *sim) sleep(away time.Duration) {
	s.note("the night of %s begins", away)
	s.dark.shut()
	defer s.dark.open()
	if s.harm.chance(50) {
		s.crashFor(50*s.harm.n(3), away)
	} else {
		s.restartFor(s.harm.between(0, 5*time.Second), away)
	}
}
