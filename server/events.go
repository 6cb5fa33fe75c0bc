package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/event"
	"github.com/stintrun/stint/internal/feed"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

const (
	// watchQuiet is how long a stream of events is silent at most: proxies end what is silent for longer.
	watchQuiet = 15 * time.Second
	// watchPace is the least time between two messages with events to one follower, and watchShare for each follower there
	// is, up to watchPaceMax: what comes meanwhile goes into one message, so that many followers do not cost a message each for
	// each event.
	watchPace    = 5 * time.Millisecond
	watchShare   = 50 * time.Microsecond
	watchPaceMax = 200 * time.Millisecond
	// watchPatience is how long a follower may take for a message.
	watchPatience = 10 * time.Second
	// watchPart is the least size of a part of a message that is not copied together with others.
	watchPart = 4 << 10
)

// WatchEvents sends what the feed hands out. Events were encoded by the feed, once for all followers.
func (s *Server) WatchEvents(m *stintv1.WatchEventsRequest, stream grpc.ServerStreamingServer[stintv1.WatchEventsResponse]) error {
	topic, err := eventFilter(m.GetFilter())
	if err != nil {
		return err
	}
	ctx := stream.Context()
	from, goal, err := s.watchFrom(ctx, m)
	if err != nil {
		return err
	}
	follower := s.feed.Follow(topic, from, goal)
	defer follower.Close()
	s.watchers.Add(1)
	defer s.watchers.Add(-1)
	w := watcher{s: s, follower: follower, out: make(chan encoded), failed: make(chan error, 1)}
	defer close(w.out)
	s.streams.Go(func() { w.send(stream) })
	return w.watch(ctx)
}

// watchFrom is the place to begin at, and where the log ends now.
func (s *Server) watchFrom(ctx context.Context, m *stintv1.WatchEventsRequest) (from, end store.Cursor, err error) {
	known := true
	if m.GetCursor() != "" {
		if m.GetFromOldest() {
			return from, end, invalid("from_oldest", "does not go with a cursor")
		}
		if from, known, err = s.cursors.read(m.GetCursor()); err != nil {
			return from, end, err
		}
	}
	var oldest store.Cursor
	err = s.store.View(ctx, func(r store.Reader) error {
		oldest, end = r.Position()
		switch {
		case m.GetFromOldest():
			from = oldest
		case m.GetCursor() == "":
			from = end
		}
		return nil
	})
	if err != nil {
		return from, end, err
	}
	if known && m.GetCursor() != "" {
		// Behind the look: all that it saw is on disk now.
		oldest, err = s.store.Events(from, 0, func(store.Cursor, *event.Event) bool { return false })
		if known = !errors.Is(err, store.ErrResync); known && err != nil {
			return from, end, err
		}
	}
	if !known {
		return from, end, s.resync(oldest)
	}
	return from, end, err
}

// resync tells a follower that it has missed something.
func (s *Server) resync(oldest store.Cursor) error {
	r := *errResync
	r.metadata = [2]string{"oldest_cursor", s.cursors.write(oldest)}
	return &r
}

// watcher is one who watches events: its messages are made by watch and sent by send, which may hang on a slow follower.
type watcher struct {
	s        *Server
	follower *feed.Follower
	out      chan encoded
	failed   chan error
}

// send sends messages until there are no more, or one fails.
func (w *watcher) send(stream grpc.ServerStream) {
	for m := range w.out {
		if err := stream.SendMsg(m); err != nil {
			w.failed <- err
			return
		}
	}
}

// watch makes a message of what the feed hands out, or of nothing when it is time, until the follower is gone or cut.
func (w *watcher) watch(ctx context.Context) error {
	for {
		quiet, cancel := context.WithTimeout(ctx, watchQuiet)
		got, at, err := w.follower.Next(quiet)
		cancel()
		if errors.Is(err, store.ErrResync) {
			return w.s.resync(at)
		}
		if err != nil {
			return err
		}
		if err := w.put(ctx, w.message(got, at)); err != nil {
			return err
		}
		if got.N == 0 || !w.follower.Live() {
			continue // who is behind has them gathered
		}
		if err := w.pause(ctx); err != nil {
			return err
		}
	}
}

// message is a WatchEventsResponse.
func (w *watcher) message(got feed.Batch, at store.Cursor) encoded {
	var m [][]byte
	var small []byte // of parts that are not worth a buffer each
	for _, part := range got.Parts {
		if len(part) < watchPart {
			small = append(small, part...)
			continue
		}
		if len(small) > 0 {
			m, small = append(m, small), nil
		}
		m = append(m, part)
	}
	small = protowire.AppendString(protowire.AppendTag(small, 2, protowire.BytesType), w.s.cursors.write(at))
	if w.follower.Live() {
		small = protowire.AppendVarint(protowire.AppendTag(small, 3, protowire.VarintType), 1)
	}
	return encoded{parts: append(m, small)}
}

// put hands a message to the sender. One that hangs for too long is of a follower that is too slow.
func (w *watcher) put(ctx context.Context, m encoded) error {
	patience := time.NewTimer(watchPatience)
	defer patience.Stop()
	select {
	case w.out <- m:
		return nil
	case <-patience.C:
		return errSlowConsumer
	case err := <-w.failed:
		return err
	case <-w.s.stopping:
		return errStopping
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pause lets events gather.
func (w *watcher) pause(ctx context.Context) error {
	pace := time.NewTimer(min(max(watchPace, time.Duration(w.s.watchers.Load())*watchShare), watchPaceMax))
	defer pace.Stop()
	select {
	case <-pace.C:
		return nil
	case <-w.s.stopping:
		return errStopping
	case <-ctx.Done():
		return ctx.Err()
	}
}

// eventFilter is the topic that a filter asks for.
func eventFilter(m *stintv1.EventFilter) (topic feed.Topic, err error) {
	queue := parsePattern(m.GetQueue())
	topic = feed.Topic{Queue: queue.name, Prefix: queue.prefix}
	if err := checkEventFilter(m); err != nil {
		return topic, err
	}
	var kinds []event.Kind
	for _, k := range m.GetKinds() {
		kinds = append(kinds, event.Kind(k))
	}
	var labels []uint64
	for key, value := range m.GetLabels() {
		labels = append(labels, event.LabelHash(key, value))
	}
	ids := make([]job.ID, len(m.GetJobIds()))
	for i, text := range m.GetJobIds() {
		if ids[i], err = parseID(fmt.Sprintf("filter.job_ids[%d]", i), text); err != nil {
			return topic, err
		}
		if ids[i] == (job.ID{}) {
			return topic, invalid(fmt.Sprintf("filter.job_ids[%d]", i), "no job has this id")
		}
	}
	return topic.OfKinds(kinds...).OfLabels(labels...).OfJobs(ids), nil
}
