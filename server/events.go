package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

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
	// watchBytes is how many bytes of events a message has at most, unless one is larger.
	watchBytes = 64 << 10
)

// WatchEvents sends what the feed hands out. Events were encoded by the feed, once for all followers.
func (s *Server) WatchEvents(m *stintv1.WatchEventsRequest, stream grpc.ServerStreamingServer[stintv1.WatchEventsResponse]) error {
	topic, keep, err := eventFilter(m.GetFilter())
	if err != nil {
		return err
	}
	ctx := stream.Context()
	from, goal, err := s.watchFrom(ctx, m)
	if err != nil {
		return err
	}
	follower := s.feed.Follow(topic, from, goal, keep)
	defer follower.Close()
	s.watchers.Add(1)
	defer s.watchers.Add(-1)
	w := watcher{s: s, follower: follower, out: make(chan rawMessage), failed: make(chan error, 1)}
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
		// In a look of its own: only now all that the other one saw is on disk.
		viewErr := s.store.View(ctx, func(r store.Reader) error {
			oldest, err = r.Events(from, 0, func(store.Cursor, *event.Event) bool { return false })
			return nil
		})
		if viewErr != nil {
			return from, end, viewErr
		}
		known = !errors.Is(err, store.ErrResync)
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
	out      chan rawMessage
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
		entries, at, err := w.follower.Next(quiet)
		cancel()
		if errors.Is(err, store.ErrResync) {
			return w.s.resync(at)
		}
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			if err := w.put(ctx, nil, at, w.follower.Live()); err != nil {
				return err
			}
			continue
		}
		for len(entries) > 0 {
			n, next := w.s.fit(entries, at)
			if err := w.put(ctx, entries[:n], next, n == len(entries) && w.follower.Live()); err != nil {
				return err
			}
			entries = entries[n:]
		}
		if err := w.pause(ctx); err != nil {
			return err
		}
	}
}

// fit tells how many of the entries go into a message, and the cursor behind it.
func (s *Server) fit(entries []*feed.Entry, at store.Cursor) (n int, next store.Cursor) {
	size := 0
	for n < len(entries) {
		size += len(s.feed.Encoded(entries[n]))
		if n > 0 && size > watchBytes {
			return n, entries[n-1].Next
		}
		n++
	}
	return n, at
}

// put hands a message to the sender. One that hangs for too long is of a follower that is too slow.
func (w *watcher) put(ctx context.Context, entries []*feed.Entry, at store.Cursor, live bool) error {
	var m rawMessage
	for _, e := range entries {
		m = append(m, w.s.feed.Encoded(e)...)
	}
	m = protowire.AppendString(protowire.AppendTag(m, 2, protowire.BytesType), w.s.cursors.write(at))
	if live {
		m = protowire.AppendVarint(protowire.AppendTag(m, 3, protowire.VarintType), 1)
	}
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

// pause lets events gather; who is behind has them gathered.
func (w *watcher) pause(ctx context.Context) error {
	least := watchPace
	if w.follower.Live() {
		least = min(max(watchPace, time.Duration(w.s.watchers.Load())*watchShare), watchPaceMax)
	}
	pace := time.NewTimer(least)
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

// encodeEvent makes a field of a WatchEventsResponse of an event.
func (s *Server) encodeEvent(e *feed.Entry) []byte {
	m := s.wireEvent(e.Next, &e.Event)
	size := proto.Size(m)
	b := make([]byte, 0, size+8)
	b = protowire.AppendVarint(protowire.AppendTag(b, 1, protowire.BytesType), uint64(size))
	b, err := proto.MarshalOptions{}.MarshalAppend(b, m)
	if err != nil {
		s.log.Error("could not encode an event", "error", err)
		return nil
	}
	return b
}

func (s *Server) wireEvent(next store.Cursor, e *event.Event) *stintv1.Event {
	m := &stintv1.Event{
		Cursor: s.cursors.write(next), Time: timestamppb.New(e.Time), Kind: stintv1.EventKind(e.Kind), Queue: e.Queue,
		JobState: stintv1.JobState(e.State), Run: e.Run, RunState: stintv1.RunState(e.RunState), Worker: e.Worker,
		Level: stintv1.InterruptLevel(e.Level), Source: stintv1.InterruptSource(e.Source),
		Reason: e.Reason, Requester: e.Who, Limit: e.Limit, Key: e.Key, Until: wireTime(e.Until),
	}
	if e.Job != (job.ID{}) {
		m.JobId = e.Job.String()
	}
	if e.Instance != (job.ID{}) {
		m.InstanceId = e.Instance.String()
	}
	return m
}

// eventFilter is the topic that a filter asks for, and which of its events.
func eventFilter(m *stintv1.EventFilter) (topic feed.Topic, keep func(*event.Event) bool, err error) {
	queue := parsePattern(m.GetQueue())
	topic = feed.Topic{Queue: queue.name, Prefix: queue.prefix}
	if err := checkEventFilter(m); err != nil {
		return topic, nil, err
	}
	var kinds [256]bool
	for _, k := range m.GetKinds() {
		kinds[k] = true
	}
	var labels []uint64
	for key, value := range m.GetLabels() {
		labels = append(labels, event.LabelHash(key, value))
	}
	if len(m.GetJobIds()) > 0 {
		ids := make([]job.ID, len(m.GetJobIds()))
		for i, text := range m.GetJobIds() {
			if ids[i], err = parseID(fmt.Sprintf("filter.job_ids[%d]", i), text); err != nil {
				return topic, nil, err
			}
			if ids[i] == (job.ID{}) {
				return topic, nil, invalid(fmt.Sprintf("filter.job_ids[%d]", i), "no job has this id")
			}
		}
		topic = feed.OfJobs(ids)
	}
	return topic, func(e *event.Event) bool {
		if len(m.GetKinds()) > 0 && !kinds[e.Kind] || topic.Jobs != "" && !queue.matches(e.Queue) {
			return false
		}
		for _, h := range labels {
			if _, has := slices.BinarySearch(e.Labels, h); !has {
				return false
			}
		}
		return true
	}, nil
}
