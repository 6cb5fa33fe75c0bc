// Package feed hands the events of a store to those who follow them.
//
// While anybody follows, one reader goes through the log and takes each event apart once. Followers that ask for the same (a
// queue, some jobs, a pattern of queues) share a topic, which remembers the latest events for them. So an event costs what
// the topics cost that it concerns, however many follow. A follower that is behind what its topic remembers reads the log
// itself until it is not.
package feed

import (
	"context"
	"errors"
	"sync"

	"github.com/stintrun/stint/internal/event"
	"github.com/stintrun/stint/internal/store"
)

// They are variables only for tests, which make rare paths frequent.
var (
	// topicMax is how many events a topic remembers, and rememberMax of how many events back all of them do.
	topicMax    = 8192
	rememberMax = 32 << 10
	// pageMax is how many events are taken from the log, or handed out, at once.
	pageMax = 1000
	// scanMax is how many events one look at the log passes.
	scanMax = 10_000
	// behindMax is how many events one that reads the log itself gets at once: they are its own.
	behindMax = 250
)

const (
	// readersMax is how many followers read the log at the same time, so that those that are behind leave time to the others.
	readersMax = 2
)

// Entry is an event and the cursor behind it. Entries are shared and read-only.
type Entry struct {
	Next  store.Cursor
	Event event.Event

	once    sync.Once
	encoded []byte
}

// Feed hands out events. Make one with New; Close it before its store.
type Feed struct {
	store   store.Store
	encode  func(*Entry) []byte
	ctx     context.Context
	cancel  context.CancelFunc
	reading sync.WaitGroup
	readers chan struct{} // tokens of followers that read the log

	mu      sync.Mutex
	topics  index
	looking bool                   // the reader is at work
	next    store.Cursor           // where it goes on from; zero: it has not begun
	page    []seen                 // of the reader
	marks   []mark                 // of the pages that topics remember
	since   int                    // events of those
	err     error                  // why it ended
	unlive  map[*Follower]struct{} // that wait to be told that they are live
}

// seen is an event that the reader has read.
type seen struct {
	next  store.Cursor
	event event.Event
}

// mark is where a page of so many events ended.
type mark struct {
	at store.Cursor
	n  int
}

// New returns a feed of the store. Encode makes the form in which an event is sent; it is called once for each event that is.
func New(s store.Store, encode func(*Entry) []byte) *Feed {
	f := &Feed{store: s, encode: encode, topics: newIndex(), unlive: map[*Follower]struct{}{}, readers: make(chan struct{}, readersMax)}
	f.ctx, f.cancel = context.WithCancel(context.Background()) //nolint:forbidigo // it begins here and ends with Close
	return f
}

// Close ends the reader and all calls of Next.
func (f *Feed) Close() {
	f.mu.Lock() // no start begins to read after this
	f.cancel()
	f.mu.Unlock()
	f.reading.Wait()
}

// Encoded is the form in which the entry is sent.
func (f *Feed) Encoded(e *Entry) []byte {
	e.once.Do(func() { e.encoded = f.encode(e) })
	return e.encoded
}

// start has the reader begin at the present end of the log, if it is not at work.
func (f *Feed) start() {
	if f.looking || f.ctx.Err() != nil {
		return
	}
	f.looking, f.next, f.err = true, store.Cursor{}, nil
	f.reading.Go(f.read)
}

// read goes through the log as long as there are topics.
func (f *Feed) read() {
	var at store.Cursor
	err := f.store.View(f.ctx, func(r store.Reader) error {
		_, at = r.Position()
		return nil
	})
	if err == nil {
		f.begin(at)
	}
	for err == nil {
		if err = f.store.AwaitEvents(f.ctx, at); err == nil {
			at, err = f.look(at)
		}
		if errors.Is(err, store.ErrResync) { // events went faster than it read; followers find out themselves
			f.begin(at)
			err = nil
		}
		if err == nil && f.unneeded() {
			return
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ctx.Err() != nil {
		err = store.ErrClosed
	}
	f.err, f.looking = err, false
	f.topics.each((*topic).signal)
}

// begin has the topics remember what comes from the place on.
func (f *Feed) begin(at store.Cursor) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next, f.marks, f.since = at, nil, 0
	f.topics.each(func(t *topic) {
		t.begin, t.entries = at, nil
		t.signal()
	})
}

// unneeded ends the reader if nobody follows.
func (f *Feed) unneeded() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.topics.all) > 0 {
		return false
	}
	f.looking, f.page = false, nil
	return true
}

// look reads a page of what is new and hands it to the topics.
func (f *Feed) look(from store.Cursor) (next store.Cursor, err error) {
	page := f.page[:0]
	viewErr := f.store.View(f.ctx, func(r store.Reader) error {
		page = page[:0]
		next, err = r.Events(from, pageMax, func(at store.Cursor, e *event.Event) bool {
			page = append(page, seen{at, *e})
			return true
		})
		return nil
	})
	if err := errors.Join(viewErr, err); err != nil {
		return next, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.page, f.next = page, next
	touched := map[*topic]struct{}{}
	for i := range page {
		var shared *Entry
		f.topics.concerned(&page[i].event, func(t *topic) {
			if shared == nil {
				shared = &Entry{Next: page[i].next, Event: page[i].event}
			}
			t.add(shared)
			touched[t] = struct{}{}
		})
	}
	for t := range touched {
		t.signal()
	}
	for fo := range f.unlive {
		if !next.Before(fo.goal) {
			delete(f.unlive, fo)
			fo.signal()
		}
	}
	f.age(next, len(page))
	return next, nil
}

// age has the topics forget what is too far back, now and then.
func (f *Feed) age(at store.Cursor, n int) {
	if n == 0 {
		return
	}
	f.marks = append(f.marks, mark{at, n})
	if f.since += n; f.since <= rememberMax {
		return
	}
	i := 0
	for ; f.since > rememberMax/2; i++ {
		f.since -= f.marks[i].n
	}
	floor := f.marks[i-1].at
	f.marks = append([]mark(nil), f.marks[i:]...)
	f.topics.each(func(t *topic) { t.forget(floor) })
}
