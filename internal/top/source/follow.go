package source

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/top"
)

// Server is what is asked; *client.Client is one.
type Server interface {
	Queues() stintv1.QueueServiceClient
	Workers() stintv1.WorkerServiceClient
	Watch(context.Context, *stintv1.WatchEventsRequest, func(*stintv1.WatchEventsResponse) error) error
}

const (
	// pagePace is how long one page of a list, of a thousand, takes up: a server with fifty queues is listed every second, one
	// with fifty thousand twice a minute, and neither notices.
	pagePace = time.Second
	// resync is the longest time between two lists.
	resync = 30 * time.Second
	// retryPause is how long a server that is away is left alone.
	retryPause = time.Second
	// patience is how long a call may take.
	patience = 10 * time.Second
	// behindMax is how far events may be behind what happens: then those in between are given up, to show what is. A server
	// can do more than it tells one follower.
	behindMax = 10 * time.Second
)

// errBehind ends a watch that does not keep up.
var errBehind = errors.New("behind")

// Follow keeps the board up to date until ctx ends, or the server refuses to tell.
func Follow(ctx context.Context, s Server, b *Board) error {
	f := &follower{server: s, board: b}
	for {
		err := f.once(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, errBehind):
			continue
		case client.ReasonOf(err) == stintv1.Reason_REASON_RESYNC:
		case passing(err):
			b.lose(err)
		default:
			return err
		}
		if err := pause(ctx, retryPause); err != nil {
			return err
		}
	}
}

// passing reports whether an error is one of a server that is away, stopping or busy.
func passing(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Aborted:
		return true
	default:
		return false
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// follower is one Follow.
type follower struct {
	server Server
	board  *Board
	next   int // The limit whose usage is read next.
}

// once lists, and follows from there until that is not possible any more.
func (f *follower) once(ctx context.Context) error {
	lists, cursor, pages, err := f.list(ctx)
	if err != nil {
		return err
	}
	f.board.begin(lists)
	ctx, cancel := context.WithCancelCause(ctx)
	var listing sync.WaitGroup
	defer listing.Wait()
	defer cancel(nil)
	listing.Go(func() {
		if err := f.relist(ctx, pages); err != nil {
			cancel(err)
		}
	})
	err = f.watch(ctx, cursor)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// watch brings events to the board. The SDK waits for a server that goes away; relist says so.
func (f *follower) watch(ctx context.Context, cursor string) error {
	return f.server.Watch(ctx, &stintv1.WatchEventsRequest{Cursor: cursor}, func(m *stintv1.WatchEventsResponse) error {
		if f.board.watched(m) > behindMax {
			return errBehind
		}
		return nil
	})
}

// relist lists again and again, until ctx ends or the server refuses.
func (f *follower) relist(ctx context.Context, pages int) error {
	for {
		if err := pause(ctx, min(time.Duration(pages)*pagePace, resync)); err != nil {
			return err
		}
		lists, _, n, err := f.list(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil:
			f.board.list(lists)
			pages = n
		case passing(err):
			f.board.lose(err)
		default:
			return err
		}
	}
}

// list reads all lists, the cursor from where to watch, and how many pages the longest one has.
func (f *follower) list(ctx context.Context) (l *top.Lists, cursor string, pages int, err error) {
	l = &top.Lists{}
	n, err := eachPage(ctx, func(ctx context.Context, token string) (string, error) {
		page, err := f.server.Queues().ListQueues(ctx, &stintv1.ListQueuesRequest{PageSize: pageSize, PageToken: token})
		if token == "" {
			cursor = page.GetAsOf()
		}
		l.Queues = append(l.Queues, page.GetQueues()...)
		return page.GetNextPageToken(), err
	})
	if err != nil {
		return nil, "", 0, fmt.Errorf("list queues: %w", err)
	}
	pages = n
	n, err = eachPage(ctx, func(ctx context.Context, token string) (string, error) {
		page, err := f.server.Workers().ListWorkers(ctx, &stintv1.ListWorkersRequest{PageSize: pageSize, PageToken: token})
		l.Workers = append(l.Workers, page.GetWorkers()...)
		return page.GetNextPageToken(), err
	})
	if err != nil {
		return nil, "", 0, fmt.Errorf("list workers: %w", err)
	}
	pages = max(pages, n)
	n, err = eachPage(ctx, func(ctx context.Context, token string) (string, error) {
		page, err := f.server.Queues().ListLimits(ctx, &stintv1.ListLimitsRequest{PageSize: pageSize, PageToken: token})
		l.Limits = append(l.Limits, page.GetLimits()...)
		return page.GetNextPageToken(), err
	})
	if err != nil {
		return nil, "", 0, fmt.Errorf("list limits: %w", err)
	}
	if l.Usage, err = f.usage(ctx, l.Limits); err != nil {
		return nil, "", 0, fmt.Errorf("read what limits are taken: %w", err)
	}
	return l, cursor, max(pages, n), nil
}

// pageSize is the most that the server puts on a page.
const pageSize = 1000

// eachPage reads pages until there is no next one, and returns how many there were. A page may be cut short by its bytes, so
// it is counted as it comes.
func eachPage(ctx context.Context, read func(ctx context.Context, token string) (next string, err error)) (pages int, err error) {
	for token := ""; ; {
		call, cancel := context.WithTimeout(ctx, patience)
		token, err = read(call, token)
		cancel()
		if pages++; err != nil || token == "" {
			return pages, err
		}
	}
}

const (
	// usageCalls is how many limits are looked into with each list; with more of them they take turns.
	usageCalls = 10
	// usageKeys is how many keys of a limit are read: there may be millions, and the server lists them by name.
	usageKeys = 200
)

// usage reads what is taken of the limits whose turn it is.
func (f *follower) usage(ctx context.Context, limits []*stintv1.Limit) ([]top.Usage, error) {
	var all []top.Usage
	for range min(usageCalls, len(limits)) {
		name := limits[f.next%len(limits)].GetName()
		f.next++
		call, cancel := context.WithTimeout(ctx, patience)
		m, err := f.server.Queues().GetLimitUsage(call, &stintv1.GetLimitUsageRequest{Name: name, PageSize: usageKeys})
		cancel()
		if client.ReasonOf(err) == stintv1.Reason_REASON_LIMIT_NOT_FOUND {
			continue // It was deleted meanwhile.
		}
		if err != nil {
			return nil, err
		}
		all = append(all, top.Usage{Limit: name, Keys: m.GetKeys(), More: m.GetNextPageToken() != ""})
	}
	return all, nil
}
