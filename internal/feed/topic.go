package feed

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/stintrun/stint/internal/event"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// Topic is what followers ask for: events for which all that it says holds. Topics that say the same are equal.
type Topic struct {
	// Queue is a queue's name; with Prefix, how its name begins. Prefix alone is every event.
	Queue  string
	Prefix bool
	// jobs are the ids of some jobs, one behind the other in ascending order; labels hashes, in the same way.
	jobs, labels string
	// kinds has a bit for each kind that is wanted; none: all are.
	kinds [4]uint64
}

// OfJobs is the topic without the events of other jobs.
func (n Topic) OfJobs(ids []job.ID) Topic {
	ids = slices.Clone(ids)
	slices.SortFunc(ids, func(a, b job.ID) int { return slices.Compare(a[:], b[:]) })
	var b []byte
	for _, id := range slices.Compact(ids) {
		b = append(b, id[:]...)
	}
	n.jobs = string(b)
	return n
}

// OfKinds is the topic without the events of other kinds.
func (n Topic) OfKinds(kinds ...event.Kind) Topic {
	n.kinds = [4]uint64{}
	for _, k := range kinds {
		n.kinds[k/64] |= 1 << (k % 64)
	}
	return n
}

// OfLabels is the topic without the events of jobs that have not all of these labels.
func (n Topic) OfLabels(hashes ...uint64) Topic {
	hashes = slices.Clone(hashes)
	slices.Sort(hashes)
	var b []byte
	for _, h := range hashes {
		b = binary.BigEndian.AppendUint64(b, h)
	}
	n.labels = string(b)
	return n
}

// chunk is some events, one behind the other as they are sent.
type chunk struct {
	first store.Cursor // behind the first of them
	next  store.Cursor // behind the last
	n     int
	bytes []byte
}

// topic is the latest events for some followers: from its begin on, without a gap.
type topic struct {
	name      Topic
	ids       map[job.ID]struct{}
	labels    []uint64
	begin     store.Cursor // zero: it does not remember yet
	chunks    []chunk
	open      pending
	touched   bool // by the page that is being handed out
	followers map[*Follower]struct{}
}

func newTopic(name Topic, begin store.Cursor) *topic {
	t := &topic{name: name, begin: begin, followers: map[*Follower]struct{}{}}
	if name.jobs != "" {
		t.ids = map[job.ID]struct{}{}
		for ids := name.jobs; ids != ""; ids = ids[len(job.ID{}):] {
			t.ids[job.ID([]byte(ids[:len(job.ID{})]))] = struct{}{}
		}
	}
	for hashes := name.labels; hashes != ""; hashes = hashes[8:] {
		t.labels = append(t.labels, binary.BigEndian.Uint64([]byte(hashes[:8])))
	}
	return t
}

func (t *topic) concerns(e *event.Event) bool {
	if t.name.Prefix && !strings.HasPrefix(e.Queue, t.name.Queue) || !t.name.Prefix && t.name.Queue != e.Queue {
		return false
	}
	if t.name.kinds != [4]uint64{} && t.name.kinds[e.Kind/64]&(1<<(e.Kind%64)) == 0 {
		return false
	}
	if t.ids != nil {
		if _, ok := t.ids[e.Job]; !ok {
			return false
		}
	}
	for _, h := range t.labels {
		if _, has := slices.BinarySearch(e.Labels, h); !has {
			return false
		}
	}
	return true
}

// pending is a chunk that is being made from a page: a part of it, or a copy of several.
type pending struct {
	chunk
	from, to int // the part, while the chunk has no bytes of its own
}

// add adds the event that a page ends with, from a place on.
func (t *topic) add(next store.Cursor, page []byte, from int) {
	c := &t.open
	switch {
	case c.n == 0:
		*c = pending{chunk: chunk{first: next}, from: from, to: len(page)}
	case c.bytes == nil && c.to == from:
		c.to = len(page)
	case c.bytes == nil:
		c.bytes = append([]byte(nil), page[c.from:c.to]...)
		fallthrough
	default:
		c.bytes = append(c.bytes, page[from:]...)
	}
	c.n, c.next = c.n+1, next
}

// size is how many bytes the chunk has that is being made.
func (t *topic) size() int {
	if t.open.bytes != nil {
		return len(t.open.bytes)
	}
	return t.open.to - t.open.from
}

// seal ends the chunk that is being made and returns how many bytes it has of its own. A small part of a page is copied, so
// as not to keep the page.
func (t *topic) seal(page []byte) (own int) {
	c := t.open
	t.open = pending{}
	if c.n == 0 {
		return 0
	}
	if size := c.to - c.from; c.bytes == nil && (size >= chunkBytes/2 || 2*size >= len(page)) {
		c.bytes = page[c.from:c.to:c.to]
	} else {
		if c.bytes == nil {
			c.bytes = slices.Clone(page[c.from:c.to])
		}
		own = len(c.bytes)
	}
	t.chunks = append(t.chunks, c.chunk)
	return own
}

// forget forgets the events before a place. Who has had them is not behind by that, also if it has had nothing since.
func (t *topic) forget(floor store.Cursor) {
	n := 0
	for n < len(t.chunks) && !floor.Before(t.chunks[n].next) {
		n++
	}
	if n > 0 {
		t.begin = t.chunks[n-1].next
		t.chunks = append([]chunk(nil), t.chunks[n:]...)
	}
}

// after are the chunks that have something behind the cursor.
func (t *topic) after(c store.Cursor) []chunk {
	i, _ := slices.BinarySearchFunc(t.chunks, c, func(k chunk, c store.Cursor) int {
		if c.Before(k.next) {
			return 1
		}
		return -1
	})
	return t.chunks[i:]
}

func (t *topic) signal() {
	for fo := range t.followers {
		fo.signal()
	}
}

// index finds the topics that an event concerns. Each is listed once, where the fewest events find it: under its jobs, the
// first of its labels, its queue, or among the patterns, which all events try.
type index struct {
	all      map[Topic]*topic
	byJob    map[job.ID][]*topic
	byLabel  map[uint64][]*topic
	byQueue  map[string][]*topic
	patterns []*topic
}

func newIndex() index {
	return index{all: map[Topic]*topic{}, byJob: map[job.ID][]*topic{}, byLabel: map[uint64][]*topic{}, byQueue: map[string][]*topic{}}
}

// topic returns the topic of the name, making one that remembers from the place on if there is none.
func (x *index) topic(name Topic, begin store.Cursor) *topic {
	t := x.all[name]
	if t != nil {
		return t
	}
	t = newTopic(name, begin)
	x.all[name] = t
	switch {
	case t.ids != nil:
		for id := range t.ids {
			x.byJob[id] = append(x.byJob[id], t)
		}
	case t.labels != nil:
		x.byLabel[t.labels[0]] = append(x.byLabel[t.labels[0]], t)
	case name.Prefix:
		x.patterns = append(x.patterns, t)
	default:
		x.byQueue[name.Queue] = append(x.byQueue[name.Queue], t)
	}
	return t
}

// drop forgets a topic that nobody follows.
func (x *index) drop(t *topic) {
	delete(x.all, t.name)
	switch {
	case t.ids != nil:
		for id := range t.ids {
			remove(x.byJob, id, t)
		}
	case t.labels != nil:
		remove(x.byLabel, t.labels[0], t)
	case t.name.Prefix:
		x.patterns = without(x.patterns, t)
	default:
		remove(x.byQueue, t.name.Queue, t)
	}
}

func remove[K comparable](topics map[K][]*topic, key K, t *topic) {
	if topics[key] = without(topics[key], t); len(topics[key]) == 0 {
		delete(topics, key)
	}
}

func without(topics []*topic, t *topic) []*topic {
	i := slices.Index(topics, t)
	return slices.Delete(topics, i, i+1)
}

func (x *index) each(fn func(*topic)) {
	for _, t := range x.all {
		fn(t)
	}
}

// concerned appends the topics that the event concerns.
func (x *index) concerned(to []*topic, e *event.Event) []*topic {
	if len(x.byQueue) > 0 {
		to = concerned(to, x.byQueue[e.Queue], e)
	}
	if len(x.byLabel) > 0 {
		for i, h := range e.Labels {
			if i == 0 || h != e.Labels[i-1] {
				to = concerned(to, x.byLabel[h], e)
			}
		}
	}
	if len(x.byJob) > 0 {
		to = concerned(to, x.byJob[e.Job], e)
	}
	return concerned(to, x.patterns, e)
}

func concerned(to, among []*topic, e *event.Event) []*topic {
	for _, t := range among {
		if t.concerns(e) {
			to = append(to, t)
		}
	}
	return to
}
