package pebblestore

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// limit is a limit in memory. As a queue's, its number stands for its name and is never given to another one.
type limit struct {
	number  uint32
	set     store.Limit // the settings; Jobs stays zero here
	deleted bool        // it is kept for the jobs that name it
	jobs    uint64
	seen    *store.KeyLimit  // the limit as its keys see it
	keys    table[store.Key] // taken or waited for
}

// names are what numbers in records stand for.
type names interface {
	queueName(number uint32) string
	limitName(number uint32) string
	limitNumber(name string) uint32
}

func (s *state) limitName(number uint32) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if l := s.limitByNum[number]; l != nil {
		return l.set.Name
	}
	return ""
}

// limitNumber is for the committing goroutine, which names no limit that there never was.
func (s *state) limitNumber(name string) uint32 { return s.limits[name].number }

// shown is the limit as readers see it.
func (l *limit) shown() *store.Limit {
	set := l.set
	set.Jobs = l.jobs
	return &set
}

// putLimit makes next the limit of its name, or takes it from sight if it is deleted.
func (s *state) putLimit(next *limit) {
	name := next.set.Name
	l := s.limits[name]
	if l == nil {
		l = &limit{number: next.number, seen: &store.KeyLimit{Name: name}}
		s.limits[name], s.limitByNum[l.number] = l, l
		s.nextLimit = max(s.nextLimit, l.number+1)
	}
	l.set, l.deleted, l.seen.Policy = next.set, next.deleted, nil
	if !l.deleted {
		l.seen.Policy = &l.set.Policy
	}
	i, ok := slices.BinarySearch(s.limitNames, name)
	switch {
	case l.deleted && ok:
		s.limitNames = slices.Delete(s.limitNames, i, i+1)
	case !l.deleted && !ok:
		s.limitNames = slices.Insert(s.limitNames, i, name)
	}
}

func (s *state) hashKey(name string) uint32 { return uint32(maphash.String(s.seed, name)) }

// findKey returns a key of a limit; nil if it is neither taken nor waited for.
func (s *state) findKey(l *limit, name string) *store.Key {
	return l.keys.find(s.hashKey(name), func(k *store.Key) bool { return k.Name == name })
}

// key returns a key of a limit, making it if there is none. Whoever keeps it holds it.
func (s *state) key(limit, name string) *store.Key {
	l := s.limits[limit]
	k := s.findKey(l, name)
	if k == nil {
		k = &store.Key{Limit: l.seen, Name: name}
		l.keys.add(s.hashKey(name), k)
	}
	return k
}

// keysOf appends what the uses take.
func (s *state) keysOf(to []store.KeyUse, uses []job.LimitUse) []store.KeyUse {
	for i := range uses {
		to = append(to, store.KeyUse{Key: s.key(uses[i].Limit, uses[i].Key), Units: uses[i].Units})
	}
	return to
}

func hold(keys []store.KeyUse) {
	for _, u := range keys {
		u.Key.Refs++
	}
}

// letGo forgets the keys that nobody holds any more.
func (s *state) letGo(keys []store.KeyUse) {
	for _, u := range keys {
		if u.Key.Refs--; u.Key.Refs == 0 {
			s.limits[u.Key.Limit.Name].keys.remove(s.hashKey(u.Key.Name), u.Key)
		}
	}
}

// take counts a live run's units.
func take(keys []store.KeyUse) {
	hold(keys)
	for _, u := range keys {
		u.Key.Live += uint64(u.Units)
	}
}

// giveBack does the opposite.
func (s *state) giveBack(keys []store.KeyUse) {
	for _, u := range keys {
		u.Key.Live -= uint64(u.Units)
	}
	s.letGo(keys)
}

// countJob counts an unfinished job more, or less, in the limits that it names.
func (s *state) countJob(uses []job.LimitUse, by int64, changed map[uint32]int64) {
	for i := range uses {
		if i > 0 && uses[i].Limit == uses[i-1].Limit {
			continue // another key of the same
		}
		l := s.limits[uses[i].Limit]
		l.jobs = uint64(int64(l.jobs) + by)
		changed[l.number] += by
	}
}

func (v view) Limit(name string) *store.Limit {
	v.s.state.mu.RLock()
	defer v.s.state.mu.RUnlock()
	if l := v.s.state.limits[name]; l != nil && !l.deleted {
		return l.shown()
	}
	return nil
}

func (v view) Limits(from string, fn func(*store.Limit) bool) {
	s := v.s.state
	s.mu.RLock()
	i, _ := slices.BinarySearch(s.limitNames, from)
	limits := make([]*store.Limit, 0, len(s.limitNames)-i)
	for _, name := range s.limitNames[i:] {
		limits = append(limits, s.limits[name].shown())
	}
	s.mu.RUnlock()
	for _, l := range limits {
		if !fn(l) {
			return
		}
	}
}

func (v view) Keys(name, from string, n int) []store.KeyUsage {
	s := v.s.state
	s.mu.RLock()
	defer s.mu.RUnlock()
	l := s.limits[name]
	if l == nil {
		return nil
	}
	var first []store.KeyUsage
	keep := func() {
		slices.SortFunc(first, func(a, b store.KeyUsage) int { return cmp.Compare(a.Name, b.Name) })
		first = first[:min(n, len(first))]
	}
	l.keys.each(func(k *store.Key) {
		if k.Name < from {
			return
		}
		if first = append(first, usageOf(k)); len(first) >= 4*n {
			keep() // there may be millions
		}
	})
	keep()
	return first
}

func (v view) Key(limit, name string) store.KeyUsage {
	s := v.s.state
	s.mu.RLock()
	defer s.mu.RUnlock()
	if l := s.limits[limit]; l != nil {
		if k := s.findKey(l, name); k != nil {
			return usageOf(k)
		}
	}
	return store.KeyUsage{Name: name}
}

func usageOf(k *store.Key) store.KeyUsage {
	return store.KeyUsage{Name: k.Name, Live: k.Live, Zombies: k.Zombies, Waiting: uint64(k.Waiting)}
}

func (t *tx) EachKey(name string, fn func(*store.Key)) {
	if l := t.s.state.limits[name]; l != nil {
		l.keys.each(fn)
	}
}

func (t *tx) Limit(name string) *store.Limit {
	if l := t.limits[name]; l != nil {
		if l.deleted {
			return nil
		}
		return l.shown()
	}
	return t.view.Limit(name)
}

// limitOf is the limit of the name as this transaction sees it, also one that was deleted; nil if there never was one.
func (t *tx) limitOf(name string) *limit {
	if l := t.limits[name]; l != nil {
		return l
	}
	return t.s.state.limits[name]
}

func (t *tx) PutLimit(set *store.Limit) error {
	next := &limit{number: t.s.state.nextLimit + uint32(len(t.limits)), set: *set}
	next.set.Jobs, next.set.Version = 0, 1
	old := t.limitOf(set.Name)
	if old != nil {
		next.number, next.jobs, next.set.Version = old.number, old.jobs, old.set.Version+1
	}
	if old == nil && len(t.s.state.limits)+len(t.limits) >= store.LimitsMax {
		return store.ErrTooManyLimits // those that were deleted count: finished jobs name them
	}
	t.limits[set.Name] = next
	return nil
}

func (t *tx) DeleteLimit(name string) error {
	l := t.limitOf(name)
	if l == nil || l.deleted {
		return fmt.Errorf("store: limit %q does not exist", name)
	}
	next := *l
	next.deleted = true
	t.limits[name] = &next
	return nil
}

func (l *limit) record() []byte {
	w := writer{}
	w.str(1, l.set.Name)
	w.uint(2, l.set.Version)
	w.time(3, l.set.CreateTime, 0)
	w.uint(4, uint64(l.set.Policy.Max))
	w.uint(5, uint64(l.set.Policy.OnZombie))
	for _, k := range l.set.Policy.Keys {
		w.message(6, func(w *writer) {
			w.str(1, k.Key)
			w.uint(2, uint64(k.Max))
		})
	}
	w.flag(7, l.deleted)
	w.message(8, func(w *writer) { writeRate(w, l.set.Policy.Rate) })
	w.message(9, func(w *writer) { writeBreaker(w, l.set.Policy.Breaker) })
	for _, k := range l.set.Policy.Rates {
		w.message(10, func(w *writer) {
			w.str(1, k.Key)
			w.message(2, func(w *writer) { writeRate(w, k.Rate) })
		})
	}
	return w.b
}

func readLimit(number uint32, b []byte) (*limit, error) {
	l := &limit{number: number}
	r := reader{rest: b}
	for r.next() {
		switch r.field {
		case 1:
			l.set.Name = string(r.raw)
		case 2:
			l.set.Version = r.v
		case 3:
			l.set.CreateTime = r.time(0)
		case 4:
			l.set.Policy.Max = uint32(r.v)
		case 5:
			l.set.Policy.OnZombie = job.OnZombie(r.v)
		case 7:
			l.deleted = r.v != 0
		default:
			if err := readLimitPart(&l.set.Policy, &r); err != nil {
				return nil, err
			}
		}
	}
	return l, r.err
}

func readLimitPart(p *job.LimitPolicy, r *reader) error {
	switch r.field {
	case 6:
		var k job.KeyMax
		m := reader{rest: r.raw}
		for m.next() {
			switch m.field {
			case 1:
				k.Key = string(m.raw)
			case 2:
				k.Max = uint32(m.v)
			}
		}
		p.Keys = append(p.Keys, k)
		return m.err
	case 10:
		var k job.KeyRate
		m := reader{rest: r.raw}
		for m.next() {
			switch m.field {
			case 1:
				k.Key = string(m.raw)
			case 2:
				var err error
				if k.Rate, err = readRate(m.raw); err != nil {
					return err
				}
			}
		}
		p.Rates = append(p.Rates, k)
		return m.err
	default:
		return readGating(&p.Rate, &p.Breaker, r, 8, 9)
	}
}

// usesOf says by names what the keys take.
func usesOf(keys []store.KeyUse) []job.LimitUse {
	uses := make([]job.LimitUse, len(keys))
	for i, u := range keys {
		uses[i] = job.LimitUse{Limit: u.Key.Limit.Name, Key: u.Key.Name, Units: u.Units}
	}
	return uses
}

// writeUses writes what a job, a lane, a run or a zombie takes, each as a field of the number.
func writeUses(w *writer, field protowire.Number, uses []job.LimitUse, names names) {
	for i := range uses {
		writeUse(w, field, uses[i], names)
	}
}

func writeUse(w *writer, field protowire.Number, u job.LimitUse, names names) {
	w.message(field, func(w *writer) {
		w.uint(1, uint64(names.limitNumber(u.Limit)))
		w.str(2, u.Key)
		w.uint(3, uint64(u.Units))
	})
}

// readUse reads one of them.
func readUse(b []byte, names names) (job.LimitUse, error) {
	var u job.LimitUse
	r := reader{rest: b}
	for r.next() {
		switch r.field {
		case 1:
			u.Limit = names.limitName(uint32(r.v))
		case 2:
			u.Key = string(r.raw)
		case 3:
			u.Units = uint32(r.v)
		}
	}
	if r.err == nil && (u.Limit == "" || u.Units == 0) {
		r.err = errRecord
	}
	return u, r.err
}
