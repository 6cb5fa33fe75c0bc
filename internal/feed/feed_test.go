package feed

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/stintrun/stint/internal/event"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
	"github.com/stintrun/stint/internal/store/pebblestore"
)

// rig is a feed of a store in memory, in the bubble of a test.
type rig struct {
	t     *testing.T
	ctx   context.Context
	store *pebblestore.Store
	feed  *Feed
	ids   uint32
}

func inBubble(t *testing.T, test func(*rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, err := pebblestore.Open(pebblestore.Config{Dir: "data", FS: vfs.NewMem(), Reserve: -1})
		if err != nil {
			t.Fatal(err)
		}
		r := &rig{t: t, ctx: t.Context(), store: s, feed: New(s, func(e *Entry) []byte { return []byte(e.Event.Queue) })}
		test(r)
		r.feed.Close()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// submit makes so many events of a queue.
func (r *rig) submit(queue string, n int) (ids []job.ID) {
	r.t.Helper()
	err := r.store.Update(r.ctx, func(tx store.Tx) error {
		if _, err := tx.MakeQueue(queue); err != nil {
			return err
		}
		for range n {
			r.ids++
			s := &job.Spec{Queue: queue, Priority: job.Normal}
			s.ID[0], s.ID[1], s.ID[2] = byte(r.ids), byte(r.ids>>8), byte(r.ids>>16)
			ids = append(ids, s.ID)
			if err := tx.Put(store.Change{New: job.New(s, tx.Now())}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return ids
}

// log is the cursors of all events that concern a topic.
func (r *rig) log(name Topic) (all []store.Cursor) {
	t := newIndex()
	topic := t.topic(name, store.Cursor{})
	r.view(func(v store.Reader) error {
		_, err := v.Events(store.Cursor{}, 1<<30, func(at store.Cursor, e *event.Event) bool {
			if topic.concerns(e) {
				all = append(all, at)
			}
			return true
		})
		return err
	})
	return all
}

func (r *rig) view(fn func(store.Reader) error) {
	r.t.Helper()
	if err := r.store.View(r.ctx, fn); err != nil {
		r.t.Fatal(err)
	}
}

// TestFollow: followers of any topic, from any place, as fast or slow as they are, get each event once and in order, from
// what topics remember and from the log, while others come and go.
func TestFollow(t *testing.T) {
	defer func(a, b, c, d int) { topicMax, rememberMax, pageMax, scanMax = a, b, c, d }(topicMax, rememberMax, pageMax, scanMax)
	topicMax, rememberMax, pageMax, scanMax = 16, 64, 5, 30
	for seed := range uint64(20) {
		inBubble(t, func(r *rig) { r.play(rand.New(rand.NewPCG(seed, 1))) }) //nolint:gosec // a test's dice
	}
}

func (r *rig) play(d *rand.Rand) {
	queues := []string{"a", "b", "b/c", "quiet"}
	ids := r.submit("a", 3)
	topics := []Topic{{Prefix: true}, {Queue: "a"}, {Queue: "b", Prefix: true}, {Queue: "quiet"}, {Queue: "none"}, OfJobs(ids[:2])}
	ctx, leave := context.WithCancel(r.ctx)
	type had struct {
		topic Topic
		got   []store.Cursor
		done  chan struct{}
	}
	var all []*had
	join := func() {
		h := &had{topic: topics[d.IntN(len(topics))], done: make(chan struct{})}
		all = append(all, h)
		f := r.feed.Follow(h.topic, store.Cursor{}, store.Cursor{}, nil)
		slow := time.Duration(d.IntN(3)) * 100 * time.Millisecond
		go func() {
			defer close(h.done)
			defer f.Close()
			for ctx.Err() == nil {
				entries, _, err := f.Next(ctx)
				if err != nil {
					r.t.Error(err)
					return
				}
				for _, e := range entries {
					h.got = append(h.got, e.Next)
				}
				time.Sleep(slow)
			}
		}()
	}
	for range 60 {
		if d.IntN(4) == 0 {
			join()
		}
		r.submit(queues[min(d.IntN(60), len(queues)-1)%3], 1+d.IntN(40))
		time.Sleep(time.Duration(d.IntN(50)) * time.Millisecond)
	}
	r.submit("quiet", 1)
	time.Sleep(time.Hour)
	leave()
	for i, h := range all {
		<-h.done
		if want := r.log(h.topic); !slices.Equal(want, h.got) {
			r.t.Fatalf("follower %d of %+v had %d events, want %d", i, h.topic, len(h.got), len(want))
		}
	}
	synctest.Wait()
	if r.feed.looking && len(r.feed.topics.all) > 0 {
		r.t.Fatal("topics are left")
	}
}

// TestResync: who is behind what the log keeps is told where it begins.
func TestResync(t *testing.T) {
	inBubble(t, func(r *rig) {
		f := r.feed.Follow(Topic{Prefix: true}, store.Cursor{Batch: 1 << 40}, store.Cursor{}, nil)
		defer f.Close()
		f.topic.begin = store.Cursor{} // as before the reader has begun
		_, err := f.read(r.ctx)
		if err == nil {
			t.Fatal("a place to come was read from")
		}
	})
}

// TestManyFollowersOfOneTopic: an event is encoded once for all of them.
func TestManyFollowersOfOneTopic(t *testing.T) {
	inBubble(t, func(r *rig) {
		encoded := 0
		r.feed.encode = func(*Entry) []byte { encoded++; return nil }
		var followers []*Follower
		for range 10 {
			f := r.feed.Follow(Topic{Queue: "q"}, store.Cursor{}, store.Cursor{}, nil)
			synctest.Wait() // the reader has begun
			for !f.Live() {
				if _, _, err := f.Next(r.ctx); err != nil {
					t.Fatal(err)
				}
			}
			followers = append(followers, f)
		}
		r.submit("q", 3)
		synctest.Wait()
		for i, f := range followers {
			entries, _, err := f.Next(r.ctx)
			if err != nil || len(entries) != 4 {
				t.Fatalf("follower %d: %d events, %v", i, len(entries), err)
			}
			for _, e := range entries {
				r.feed.Encoded(e)
			}
			f.Close()
		}
		if encoded != 4 {
			t.Errorf("events were encoded %d times, want 4", encoded)
		}
	})
}
