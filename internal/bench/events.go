package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// The parts of the events scenario, by its rate: at 10,000 events a second 1,000 followers of 100 queues.
const (
	eventsLeast      = 1000
	eventsOfLife     = 5  // submitted, dispatched, accepted, and two ends
	eventsPerQueue   = 10 // followers of one queue
	eventsUnfiltered = 5  // followers of everything
	eventsStopped    = 10 // one in so many followers more does not read
	eventsPhase      = 20 * time.Second
	eventsSettle     = 3 * time.Second // around the kill, in which lags are the outage's
	eventsPatience   = time.Minute     // until all have had everything
	followersOfConn  = 128
)

// Events says how far behind the followers of events are, while the server is killed once in the middle.
type Events struct {
	// Rate is how many events a second there were, outside the outage.
	Rate float64 `json:"events_per_s"`
	// Events is how many there were.
	Events int `json:"events"`
	// Queues is how many queues they were of, Followers how many followed one of those, Unfiltered how many everything.
	Queues     int `json:"queues"`
	Followers  int `json:"followers"`
	Unfiltered int `json:"unfiltered"`
	// Lag is the time from an event to its receipt by a follower, in ms, but for those around the kill.
	Lag Quantiles `json:"lag_ms"`
	// Stopped is how many more did not read, and Cut how many of those the server cut off with SLOW_CONSUMER.
	Stopped int `json:"stopped"`
	Cut     int `json:"cut"`
	// Wrong is how many followers did not have exactly the events of the log, in its order.
	Wrong int `json:"wrong"`
	// IdleRSS is the server's VmRSS in bytes before anybody followed, RSS the most that was seen while all did.
	IdleRSS int64 `json:"idle_rss_bytes"`
	RSS     int64 `json:"rss_bytes"`

	target  *target
	hist    *hdrhistogram.Histogram
	mu      sync.Mutex
	outage  atomic.Pointer[[2]time.Time]
	queues  []string
	all     []*eventFollower
	clients []*client.Client
	leave   context.CancelFunc
	watches sync.WaitGroup
}

// eventFollower is one follower; what it has had is a count and a hash.
type eventFollower struct {
	queue string // empty: everything
	n     atomic.Int64
	hash  uint64
	live  chan struct{}
}

func (f *eventFollower) take(e *stintv1.Event) {
	f.hash = chain(f.hash, e.GetCursor())
	f.n.Add(1)
}

// chain hashes a text into a hash of those before it (FNV-1a).
func chain(h uint64, s string) uint64 {
	if h == 0 {
		h = 14695981039346656037
	}
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// events measures once.
func events(ctx context.Context, c Config) (*Events, error) {
	e := &Events{
		Queues: c.Events / eventsPerQueue / eventsPerQueue, Unfiltered: eventsUnfiltered,
		hist: hdrhistogram.New(int64(time.Microsecond), int64(time.Hour), 3),
	}
	e.Followers = e.Queues * eventsPerQueue
	e.Stopped = e.Followers / eventsStopped
	for i := range e.Queues {
		e.queues = append(e.queues, fmt.Sprintf("bench/%03d", i))
	}
	c.Note(fmt.Sprintf("events: %d followers, %d events/s", e.Followers+e.Unfiltered, c.Events))
	return withTarget(ctx, c, func(t *target) (*Events, error) {
		e.target = t
		if err := e.measure(ctx, c); err != nil {
			return nil, fmt.Errorf("events: %w", err)
		}
		return e, nil
	})
}

func (e *Events) measure(ctx context.Context, c Config) (err error) {
	t := e.target
	t.config.Listen = t.server.GRPC // the next one is found at the same place
	if e.IdleRSS, err = residentMemory(t.pid()); err != nil {
		return err
	}
	watching, leave := context.WithCancel(ctx)
	e.leave = leave
	defer e.close()
	if err := e.follow(watching); err != nil {
		return err
	}
	load, err := e.start(ctx, c)
	if err != nil {
		return err
	}
	defer load.close()
	stopped, err := e.stop(watching)
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := e.pass(ctx, eventsPhase); err != nil {
		return err
	}
	e.cut(stopped)
	killed := time.Now()
	e.outage.Store(&[2]time.Time{killed.Add(-eventsSettle), killed.Add(time.Hour)})
	if _, err := t.restart(ctx); err != nil {
		return err
	}
	e.outage.Store(&[2]time.Time{killed.Add(-eventsSettle), time.Now().Add(eventsSettle)})
	away := time.Since(killed)
	if err := e.pass(ctx, eventsPhase); err != nil {
		return err
	}
	if err := load.close(); err != nil {
		return err
	}
	busy := time.Since(begin) - away
	if err := e.compare(ctx); err != nil {
		return err
	}
	e.Rate = float64(e.Events) / busy.Seconds()
	e.Lag = (&delays{hist: e.hist}).quantiles()
	return nil
}

// pass lets time pass and looks at the server's memory.
func (e *Events) pass(ctx context.Context, d time.Duration) error {
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); {
		select {
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		rss, err := residentMemory(e.target.pid())
		if err != nil {
			return err
		}
		e.RSS = max(e.RSS, rss)
	}
	return nil
}

// follow lets the followers in, and returns when all are live.
func (e *Events) follow(ctx context.Context) error {
	for i := range e.Followers + e.Unfiltered {
		f := &eventFollower{live: make(chan struct{}, 1)}
		if i < e.Followers {
			f.queue = e.queues[i%e.Queues]
		}
		if i%followersOfConn == 0 {
			if err := e.dial(); err != nil {
				return err
			}
		}
		e.all = append(e.all, f)
		c := e.clients[len(e.clients)-1]
		e.watches.Go(func() { e.watch(ctx, c, f) })
	}
	for _, f := range e.all {
		select {
		case <-f.live:
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(stallLimit):
			return errors.New("a follower did not become live")
		}
	}
	return nil
}

func (e *Events) dial() error {
	c, err := client.Dial(e.target.server.GRPC)
	if err != nil {
		return err
	}
	e.clients = append(e.clients, c)
	return nil
}

func (e *Events) watch(ctx context.Context, c *client.Client, f *eventFollower) {
	m := &stintv1.WatchEventsRequest{FromOldest: true, Filter: &stintv1.EventFilter{Queue: f.queue}}
	_ = c.Watch(ctx, m, func(resp *stintv1.WatchEventsResponse) error {
		now := time.Now()
		for _, one := range resp.GetEvents() {
			f.take(one)
		}
		e.record(now, resp.GetEvents())
		if resp.GetLive() {
			select {
			case f.live <- struct{}{}:
			default:
			}
		}
		return nil
	})
}

// record notes how late events came.
func (e *Events) record(now time.Time, events []*stintv1.Event) {
	out := e.outage.Load()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, one := range events {
		at := one.GetTime().AsTime()
		if out != nil && at.After(out[0]) && at.Before(out[1]) {
			continue
		}
		_ = e.hist.RecordValue(min(int64(now.Sub(at)), e.hist.HighestTrackableValue()))
	}
}

// stop opens the streams that nobody reads.
func (e *Events) stop(ctx context.Context) (streams []stintv1.EventService_WatchEventsClient, err error) {
	for i := range e.Stopped {
		if i%followersOfConn == 0 {
			if err := e.dial(); err != nil {
				return nil, err
			}
		}
		s, err := e.clients[len(e.clients)-1].Events().WatchEvents(ctx, &stintv1.WatchEventsRequest{})
		if err != nil {
			return nil, err
		}
		streams = append(streams, s)
	}
	return streams, nil
}

// cut counts the streams that were cut off.
func (e *Events) cut(streams []stintv1.EventService_WatchEventsClient) {
	for _, s := range streams {
		var err error
		for give := time.Now().Add(time.Second); err == nil && time.Now().Before(give); {
			_, err = s.Recv()
		}
		if client.ReasonOf(err) == stintv1.Reason_REASON_SLOW_CONSUMER {
			e.Cut++
		}
	}
}

// compare holds what each follower has had against the log.
func (e *Events) compare(ctx context.Context) error {
	c := e.clients[0]
	logs := map[string]*eventFollower{"": {}}
	for _, queue := range e.queues {
		logs[queue] = &eventFollower{}
	}
	err := c.Watch(ctx, &stintv1.WatchEventsRequest{FromOldest: true}, func(resp *stintv1.WatchEventsResponse) error {
		for _, one := range resp.GetEvents() {
			e.Events++
			logs[""].take(one)
			if l := logs[one.GetQueue()]; one.GetQueue() != "" && l != nil {
				l.take(one)
			}
		}
		if resp.GetLive() {
			return client.ErrStopWatching
		}
		return nil
	})
	if err != nil {
		return err
	}
	for give := time.Now().Add(eventsPatience); time.Now().Before(give) && e.behind(logs) > 0; {
		if err := e.pass(ctx, time.Second); err != nil {
			return err
		}
	}
	e.leave()
	e.watches.Wait()
	for _, f := range e.all {
		if l := logs[f.queue]; f.hash != l.hash || f.n.Load() != l.n.Load() {
			e.Wrong++
		}
	}
	return nil
}

// behind is how many have not had as many events as there are.
func (e *Events) behind(logs map[string]*eventFollower) (n int) {
	for _, f := range e.all {
		if f.n.Load() < logs[f.queue].n.Load() {
			n++
		}
	}
	return n
}

func (e *Events) close() {
	e.leave()
	e.watches.Wait()
	for _, c := range e.clients {
		_ = c.Close()
	}
}

func (e *Events) write(w io.Writer) {
	const mib = 1 << 20
	fmt.Fprintf(w, "\nfollowing %.0f events/s of %d queues, over a kill of the server\n", e.Rate, e.Queues)
	fmt.Fprintf(w, "  lag, ms        p50 %.2f, p90 %.2f, p99 %.2f, p99.9 %.2f, max %.2f\n", e.Lag.P50, e.Lag.P90, e.Lag.P99, e.Lag.P999, e.Lag.Max)
	fmt.Fprintf(w, "  followers      %d of a queue, %d of everything; %d of them had not exactly the %d events\n", e.Followers, e.Unfiltered, e.Wrong, e.Events)
	fmt.Fprintf(w, "  not reading    %d, of which %d were cut off\n", e.Stopped, e.Cut)
	fmt.Fprintf(w, "  server memory  %.1f MiB, %.1f MiB more than before\n", float64(e.RSS)/mib, float64(e.RSS-e.IdleRSS)/mib)
}

// fault says what may not be; nil if all is as it must be.
func (e *Events) fault() error {
	if e.Wrong == 0 && e.Cut == e.Stopped {
		return nil
	}
	return fmt.Errorf("%d followers had other events than there were, %d of %d that did not read were cut off", e.Wrong, e.Cut, e.Stopped)
}
