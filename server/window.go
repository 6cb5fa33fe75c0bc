package server

import "context"

// window bounds what one stream has under way. A message takes one place, and one more for each windowUnit bytes it
// has, so that windowPlaces messages or 8 MiB are under way.
type window chan struct{}

const (
	windowPlaces = 256
	windowUnit   = 32 << 10
)

// places is how many places a message of so many bytes takes.
func places(bytes int) int { return 1 + bytes/windowUnit }

// enter takes places. Errors: errStopping when quit is closed, and ctx's.
func (w window) enter(ctx context.Context, places int, quit <-chan struct{}) error {
	for range places {
		select {
		case w <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		case <-quit:
			return errStopping
		}
	}
	return nil
}

// leave gives places back.
func (w window) leave(places int) {
	for range places {
		<-w
	}
}
