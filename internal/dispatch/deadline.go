package dispatch

// deadline is a moment of something: of a run, its alarm, a zombie, a draining worker, a remembered claim, or a gate. It is part of
// what it ends.
type deadline struct {
	at  int64 // when it comes, on the dispatcher's clock; 0: never
	key int64 // of its valid entry on the heap, never later than at; 0: it has none
	of  any   // *run, *alarm, *zombie, *worker, *claim or *gate
}

// deadlines is a heap of deadlines, earliest first. Moving a deadline later, as every report does, and dropping it, as
// every finish does, touch no heap: the entry is found stale when it comes up, or goes with the next clean-up.
type deadlines struct {
	entries []entry
	stale   int // how many entries are no longer anybody's
}

type entry struct {
	key int64
	of  *deadline
}

// staleMin is how many stale entries there are at least before a clean-up.
const staleMin = 1024

// set moves a deadline.
func (h *deadlines) set(d *deadline, at int64) {
	d.at = at
	if d.key != 0 && d.key <= at {
		return
	}
	if d.key != 0 {
		h.stale++
	}
	d.key = at
	h.push(entry{at, d})
	h.clean()
}

// drop takes a deadline away.
func (h *deadlines) drop(d *deadline) {
	d.at = 0
	if d.key != 0 {
		d.key = 0
		h.stale++
		h.clean()
	}
}

// next is when somebody has to look; false if there is nothing to look for.
func (h *deadlines) next() (int64, bool) {
	if len(h.entries) == 0 {
		return 0, false
	}
	return h.entries[0].key, true
}

// due takes the next deadline that has come by now; nil if none has.
func (h *deadlines) due(now int64) *deadline {
	for len(h.entries) > 0 && h.entries[0].key <= now {
		e := h.pop()
		switch {
		case e.of.key != e.key:
			h.stale = max(0, h.stale-1)
		case e.of.at > now:
			e.of.key = e.of.at
			h.push(entry{e.of.at, e.of})
		default:
			e.of.key = 0
			return e.of
		}
	}
	return nil
}

// clean drops stale entries once they are the majority, so that memory follows what is live.
func (h *deadlines) clean() {
	if h.stale < staleMin || h.stale < len(h.entries)/2 {
		return
	}
	kept := h.entries[:0]
	for _, e := range h.entries {
		if e.of.key == e.key {
			kept = append(kept, e)
		}
	}
	clear(h.entries[len(kept):])
	h.entries, h.stale = kept, 0
	for i := len(kept)/2 - 1; i >= 0; i-- {
		h.down(i)
	}
}

func (h *deadlines) push(e entry) {
	h.entries = append(h.entries, e)
	i := len(h.entries) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if h.entries[parent].key <= e.key {
			break
		}
		h.entries[i] = h.entries[parent]
		i = parent
	}
	h.entries[i] = e
}

func (h *deadlines) pop() entry {
	top, last := h.entries[0], len(h.entries)-1
	h.entries[0] = h.entries[last]
	h.entries[last] = entry{}
	h.entries = h.entries[:last]
	if last > 0 {
		h.down(0)
	}
	return top
}

func (h *deadlines) down(i int) {
	e, n := h.entries[i], len(h.entries)
	for {
		child := 2*i + 1
		if child >= n {
			break
		}
		if right := child + 1; right < n && h.entries[right].key < h.entries[child].key {
			child = right
		}
		if e.key <= h.entries[child].key {
			break
		}
		h.entries[i] = h.entries[child]
		i = child
	}
	h.entries[i] = e
}
