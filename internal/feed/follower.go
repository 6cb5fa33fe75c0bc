package feed

import (
	"context"
	"errors"

	"github.com/stintrun/stint/internal/event"
	"github.com/stintrun/stint/internal/store"
)

// Follower is one who follows a topic, on one goroutine. Close it.
type Follower struct {
	feed  *Feed
	topic *topic
	keep  func(*event.Event) bool
	next  store.Cursor // behind what it was given
	goal  store.Cursor // where the log ended when it began to follow
	live  bool         // nothing that is wanted was behind that
	wake  chan struct{}
}

// Follow begins to follow a topic from the cursor on; the log ended at the goal then, or later. Of its events those are
// wanted that keep admits; nil: all.
func (f *Feed) Follow(name Topic, from, goal store.Cursor, keep func(*event.Event) bool) *Follower {
	if keep == nil {
		keep = func(*event.Event) bool { return true }
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.start()
	fo := &Follower{feed: f, topic: f.topics.topic(name, f.next), keep: keep, next: from, goal: goal, wake: make(chan struct{}, 1)}
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
func (fo *Follower) Next(ctx context.Context) ([]*Entry, store.Cursor, error) {
	for {
		was := fo.live
		entries, state, err := fo.recent()
		if err != nil || len(entries) > 0 || fo.live && !was {
			return entries, fo.next, err
		}
		if state == behind {
			was := fo.next
			entries, err := fo.read(ctx)
			if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
				if fo.feed.ctx.Err() != nil {
					return nil, fo.next, store.ErrClosed
				}
				return nil, fo.next, nil
			}
			if err != nil || len(entries) > 0 || fo.next != was {
				return entries, fo.next, err
			}
		}
		select {
		case <-fo.wake:
		case <-ctx.Done():
			entries, _, err := fo.recent() // for how far it is
			return entries, fo.next, err
		case <-fo.feed.ctx.Done():
			return nil, fo.next, store.ErrClosed
		}
	}
}

func (fo *Follower) signal() {
	select {
	case fo.wake <- struct{}{}:
	default:
	}
}

type place int

const (
	behind place = iota // what the topic remembers
	here
)

// recent takes what the topic remembers.
func (fo *Follower) recent() (got []*Entry, at place, err error) {
	f, t := fo.feed, fo.topic
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, here, f.err
	}
	if t.begin == (store.Cursor{}) || fo.next.Before(t.begin) {
		fo.live = false
		return nil, behind, nil
	}
	if fo.live = !f.next.Before(fo.goal); !fo.live {
		f.unlive[fo] = struct{}{}
	}
	for _, e := range t.after(fo.next) {
		if len(got) == pageMax {
			fo.live = false
			return got, here, nil
		}
		fo.next = e.Next
		if fo.keep(&e.Event) {
			got = append(got, e)
		}
	}
	if fo.next.Before(f.next) {
		fo.next = f.next
	}
	return got, here, nil
}

// read takes what the log has, as far as one look goes.
func (fo *Follower) read(ctx context.Context) (got []*Entry, err error) {
	f := fo.feed
	select {
	case f.readers <- struct{}{}:
		defer func() { <-f.readers }()
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-f.ctx.Done():
		return nil, store.ErrClosed
	}
	next := fo.next
	var eventsErr error
	err = f.store.View(ctx, func(r store.Reader) error {
		got = nil
		next, eventsErr = r.Events(fo.next, scanMax, func(at store.Cursor, e *event.Event) bool {
			if fo.topic.concerns(e) && fo.keep(e) {
				if len(got) == behindMax {
					return false
				}
				got = append(got, &Entry{Next: at, Event: *e})
			}
			return true
		})
		return nil
	})
	if err == nil {
		err, fo.next = eventsErr, next
	}
	if err != nil {
		got = nil
	}
	return got, err
}
