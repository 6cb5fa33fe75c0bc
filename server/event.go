package server

import (
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/stintrun/stint/internal/event"
	"github.com/stintrun/stint/internal/feed"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// eventEncoder appends events as fields of a WatchEventsResponse, with what protobuf would write, though in another order:
// what an event has in common with the last one of its kind is copied. At the rates of events, messages that are made only
// to be encoded would cost more than all else that followers cost. It is for one goroutine at a time.
type eventEncoder struct {
	cursors cursors
	latest  [256]struct { // by kind
		shape  event.Shape
		fields []byte
	}
}

func (s *Server) newEventEncoder() feed.Encode { return (&eventEncoder{cursors: s.cursors}).append }

func (x *eventEncoder) append(to []byte, next store.Cursor, e *event.Event) []byte {
	const sizeRoom = 1
	to = appendTag(to, 1, protowire.BytesType)
	at := len(to)
	to = x.appendFields(append(to, 0), next, e)
	size := len(to) - at - sizeRoom
	if n := protowire.SizeVarint(uint64(size)); n > sizeRoom {
		to = append(to, make([]byte, n-sizeRoom)...)
		copy(to[at+n:], to[at+sizeRoom:at+sizeRoom+size])
	}
	protowire.AppendVarint(to[:at], uint64(size))
	return to
}

func (x *eventEncoder) appendFields(to []byte, next store.Cursor, e *event.Event) []byte {
	l := &x.latest[e.Kind]
	if l.fields == nil || l.shape != e.Shape {
		l.shape, l.fields = e.Shape, appendShape(l.fields[:0], &e.Shape)
	}
	to = append(to, l.fields...)
	to = append(appendTag(to, 1, protowire.BytesType), 0)
	at := len(to)
	to = x.cursors.append(to, next)
	to[at-1] = byte(len(to) - at)
	to = appendTime(to, 2, e.Time)
	to = appendID(to, 5, e.Job)
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
	to = appendID(to, 10, s.Instance)
	to = appendVarint(to, 11, uint64(s.Level))
	to = appendVarint(to, 12, uint64(s.Source))
	to = appendText(to, 16, s.Limit)
	return appendText(to, 17, s.Key)
}

func appendVarint(to []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return to
	}
	return protowire.AppendVarint(appendTag(to, field, protowire.VarintType), v)
}

// appendTag is protowire's for the fields of events, which all fit two bytes.
func appendTag(to []byte, field protowire.Number, t protowire.Type) []byte {
	if field < 16 {
		return append(to, byte(field)<<3|byte(t))
	}
	return append(to, byte(field)<<3|byte(t)|0x80, byte(field>>4))
}

// appendText appends a text, which must be UTF-8 on the wire.
func appendText(to []byte, field protowire.Number, text string) []byte {
	if text == "" {
		return to
	}
	return protowire.AppendString(appendTag(to, field, protowire.BytesType), strings.ToValidUTF8(text, "\uFFFD"))
}

func appendID(to []byte, field protowire.Number, id job.ID) []byte {
	if id == (job.ID{}) {
		return to
	}
	return id.Append(append(appendTag(to, field, protowire.BytesType), job.IDTextSize))
}

// appendTime appends a Timestamp.
func appendTime(to []byte, field protowire.Number, t time.Time) []byte {
	if t.IsZero() {
		return to
	}
	to = append(appendTag(to, field, protowire.BytesType), 0)
	at := len(to)
	to = appendVarint(to, 1, uint64(t.Unix()))
	to = appendVarint(to, 2, uint64(t.Nanosecond()))
	to[at-1] = byte(len(to) - at)
	return to
}
