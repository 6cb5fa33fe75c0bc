package dispatch

import (
	"cmp"
	"container/heap"
	"math/bits"

	"github.com/stintrun/stint/internal/job"
)

// share is what the jobs of one fairness key of a queue have of the workers. It lasts while some of them wait or run.
//
// Whose turn it is: of the keys that have something to start, the one that has the fewest live runs for its weight; among
// equals the one whose turns, each of which takes 1/weight of virtual time, took the least. So a key whose jobs are long
// has no more of the workers than one whose jobs are short, and where usage says nothing, for one job runs at a time, turns
// alternate. A key saves no turns up: one that comes anew, or was served less for a while because it had enough, goes on from
// where the key that was served last began (start-time fair queueing; Goyal, Vin and Cheng, 1996).
type share struct {
	queue     *queue
	key       string
	running   uint64 // live runs
	lanes     int    // with READY jobs
	weight    uint64
	time      uint64             // virtual, in turnUnits
	contested *party             // its parties that others stand beside
	tried     map[*hook]struct{} // hooks with lanes of other keys that have let one of its lanes into its band; nil: none
}

// turnUnit is the virtual time of a turn at weight one. Even of the largest weight a turn takes some.
const turnUnit = 1 << 20

// share returns the share of a fairness key, making it if there is none.
func (q *queue) share(key string) *share {
	s := q.shares[key]
	if s == nil {
		s = &share{queue: q, key: key, weight: q.weights.Of(key), time: q.virtual}
		if q.shares == nil {
			q.shares = map[string]*share{}
		}
		q.shares[key] = s
	}
	return s
}

// tidy forgets a share that nobody has.
func (s *share) tidy() {
	if s.lanes == 0 && s.running == 0 && s.queue.shares[s.key] == s {
		delete(s.queue.shares, s.key)
	}
}

// turn takes a turn: a run begins.
func (s *share) turn() {
	s.time = max(s.time, s.queue.virtual)
	s.queue.virtual = s.time
	s.time += turnUnit / s.weight
	s.running++
	s.reorder()
}

// resume counts a run that began before this server did.
func (d *Dispatcher) resume(r *run) {
	r.share = d.queue(r.queue).share(r.job.Spec.FairnessKey)
	r.share.running++
	r.share.reorder()
}

// endTurn ends a run's turn.
func (d *Dispatcher) endTurn(r *run) {
	if s := r.share; s != nil {
		r.share = nil
		s.running--
		s.reorder()
		s.tidy()
		d.forget(s.queue)
	}
}

// reorder puts the share's parties where they belong now.
func (s *share) reorder() {
	for p := s.contested; p != nil; p = p.next {
		heap.Fix(p.turns, p.at)
	}
}

// reweigh follows a change of the queue's weights.
func (q *queue) reweigh(w *job.Weights) {
	if q.weights = w; len(q.shares) == 0 {
		return
	}
	stale := map[*turns]struct{}{}
	for key, s := range q.shares {
		s.weight = w.Of(key)
		for p := s.contested; p != nil; p = p.next {
			stale[p.turns] = struct{}{}
		}
	}
	for t := range stale {
		heap.Init(t)
	}
}

// turns is lanes in the order of their turns: a heap of parties, the one whose turn it is first.
type turns []*party

// party is the lanes of one share among turns, the oldest head first. One that is empty stands in no turns.
type party struct {
	share      *share
	turns      *turns
	at         int // in there
	lanes      laneHeap
	prev, next *party // contested ones of the share
}

func (t turns) Len() int { return len(t) }
func (t turns) Less(i, j int) bool {
	if c := compareShares(t[i].share, t[j].share); c != 0 {
		return c < 0
	}
	return t[i].lanes[0].place < t[j].lanes[0].place
}

// compareShares is negative if it is the turn of a before it is that of b.
func compareShares(a, b *share) int {
	aHigh, aLow := bits.Mul64(a.running, b.weight)
	bHigh, bLow := bits.Mul64(b.running, a.weight)
	return cmp.Or(cmp.Compare(aHigh, bHigh), cmp.Compare(aLow, bLow), cmp.Compare(a.time, b.time))
}

func (t turns) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].at, t[j].at = i, j
}

func (t *turns) Push(x any) {
	p := x.(*party) //nolint:errcheck,forcetypeassert // of container/heap
	p.at = len(*t)
	*t = append(*t, p)
}

func (t *turns) Pop() any {
	old := *t
	p := old[len(old)-1]
	old[len(old)-1] = nil
	*t = old[:len(old)-1]
	return p
}

// first is the lane whose turn it is; nil if there is none.
func (t turns) first() *lane {
	if len(t) == 0 {
		return nil
	}
	return t[0].lanes[0]
}

// party returns the share's party; nil if there is none.
func (t turns) party(s *share) *party {
	if len(t) == 1 && t[0].share == s {
		return t[0]
	}
	// Either list may be long; seldom both are.
	p := s.contested
	for i := 0; i < len(t) && p != nil; i++ {
		switch {
		case t[i].share == s:
			return t[i]
		case p.at < len(t) && t[p.at] == p:
			return p
		}
		p = p.next
	}
	return nil
}

// join adds a party that has its first lane.
func (t *turns) join(p *party) {
	p.turns = t
	heap.Push(t, p)
	if len(*t) == 2 {
		(*t)[0].contest()
		(*t)[1].contest()
	} else if len(*t) > 2 {
		p.contest()
	}
}

// leave removes a party whose last lane is gone.
func (t *turns) leave(p *party) {
	if len(*t) > 1 {
		p.yield()
	}
	heap.Remove(t, p.at)
	p.turns = nil
	if len(*t) == 1 {
		(*t)[0].yield()
	}
}

// contest notes that others stand beside the party, so that its place among them matters.
func (p *party) contest() {
	p.next = p.share.contested
	if p.next != nil {
		p.next.prev = p
	}
	p.share.contested = p
}

// yield does the opposite.
func (p *party) yield() {
	if p.prev == nil {
		p.share.contested = p.next
	} else {
		p.prev.next = p.next
	}
	if p.next != nil {
		p.next.prev = p.prev
	}
	p.prev, p.next = nil, nil
}

// laneHeap is a heap of lanes, the oldest head first.
type laneHeap []*lane

func (h laneHeap) Len() int           { return len(h) }
func (h laneHeap) Less(i, j int) bool { return h[i].place < h[j].place }
func (h laneHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = int32(i), int32(j)
}

func (h *laneHeap) Push(x any) {
	l := x.(*lane) //nolint:errcheck,forcetypeassert // of container/heap
	l.at = int32(len(*h))
	*h = append(*h, l)
}

func (h *laneHeap) Pop() any {
	old := *h
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return l
}

// stands reports whether the lane stands there.
func (l *lane) stands(in *turns) bool { return l.in != nil && l.in.turns == in }

// stand moves a lane elsewhere; nil: to nowhere.
func (l *lane) stand(in *turns) {
	if in != nil && l.stands(in) {
		return
	}
	if p := l.in; p != nil {
		l.in = nil
		if len(p.lanes) == 1 {
			p.turns.leave(p) // while it has its lane, by which it is compared
			p.lanes = nil
		} else {
			heap.Remove(&p.lanes, int(l.at))
			heap.Fix(p.turns, p.at)
		}
	}
	if in == nil {
		return
	}
	if l.in = in.party(l.share); l.in != nil {
		heap.Push(&l.in.lanes, l)
		heap.Fix(in, l.in.at)
		return
	}
	l.in = &party{share: l.share, lanes: laneHeap{l}}
	l.at = 0
	in.join(l.in)
}

// moved restores the order after the lane's place changed.
func (l *lane) moved(place uint64) {
	l.place = place
	if p := l.in; p != nil && p != alone {
		heap.Fix(&p.lanes, int(l.at))
		heap.Fix(p.turns, p.at)
	}
}
