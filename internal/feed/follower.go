package feed

import (
	"context"
	"errors"
	"math"

	"github.com/stintrun/stint/internal/event"
	"github.com/stintrun/stint/internal/store"
)

// Follower is one who follows a topic, on one goroutine. Close it.
type Follower struct {
	feed  *Feed
	topic *topic
	next  store.Cursor // behind what it was given
	goal  store.Cursor // where the log ended when it began to follow
	live  bool         // nothing that is wanted was behind that
	wake  chan struct{}
}

// Follow begins to follow a topic from the cursor on; the log ended at the goal then, or later.
func (f *Feed) Follow(name Topic, from, goal store.Cursor) *Follower {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.start()
	fo := &Follower{feed: f, topic: f.topics.topic(name, f.next), next: from, goal: goal, wake: make(chan struct{}, 1)}
	fo.topic.followers[fo] = struct{}{}
	return fo
}

// Close ends the following.
func (fo *Follower) Close() {
	f := fo.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.unlive, fo)
	if delete(fo.topic.followers, fo); len(fo.topic.followers) == 0 {
		f.topics.drop(fo.topic)
	}
}

// Live reports whether nothing that is wanted was behind what Next returned last.
func (fo *Follower) Live() bool { return fo.live }

// Next waits for events and returns some, in order, and the cursor behind all that was looked at for them. It returns none
// with the cursor when ctx ends, when it has become live, and after it has passed many that are not wanted. With
// store.ErrResync it returns the oldest cursor.
func (fo *Follower) Next(ctx context.Context) (Batch, store.Cursor, error) {
	for {
		was := fo.live
		got, until, err := fo.recent()
		if err != nil || got.N > 0 || fo.live && !was {
			return got, fo.next, err
		}
		if until != (store.Cursor{}) {
			was := fo.next
			got, err := fo.read(ctx, until)
			if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
				if fo.feed.ctx.Err() != nil {
					return Batch{}, fo.next, store.ErrClosed
				}
				return Batch{}, fo.next, nil
			}
			if err != nil || got.N > 0 || fo.next != was {
				return got, fo.next, err
			}
		}
		select {
		case <-fo.wake:
		case <-ctx.Done():
			got, _, err := fo.recent() // for how far it is
			return got, fo.next, err
		case <-fo.feed.ctx.Done():
			return Batch{}, fo.next, store.ErrClosed
		}
	}
}

func (fo *Follower) signal() {
	select {
	case fo.wake <- struct{}{}:
	default:
	}
}

// theEnd is behind all events.
var theEnd = store.Cursor{Batch: math.MaxUint64}

// recent takes what the topic remembers. If it does not remember what is next, the log has it, until a place.
func (fo *Follower) recent() (got Batch, until store.Cursor, err error) {
	f, t := fo.feed, fo.topic
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return got, until, f.err
	}
	if t.begin == (store.Cursor{}) || fo.next.Before(t.begin) {
		fo.live = false
		return got, theEnd, nil
	}
	if fo.live = !f.next.Before(fo.goal); !fo.live {
		f.unlive[fo] = struct{}{}
	}
	size := 0
	for _, c := range t.after(fo.next) {
		switch {
		case !fo.next.Before(c.first): // it has had some of these already
			fo.live = false
			return got, c.next, nil
		case got.N > 0 && (size+len(c.bytes) > chunkBytes || got.N+c.n > chunkMax):
			fo.live = false
			return got, until, nil
		}
		got.Parts, got.N = append(got.Parts, c.bytes), got.N+c.n
		size += len(c.bytes)
		fo.next = c.next
	}
	if fo.next.Before(f.next) {
		fo.next = f.next
	}
	return got, until, nil
}

// read takes what the log has, as far as one look goes, and no further than a place.
func (fo *Follower) read(ctx context.Context, until store.Cursor) (got Batch, err error) {
	f := fo.feed
	var encode Encode
	select {
	case encode = <-f.readers:
		defer func() { f.readers <- encode }()
	case <-ctx.Done():
		return got, ctx.Err()
	case <-f.ctx.Done():
		return got, store.ErrClosed
	}
	var sent []byte
	next, err := f.store.Events(fo.next, scanMax, func(at store.Cursor, e *event.Event) bool {
		if until.Before(at) {
			return false
		}
		if fo.topic.concerns(e) {
			if len(sent) >= chunkBytes || got.N == chunkMax {
				return false
			}
			sent = encode(sent, at, e)
			got.N++
		}
		return true
	})
	fo.next = next
	if err != nil {
		return Batch{}, err
	}
	got.Parts = [][]byte{sent}
	return got, nil
}
