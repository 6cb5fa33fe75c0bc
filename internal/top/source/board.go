package source

import (
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/status"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/top"
)

// Board is a picture that Follow changes and others look at. It is safe for concurrent use.
type Board struct {
	now  func() time.Time
	live chan struct{}

	mu    sync.Mutex
	model *top.Model
	shown bool // live is closed.
}

// NewBoard returns an empty board; now is the clock.
func NewBoard(now func() time.Time) *Board {
	return &Board{now: now, live: make(chan struct{}), model: top.New(now())}
}

// Live is closed once the lists are there, and the first word of events.
func (b *Board) Live() <-chan struct{} { return b.live }

// Take takes a picture of now; see top.Model.
func (b *Board) Take(filter string) *top.Snapshot {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.model.Take(b.now(), filter)
}

// begin takes over the first lists, behind which events will be counted.
func (b *Board) begin(l *top.Lists) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	b.model.Restart(now)
	b.model.List(now, l)
}

func (b *Board) list(l *top.Lists) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.model.List(b.now(), l)
}

func (b *Board) lose(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.model.Lose(b.now(), shortly(err))
}

// watched takes over a message of events and returns how far they are behind what happens.
func (b *Board) watched(m *stintv1.WatchEventsResponse) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	b.model.Watched(now, m.GetEvents(), m.GetLive())
	if !b.shown && (m.GetLive() || len(m.GetEvents()) > 0) {
		b.shown = true
		close(b.live)
	}
	return b.model.Behind(now)
}

// shortly is why a call failed, without the layers it came through: "connection refused".
func shortly(err error) string {
	text := status.Convert(err).Message()
	if i := strings.LastIndex(text, ": "); i >= 0 {
		text = text[i+2:]
	}
	return strings.Trim(text, `"`)
}
