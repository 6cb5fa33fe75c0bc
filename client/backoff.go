package client

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	backoffBase = 100 * time.Millisecond
	backoffMax  = 5 * time.Second
)

// errSilent is why this side ends a stream whose other end has not said a word for longer than it may.
var errSilent = errors.New("stint: the server is silent")

// pacer spaces attempts with full jitter: the n-th pause is uniform between zero and 100 ms · 2ⁿ, at most 5 s.
type pacer struct{ failures int }

// reset starts again from the shortest pause.
func (p *pacer) reset() { p.failures = 0 }

// next returns the pause after one more failure, at least what the server asked for in err.
func (p *pacer) next(err error) time.Duration {
	ceiling := min(backoffMax, backoffBase<<min(p.failures, 10))
	p.failures++
	return retryInfo(err) + rand.N(ceiling)
}

// wait pauses after err. It returns ctx's cause if that ends first.
func (p *pacer) wait(ctx context.Context, err error) error {
	timer := time.NewTimer(p.next(err))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// transient reports whether a call or stream that ended with err is worth another try: the server was away, ended the
// stream, or did not manage within the time that it gives a call, and it was not the caller who ended it.
func transient(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	code := status.Code(err)
	return errors.Is(err, io.EOF) || errors.Is(err, errSilent) || code == codes.Unavailable || code == codes.DeadlineExceeded
}

// retryInfo returns how long the server asked to wait, at most a minute.
func retryInfo(err error) time.Duration {
	if err == nil {
		return 0
	}
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			return min(max(info.GetRetryDelay().AsDuration(), 0), time.Minute)
		}
	}
	return 0
}
