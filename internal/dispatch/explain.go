package dispatch

import (
	"slices"
	"time"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// Explanation is what the dispatcher knows of a job that does not run. Places and what is kept are of a READY one.
type Explanation struct {
	Pools   int       // parts of sessions' demands, and calls, that are for its queue
	Room    int       // those of them that have room for it
	Avoided int       // those of them that it does not go to (NOT_ME)
	Gate    GateState // of its queue
	Keys    []KeyState
	Ahead   uint64 // READY jobs of its lane that stand before it
	Counted bool   // Ahead is exact, else not less
	Started uint64 // runs of its queue that began in the last minute
}

// KeyState is how a key is that the job takes.
type KeyState struct {
	Use           job.LimitUse
	Gate          GateState
	Max           uint64 // 0: the limit was deleted
	Rate          job.Rate
	OwnRate       bool   // the rate is the key's own
	Live, Zombies uint64 // units; zombies only if they count
	Kept          uint64 // units that are kept, as they become free, for another lane…
	For           job.ID // …whose first job this is
}

// lookAhead is how many jobs of a lane are counted.
const lookAhead = 1000

// Explain tells what keeps a job that is to run, and where it stands. It is called in a transaction.
func (d *Dispatcher) Explain(tx store.Tx, j *job.Job) (Explanation, error) {
	e, err := d.Blockers(tx, j)
	if err != nil || j.State != job.Ready {
		return e, err
	}
	mine := tx.LaneOf(j)
	if mine == nil {
		return e, nil
	}
	heads, err := tx.Heads(mine, lookAhead)
	if err != nil {
		return e, err
	}
	for i, h := range heads {
		if h.Seq == j.Seq {
			e.Ahead, e.Counted = uint64(i), true
			return e, nil
		}
	}
	// Places are given to all jobs of the store in turn, so there are not more of one lane between two of them.
	e.Ahead = min(uint64(mine.Len()), j.ReadySeq-min(mine.First(), j.ReadySeq))
	return e, nil
}

// Blockers is Explain without the job's place.
func (d *Dispatcher) Blockers(tx store.Tx, j *job.Job) (Explanation, error) {
	var e Explanation
	e.Gate = d.gateOfQueue(tx, j.Spec.Queue)
	for _, u := range j.Spec.Limits {
		e.Keys = append(e.Keys, d.keyState(tx, u))
	}
	var mine store.Lane
	if j.State == job.Ready {
		mine = tx.LaneOf(j)
	}
	for i, l := range d.explain(&e, tx, j, mine) { // not under the lock: the store may read
		heads, err := tx.Heads(l, 1)
		if err != nil {
			return e, err
		}
		if len(heads) > 0 {
			e.Keys[i].For = heads[0].Spec.ID
		}
	}
	return e, nil
}

// gateOfQueue is how the queue's gate is.
func (d *Dispatcher) gateOfQueue(tx store.Tx, name string) GateState {
	rate := job.Rate{}
	if q := tx.Queue(name); q != nil {
		rate = q.Policy.Rate
	}
	return d.Gate(store.GateName{Name: name}, rate, 1)
}

// keyState is how a key is, but for what is kept of it.
func (d *Dispatcher) keyState(tx store.Tx, u job.LimitUse) KeyState {
	usage := tx.Key(u.Limit, u.Key)
	k := KeyState{Use: u, Live: usage.Live}
	l := tx.Limit(u.Limit)
	if l != nil {
		k.Rate = l.Policy.RateOf(u.Key)
		k.OwnRate = slices.ContainsFunc(l.Policy.Rates, func(r job.KeyRate) bool { return r.Key == u.Key })
		k.Max = uint64(l.Policy.MaxOf(u.Key))
		if l.Policy.OnZombie != job.OnZombieRelease {
			k.Zombies = usage.Zombies
		}
	}
	k.Gate = d.Gate(store.GateName{Limit: u.Limit, Name: u.Key}, k.Rate, u.Units)
	return k
}

// explain adds what needs no look into the store, and returns the lanes for which some of the keys are kept.
func (d *Dispatcher) explain(e *Explanation, tx store.Tx, j *job.Job, mine store.Lane) map[int]store.Lane {
	d.mu.Lock()
	defer d.mu.Unlock()
	if q := d.queues[j.Spec.Queue]; q != nil {
		e.Pools, e.Started = q.seats, q.starts.lastMinute(tx.Now())
		for s := q.first; s != nil; s = s.next {
			e.Room++
			if j.Avoid == s.pool.to.Instance && tx.Now().Before(j.AvoidUntil) {
				e.Avoided++
			}
		}
	}
	if mine == nil {
		return nil
	}
	others := map[int]store.Lane{}
	for i, u := range mine.Keys() {
		if r := d.reserved[u.Key]; r != nil && r.lane.Lane != mine {
			e.Keys[i].Kept = r.lane.units(u.Key)
			others[i] = r.lane.Lane
		}
	}
	return others
}

// starts counts what began in each of the last sixty seconds.
type starts struct {
	seconds [60]uint32
	last    int64 // the second that was counted last, since 1970
}

// count notes that something begins now.
func (s *starts) count(now time.Time) {
	s.pass(now)
	s.seconds[s.last%60]++
}

// pass forgets what is over a minute old.
func (s *starts) pass(now time.Time) {
	second := now.Unix()
	for ; s.last < second && second-s.last < 60; s.last++ {
		s.seconds[(s.last+1)%60] = 0
	}
	if s.last < second { // nothing of it is of the last minute
		s.seconds, s.last = [60]uint32{}, second
	}
}

// over reports whether nothing of it is of the last minute.
func (s *starts) over(now time.Time) bool { return now.Unix()-s.last >= int64(len(s.seconds)) }

// lastMinute is how many began in the last minute; nil counts nothing.
func (s *starts) lastMinute(now time.Time) (n uint64) {
	if s == nil {
		return 0
	}
	s.pass(now)
	for _, c := range s.seconds {
		n += uint64(c)
	}
	return n
}
