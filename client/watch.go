package client

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// ErrStopWatching ends Watch without an error when its function returns it.
var ErrStopWatching = errors.New("stint: stop watching")

// Watch follows events: it calls fn for each message that the server sends, with events or without, until ctx ends or fn
// returns an error. When the connection breaks, or the server restarts, it goes on behind the last message that fn took, so
// that no event is missed and none comes twice. Keep the cursor of the last message to go on in another process.
//
// The request may be nil: then all events come, from now on. Errors: ctx's, fn's (ErrStopWatching is none), and those of
// WatchEvents; with the reason RESYNC, read anew what you need and watch from its as_of.
func (c *Client) Watch(ctx context.Context, m *stintv1.WatchEventsRequest, fn func(*stintv1.WatchEventsResponse) error) error {
	next := &stintv1.WatchEventsRequest{Cursor: m.GetCursor(), FromOldest: m.GetFromOldest(), Filter: m.GetFilter()}
	var pause pacer
	for {
		err := c.watchOnce(ctx, next, fn, &pause)
		if failed, ok := errors.AsType[watchError](err); ok {
			if errors.Is(failed.err, ErrStopWatching) {
				return nil
			}
			return failed.err
		}
		if !transient(ctx, err) && (ctx.Err() != nil || ReasonOf(err) != stintv1.Reason_REASON_SLOW_CONSUMER) {
			return err
		}
		if err := pause.wait(ctx, err); err != nil {
			return err
		}
	}
}

// watchError is an error of the caller's function.
type watchError struct{ err error }

func (e watchError) Error() string { return e.err.Error() }

// watchOnce follows over one stream, and notes in m how far it came. A stream that is silent for longer than the server's
// promise is given up.
func (c *Client) watchOnce(ctx context.Context, m *stintv1.WatchEventsRequest, fn func(*stintv1.WatchEventsResponse) error, pause *pacer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream, err := c.events.WatchEvents(ctx, m, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	silence := time.AfterFunc(waitSilence, func() { cancel(errSilent) })
	defer silence.Stop()
	for {
		resp, err := stream.Recv()
		if errors.Is(context.Cause(ctx), errSilent) {
			return errSilent
		}
		if err != nil {
			return err
		}
		pause.reset()
		silence.Stop() // fn may take its time
		if err := fn(resp); err != nil {
			return watchError{err}
		}
		silence.Reset(waitSilence)
		m.Cursor, m.FromOldest = resp.GetCursor(), false
	}
}
