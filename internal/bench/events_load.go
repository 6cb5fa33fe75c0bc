package bench

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/stintrun/stint/client"
)

// eventsLoad is jobs of all queues at a steady rate, and workers that do them at once.
type eventsLoad struct {
	client  *client.Client
	jobs    *client.Submitter
	stop    chan struct{}
	leave   context.CancelFunc
	running sync.WaitGroup
	once    sync.Once

	mu  sync.Mutex
	err error
}

// eventsTick is how often jobs are sent.
const eventsTick = 10 * time.Millisecond

// queuesOfWorker is how many queues one worker serves.
const queuesOfWorker = 50

// start begins the load.
func (e *Events) start(ctx context.Context, c Config) (*eventsLoad, error) {
	own, err := client.Dial(e.target.server.GRPC)
	if err != nil {
		return nil, err
	}
	working, leave := context.WithCancel(ctx)
	l := &eventsLoad{client: own, stop: make(chan struct{}), leave: leave}
	for queues := e.queues; len(queues) > 0; {
		n := min(queuesOfWorker, len(queues))
		w := own.NewWorker(client.WorkerConfig{Name: "bench"})
		w.HandlePool(queues[:n], 500, func(context.Context, *client.Run) error { return nil })
		queues = queues[n:]
		l.running.Go(func() { l.fail(w.Run(working)) })
	}
	l.jobs = own.SubmitStream(ctx, client.SubmitConfig{OnResult: func(r client.Submitted) { l.fail(r.Err) }})
	l.running.Go(func() { l.send(ctx, e.queues, c.Events/eventsOfLife, c.Payload) })
	return l, nil
}

// send sends jobs, of the queues in turn.
func (l *eventsLoad) send(ctx context.Context, queues []string, rate, payload int) {
	tick := time.NewTicker(eventsTick)
	defer tick.Stop()
	contents := randomBytes(payload)
	begin, sent := time.Now(), 0
	for {
		select {
		case <-tick.C:
		case <-l.stop:
			l.fail(l.jobs.Close())
			l.leave()
			return
		}
		due := int(time.Since(begin).Seconds() * float64(rate))
		for ; sent < due; sent++ {
			if err := l.jobs.Send(ctx, client.Job{Queue: queues[sent%len(queues)], Payload: contents}); err != nil {
				l.fail(err)
				break
			}
		}
	}
}

func (l *eventsLoad) fail(err error) {
	if err == nil || errors.Is(err, context.Canceled) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = errors.Join(l.err, err)
}

// close ends the load when what was sent is stored and what was begun is done, and says what went wrong.
func (l *eventsLoad) close() error {
	l.once.Do(func() {
		close(l.stop)
		l.running.Wait()
		l.fail(l.client.Close())
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}
