package feed

import (
	"context"
	"encoding/binary"
	"errors"
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

// encode writes a cursor alone.
func encode(to []byte, next store.Cursor, _ *event.Event) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(to, next.Batch), next.Index)
}

// cursors are those of a batch.
func cursors(t *testing.T, got Batch) (all []store.Cursor) {
	t.Helper()
	for _, part := range got.Parts {
		for ; len(part) > 0; part = part[12:] {
			all = append(all, store.Cursor{Batch: binary.BigEndian.Uint64(part), Index: binary.BigEndian.Uint32(part[8:])})
		}
	}
	if len(all) != got.N || got.N > chunkMax || 12*(got.N-1) >= chunkBytes {
		t.Errorf("a batch of %d events has %d", got.N, len(all))
	}
	return all
}

func inBubble(t *testing.T, test func(*rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, err := pebblestore.Open(pebblestore.Config{Dir: "data", FS: vfs.NewMem(), Reserve: -1})
		if err != nil {
			t.Fatal(err)
		}
		r := &rig{t: t, ctx: t.Context(), store: s, feed: New(s, func() Encode { return encode })}
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
			if r.ids%3 == 0 {
				s.Labels = map[string]string{"colour": "red", "size": "l"}
			}
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
	_, err := r.store.Events(store.Cursor{}, 1<<30, func(at store.Cursor, e *event.Event) bool {
		if topic.concerns(e) {
			all = append(all, at)
		}
		return true
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

// TestFollow: followers of any topic, from any place, as fast or slow as they are, get each event once and in order, from
// what topics remember and from the log, while others come and go.
func TestFollow(t *testing.T) {
	defer small()()
	for seed := range uint64(20) {
		inBubble(t, func(r *rig) { r.play(rand.New(rand.NewPCG(seed, 1))) }) //nolint:gosec // a test's dice
	}
}

func (r *rig) play(d *rand.Rand) {
	queues := []string{"a", "b", "b/c", "quiet"}
	ids := r.submit("a", 3)
	topics := []Topic{
		{Prefix: true},
		{Queue: "a"},
		{Queue: "b", Prefix: true},
		{Queue: "quiet"},
		{Queue: "none"},
		Topic{Prefix: true}.OfJobs(ids[:2]),
		Topic{Queue: "a"}.OfKinds(event.JobSubmitted),
		Topic{Prefix: true}.OfLabels(event.LabelHash("size", "l"), event.LabelHash("colour", "red")),
		Topic{Queue: "b"}.OfLabels(event.LabelHash("size", "l")), Topic{Prefix: true}.OfLabels(event.LabelHash("size", "s")),
	}
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
		f := r.feed.Follow(h.topic, store.Cursor{}, store.Cursor{})
		slow := time.Duration(d.IntN(3)) * 100 * time.Millisecond
		go func() {
			defer close(h.done)
			defer f.Close()
			for ctx.Err() == nil {
				got, _, err := f.Next(ctx)
				if err != nil {
					r.t.Error(err)
					return
				}
				h.got = append(h.got, cursors(r.t, got)...)
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
	if x := &r.feed.topics; len(x.all)+len(x.byJob)+len(x.byLabel)+len(x.byQueue)+len(x.patterns) > 0 {
		r.t.Fatal("topics are left")
	}
}

// small makes rare paths frequent until it is undone.
func small() (undo func()) {
	a, b, c, d, e := rememberMax, pageMax, chunkMax, chunkBytes, scanMax
	rememberMax, pageMax, chunkMax, chunkBytes, scanMax = 1000, 9, 5, 40, 30
	return func() { rememberMax, pageMax, chunkMax, chunkBytes, scanMax = a, b, c, d, e }
}

// TestJoinWithinChunk: who begins within a chunk reads the log no further than to its end.
func TestJoinWithinChunk(t *testing.T) {
	defer small()()
	inBubble(t, func(r *rig) {
		first := r.feed.Follow(Topic{Prefix: true}, store.Cursor{}, store.Cursor{})
		defer first.Close()
		synctest.Wait()
		r.submit("q", 7) // with the queue's own, eight events
		synctest.Wait()
		all := r.log(Topic{Prefix: true})
		f := r.feed.Follow(Topic{Prefix: true}, all[0], store.Cursor{})
		defer f.Close()
		for _, want := range [][]store.Cursor{all[1:4], all[4:8]} {
			got, _, err := f.Next(r.ctx)
			if err != nil || !slices.Equal(cursors(t, got), want) {
				t.Fatalf("got %d events, %v, want %d", got.N, err, len(want))
			}
		}
	})
}

// TestManyTopics: followers of many topics that all events concern have a page from what is remembered, none from the log.
func TestManyTopics(t *testing.T) {
	defer small()()
	pageMax = 100 // more than is remembered
	inBubble(t, func(r *rig) {
		for range readersMax {
			<-r.feed.readers
			r.feed.readers <- func([]byte, store.Cursor, *event.Event) []byte {
				t.Error("an event is read from the log")
				return nil
			}
		}
		var end store.Cursor
		if err := r.store.View(r.ctx, func(v store.Reader) error { _, end = v.Position(); return nil }); err != nil {
			t.Fatal(err)
		}
		var followers []*Follower
		for i := range 50 {
			kinds := []event.Kind{event.JobSubmitted, event.QueueCreated, event.Kind(100 + i)}
			followers = append(followers, r.feed.Follow(Topic{Prefix: true}.OfKinds(kinds...), end, store.Cursor{}))
		}
		synctest.Wait()
		for range 3 {
			before := len(r.log(Topic{Prefix: true}))
			r.submit("q", 99)
			synctest.Wait()
			want := r.log(Topic{Prefix: true})[before:]
			for _, f := range followers {
				var had []store.Cursor
				for len(had) < len(want) {
					got, _, err := f.Next(r.ctx)
					if err != nil || t.Failed() {
						t.Fatal("no more comes", err)
					}
					had = append(had, cursors(t, got)...)
				}
				if !slices.Equal(had, want) {
					t.Error("a follower had other events than the log")
				}
			}
		}
		for _, f := range followers {
			f.Close()
		}
	})
}

// TestResync: who is behind what the log keeps is told where it begins.
func TestResync(t *testing.T) {
	inBubble(t, func(r *rig) {
		f := r.feed.Follow(Topic{Prefix: true}, store.Cursor{Batch: 1 << 40}, store.Cursor{})
		defer f.Close()
		_, err := f.read(r.ctx, theEnd)
		if !errors.Is(err, store.ErrResync) || !f.next.Before(store.Cursor{Batch: 1 << 40}) {
			t.Fatalf("reading from a place to come answers %v and %v", f.next, err)
		}
	})
}

// TestManyFollowersOfOneTopic: an event is encoded once for all of them.
func TestManyFollowersOfOneTopic(t *testing.T) {
	inBubble(t, func(r *rig) {
		encoded := 0
		r.feed.encode = func(to []byte, next store.Cursor, e *event.Event) []byte {
			encoded++
			return encode(to, next, e)
		}
		var followers []*Follower
		for range 10 {
			f := r.feed.Follow(Topic{Queue: "q"}, store.Cursor{}, store.Cursor{})
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
			got, _, err := f.Next(r.ctx)
			if err != nil || got.N != 4 {
				t.Fatalf("follower %d: %d events, %v", i, got.N, err)
			}
			f.Close()
		}
		if encoded != 4 {
			t.Errorf("events were encoded %d times, want 4", encoded)
		}
	})
}
