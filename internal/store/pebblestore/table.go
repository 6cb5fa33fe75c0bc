package pebblestore

// table is a set of things that are found by something they hold, by its hash: a map would hold that a second time, and more
// room than there may be for millions of keys that wait. Places are taken from where a hash points to, in proportion (open
// addressing with linear probing; Knuth, TAOCP volume 3, 6.4, algorithms L and R). It grows by half and shrinks as it empties.
type table[T any] struct {
	hashes []uint32
	items  []*T // nil: the place is free
	n      int
}

// tableMin is the fewest places a table has, once it has some.
const tableMin = 8

// home is where the places of a hash begin.
func (t *table[T]) home(hash uint32) int { return int(uint64(hash) * uint64(len(t.items)) >> 32) }

func (t *table[T]) after(i int) int {
	if i++; i == len(t.items) {
		return 0
	}
	return i
}

// find returns the item of the hash that is the one meant; nil if there is none.
func (t *table[T]) find(hash uint32, is func(*T) bool) *T {
	if t.n == 0 {
		return nil
	}
	for i := t.home(hash); t.items[i] != nil; i = t.after(i) {
		if t.hashes[i] == hash && is(t.items[i]) {
			return t.items[i]
		}
	}
	return nil
}

// add puts an item in that is not there.
func (t *table[T]) add(hash uint32, item *T) {
	if t.n >= len(t.items)-len(t.items)/8 {
		t.resize(len(t.items) + len(t.items)/2)
	}
	i := t.home(hash)
	for t.items[i] != nil {
		i = t.after(i)
	}
	t.hashes[i], t.items[i] = hash, item
	t.n++
}

// remove takes an item out; it reports whether it was there.
func (t *table[T]) remove(hash uint32, item *T) bool {
	if t.n == 0 {
		return false
	}
	i := t.home(hash)
	for ; t.items[i] != item; i = t.after(i) {
		if t.items[i] == nil {
			return false
		}
	}
	// What stands behind it and may stand here moves up, so that no search ends too early.
	for j := t.after(i); t.items[j] != nil; j = t.after(j) {
		if t.distance(t.home(t.hashes[j]), j) >= t.distance(i, j) {
			t.hashes[i], t.items[i] = t.hashes[j], t.items[j]
			i = j
		}
	}
	t.items[i] = nil
	if t.n--; t.n < len(t.items)/4 && len(t.items) > tableMin {
		t.resize(len(t.items) / 2)
	}
	return true
}

// distance is how many places j is behind i.
func (t *table[T]) distance(i, j int) int {
	if j < i {
		return j + len(t.items) - i
	}
	return j - i
}

func (t *table[T]) resize(places int) {
	old := *t
	places = max(places, tableMin)
	*t = table[T]{hashes: make([]uint32, places), items: make([]*T, places)}
	for i, item := range old.items {
		if item != nil {
			t.add(old.hashes[i], item)
		}
	}
}

// each calls fn for each item, in no order. The table must not change meanwhile.
func (t *table[T]) each(fn func(*T)) {
	for _, item := range t.items {
		if item != nil {
			fn(item)
		}
	}
}
