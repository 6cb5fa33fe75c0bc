package bench

import (
	"context"
	"sync"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// watch lets so many follow all events, over one connection, until leave is called.
func (t *target) watch(ctx context.Context, n int) (leave func(), err error) {
	if n == 0 {
		return func() {}, nil
	}
	c := client.New(t.conns[0])
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	for range n {
		watching.Go(func() {
			_ = c.Watch(ctx, &stintv1.WatchEventsRequest{}, func(*stintv1.WatchEventsResponse) error { return nil })
		})
	}
	return func() {
		cancel()
		watching.Wait()
	}, nil
}
