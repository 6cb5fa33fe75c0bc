// Package feed hands the events of a store to those who follow them.
//
// While anybody follows, one reader goes through the log and encodes each event that somebody wants, once. Followers that ask
// for the same share a topic, which remembers the latest events for them, as they are sent. So an event costs what the topics
// cost that it concerns, however many follow. A follower that is behind what its topic remembers reads the log itself until it
// is not.
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
	// rememberMax is about how many bytes of events all topics together remember, besides the last page.
	rememberMax = 16 << 20
	// pageMax is how many events the reader takes from the log at once.
	pageMax = 4000
	// chunkMax is how many events are handed out at once, and chunkBytes how many bytes, but for the last of them.
	chunkMax   = 1000
	chunkBytes = 64 << 10
	// scanMax is how many events one look at the log passes.
	scanMax = 10_000
)

// readersMax is how many followers read the log at the same time, so that those that are behind leave time to the others.
const readersMax = 2

// Encode appends an event, and the cursor behind it, in the form in which it is sent. It is called on one goroutine at a time.
type Encode func(to []byte, next store.Cursor, e *event.Event) []byte

// Batch is some events in the form in which they are sent, in parts that are shared and read-only.
type Batch struct {
	Parts [][]byte
	N     int
}

// Feed hands out events. Make one with New; Close it before its store.
type Feed struct {
	store   store.Store
	encode  Encode
	ctx     context.Context
	cancel  context.CancelFunc
	reading sync.WaitGroup
	readers chan Encode // for followers that read the log, as long as they do

	mu      sync.Mutex
	topics  index
	looking bool                   // the reader is at work
	next    store.Cursor           // where it goes on from; zero: it has not begun
	page    []seen                 // of the reader
	size    int                    // of the page before, as it is sent
	marks   []mark                 // of the pages that topics remember
	since   int                    // bytes of those
	err     error                  // why it ended
	unlive  map[*Follower]struct{} // that wait to be told that they are live
}

// seen is an event that the reader has read.
type seen struct {
	next  store.Cursor
	event event.Event
}

// mark is where a page ended of which topics took so many bytes.
type mark struct {
	at store.Cursor
	n  int
}

// New returns a feed of the store.
func New(s store.Store, encoder func() Encode) *Feed {
	f := &Feed{store: s, encode: encoder(), topics: newIndex(), unlive: map[*Follower]struct{}{}, readers: make(chan Encode, readersMax)}
	for range readersMax {
		f.readers <- encoder()
	}
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
		t.begin, t.chunks = at, nil
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
	next, err = f.store.Events(from, pageMax, func(at store.Cursor, e *event.Event) bool {
		page = append(page, seen{at, *e})
		return true
	})
	if err != nil {
		return next, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.page, f.next = page, next
	f.age(next, f.handOut(page))
	for fo := range f.unlive {
		if !next.Before(fo.goal) {
			delete(f.unlive, fo)
			fo.signal()
		}
	}
	return next, nil
}

// handOut adds a page to the topics and returns how many bytes it took, with the copies. Each event that concerns anybody is encoded once.
func (f *Feed) handOut(page []seen) (taken int) {
	sent := make([]byte, 0, f.size)
	var touched, concerned []*topic
	for i := range page {
		e := &page[i]
		if concerned = f.topics.concerned(concerned[:0], &e.event); len(concerned) == 0 {
			continue
		}
		from := len(sent)
		sent = f.encode(sent, e.next, &e.event)
		for _, t := range concerned {
			if !t.touched {
				t.touched, touched = true, append(touched, t)
			}
			if t.add(e.next, sent, from); t.size() >= chunkBytes || t.open.n == chunkMax {
				taken += t.seal(sent)
			}
		}
	}
	for _, t := range touched {
		taken += t.seal(sent)
		t.touched = false
		t.signal()
	}
	f.size = len(sent)
	return taken + cap(sent)
}

// age has the topics forget what is too far back, now and then; never the last page, for nobody had a chance to take it.
func (f *Feed) age(at store.Cursor, n int) {
	if n == 0 {
		return
	}
	f.marks = append(f.marks, mark{at, n})
	if f.since += n; f.since <= rememberMax || len(f.marks) == 1 {
		return
	}
	i := 0
	for ; f.since > rememberMax/2 && i < len(f.marks)-1; i++ {
		f.since -= f.marks[i].n
	}
	floor := f.marks[i-1].at
	f.marks = append([]mark(nil), f.marks[i:]...)
	f.topics.each(func(t *topic) { t.forget(floor) })
}
