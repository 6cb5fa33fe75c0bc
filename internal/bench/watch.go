package bench

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// Watched is what followers of events had during a run; of several runs, that after which they were furthest behind.
type Watched struct {
	// Followers is how many there were.
	Followers int `json:"followers"`
	// EventsPerJob is how many events each of them received for a job.
	EventsPerJob float64 `json:"events_per_job"`
	// BehindSeconds is how long after the last job the last of them had all.
	BehindSeconds float64 `json:"behind_s"`
}

// markKind is the kind of the event that all followers wait for.
const markKind = stintv1.EventKind_EVENT_KIND_LIMIT_CREATED

// watchStall is how long all that was asked for may take to reach a follower.
const watchStall = time.Minute

// watchers follow events, over a connection each. They count events and do not take them apart, so that it is the server
// that is measured.
type watchers struct {
	target  *target
	filter  *stintv1.EventFilter
	conns   []*grpc.ClientConn
	counts  []atomic.Int64
	mark    atomic.Pointer[[]byte] // what is in the event that all wait for
	has     chan struct{}          // a follower had it
	live    chan struct{}          // a follower follows
	broken  chan error
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// watch lets some follow, until the watchers are closed. It returns when they do.
func (t *target) watch(ctx context.Context, n int, ends bool) error {
	w := &watchers{
		target: t, counts: make([]atomic.Int64, n), has: make(chan struct{}, n), live: make(chan struct{}, n), broken: make(chan error, n),
	}
	if ends {
		w.filter = &stintv1.EventFilter{Kinds: []stintv1.EventKind{stintv1.EventKind_EVENT_KIND_JOB_ENDED, markKind}}
	}
	ctx, w.cancel = context.WithCancel(ctx)
	for i := range n {
		conn, err := grpc.NewClient(t.conns[0].Target(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return errors.Join(err, w.close())
		}
		w.conns = append(w.conns, conn)
		w.running.Go(func() {
			if err := w.follow(ctx, conn, i); ctx.Err() == nil {
				w.broken <- fmt.Errorf("a follower of events: %w", err)
			}
		})
	}
	for range n {
		if err := w.await(ctx, w.live); err != nil {
			return errors.Join(err, w.close())
		}
	}
	t.watched = w
	return nil
}

func (w *watchers) close() error {
	w.cancel()
	w.running.Wait()
	var errs []error
	for _, conn := range w.conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}

func (w *watchers) await(ctx context.Context, ch <-chan struct{}) error {
	select {
	case <-ch:
		return nil
	case err := <-w.broken:
		return err
	case <-time.After(watchStall):
		return errors.New("followers of events make no progress")
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *watchers) follow(ctx context.Context, conn *grpc.ClientConn, i int) error {
	desc := &grpc.StreamDesc{ServerStreams: true}
	stream, err := conn.NewStream(ctx, desc, stintv1.EventService_WatchEvents_FullMethodName, grpc.ForceCodecV2(eventCounter{encoding.GetCodecV2("proto")}))
	if err != nil {
		return err
	}
	if err := errors.Join(stream.SendMsg(&stintv1.WatchEventsRequest{Filter: w.filter}), stream.CloseSend()); err != nil {
		return err
	}
	m := counted{mark: &w.mark}
	for first := true; ; first = false {
		if err := stream.RecvMsg(&m); err != nil {
			return err
		}
		if first {
			w.live <- struct{}{}
		}
		w.counts[i].Add(int64(m.n))
		if m.marked {
			w.has <- struct{}{}
		}
	}
}

// total is how many events all followers have had.
func (w *watchers) total() (n int64) {
	for i := range w.counts {
		n += w.counts[i].Load()
	}
	return n
}

// catchUp returns when all followers have had all that has happened until now, and how long that took.
func (w *watchers) catchUp(ctx context.Context) (took time.Duration, err error) {
	begin := time.Now()
	name := fmt.Sprintf("bench/mark-%d", begin.UnixNano())
	mark := []byte(name)
	w.mark.Store(&mark)
	queues := stintv1.NewQueueServiceClient(w.target.conns[0])
	if _, err := queues.PutLimit(ctx, &stintv1.PutLimitRequest{Name: name, Policy: &stintv1.LimitPolicy{MaxUnits: 1}}); err != nil {
		return 0, fmt.Errorf("make limit %s: %w", name, err)
	}
	for range w.conns {
		if err := w.await(ctx, w.has); err != nil {
			return 0, err
		}
	}
	took = time.Since(begin)
	w.mark.Store(nil)
	_, err = queues.DeleteLimit(ctx, &stintv1.DeleteLimitRequest{Name: name})
	return took, err
}

// counted is a message of events: how many it has, and whether one of them is marked.
type counted struct {
	mark   *atomic.Pointer[[]byte]
	n      int
	marked bool
}

// eventCounter reads messages of events into counted.
type eventCounter struct{ encoding.CodecV2 }

func (eventCounter) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(*counted)
	if !ok {
		return fmt.Errorf("a message of events is read into a %T", v)
	}
	m.n, m.marked = 0, false
	if mark := m.mark.Load(); mark != nil {
		m.marked = bytes.Contains(data.Materialize(), *mark)
	}
	r := data.Reader()
	defer r.Close()
	for r.Remaining() > 0 {
		tag, err := binary.ReadUvarint(r)
		if err != nil {
			return err
		}
		number, kind := protowire.DecodeTag(tag)
		if number == 1 {
			m.n++
		}
		skip, err := binary.ReadUvarint(r) // a flag's value, or the length of an event or a cursor
		if kind == protowire.BytesType && err == nil {
			_, err = r.Discard(int(skip))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
