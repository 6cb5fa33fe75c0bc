package server

import (
	"time"

	"github.com/stintrun/stint/internal/event"
	"github.com/stintrun/stint/internal/feed"
	"github.com/stintrun/stint/internal/store"
)

// eventEncoder appends events as fields of a WatchEventsResponse, with what protobuf would write, though in another order:
// what an event has in common with the last one of its kind is copied. It is for one goroutine at a time.
type eventEncoder struct {
	cursors cursors
	latest  [256]struct { // by kind
		shape  event.Shape
		fields []byte
	}
	time  time.Time // of the last event, which those of one transaction share
	field []byte    // with it
}

func (s *Server) newEventEncoder() feed.Encode { return (&eventEncoder{cursors: s.cursors}).append }

func (x *eventEncoder) append(to []byte, next store.Cursor, e *event.Event) []byte {
	to = openMessage(to, 1)
	at := len(to)
	return closeMessage(x.appendFields(to, next, e), at)
}

func (x *eventEncoder) appendFields(to []byte, next store.Cursor, e *event.Event) []byte {
	l := &x.latest[e.Kind]
	if l.fields == nil || l.shape != e.Shape {
		l.shape, l.fields = e.Shape, appendShape(l.fields[:0], &e.Shape)
	}
	to = append(to, l.fields...)
	to = openMessage(to, 1)
	at := len(to)
	to = closeMessage(x.cursors.append(to, next), at)
	if x.field == nil || !x.time.Equal(e.Time) {
		x.time, x.field = e.Time, appendTime(x.field[:0], 2, e.Time)
	}
	to = append(to, x.field...)
	to = appendIDIfSet(to, 5, e.Job)
	to = appendText(to, 13, e.Reason)
	to = appendText(to, 14, e.Who)
	return appendTime(to, 18, e.Until)
}

func appendShape(to []byte, s *event.Shape) []byte {
	to = appendVarint(to, 3, uint64(s.Kind))
	to = appendText(to, 4, s.Queue)
	to = appendVarint(to, 6, uint64(s.State))
	to = appendVarint(to, 7, uint64(s.Run))
	to = appendVarint(to, 8, uint64(s.RunState))
	to = appendText(to, 9, s.Worker)
	to = appendIDIfSet(to, 10, s.Instance)
	to = appendVarint(to, 11, uint64(s.Level))
	to = appendVarint(to, 12, uint64(s.Source))
	to = appendText(to, 16, s.Limit)
	return appendText(to, 17, s.Key)
}
