package server

import (
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/stintrun/stint/internal/job"
)

// What a busy stream sends most is encoded by hand, straight from what the server has: messages that are made only to be
// encoded cost several times as much. These functions append fields with what protobuf would write, and like it leave out
// what is zero.

// appendTag is protowire's for fields under 128, which all have.
func appendTag(to []byte, field protowire.Number, t protowire.Type) []byte {
	if field < 16 {
		return append(to, byte(field)<<3|byte(t))
	}
	return append(to, byte(field)<<3|byte(t)|0x80, byte(field>>4))
}

func appendVarint(to []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return to
	}
	return protowire.AppendVarint(appendTag(to, field, protowire.VarintType), v)
}

// appendText appends a text, which must be UTF-8 on the wire.
func appendText(to []byte, field protowire.Number, text string) []byte {
	if text == "" {
		return to
	}
	return protowire.AppendString(appendTag(to, field, protowire.BytesType), strings.ToValidUTF8(text, "\uFFFD"))
}

// appendID appends an id, also the one that is all zeros: that may be a job's.
func appendID(to []byte, field protowire.Number, id job.ID) []byte {
	return id.Append(append(appendTag(to, field, protowire.BytesType), job.IDTextSize))
}

// appendIDIfSet appends an id of which all zeros mean that there is none.
func appendIDIfSet(to []byte, field protowire.Number, id job.ID) []byte {
	if id == (job.ID{}) {
		return to
	}
	return appendID(to, field, id)
}

// openMessage begins a message: its fields are to follow, and closeMessage with the place where they begin.
func openMessage(to []byte, field protowire.Number) []byte {
	return append(appendTag(to, field, protowire.BytesType), 0)
}

// closeMessage ends the message whose fields begin at the place: it fills in their length.
func closeMessage(to []byte, at int) []byte {
	const room = 1 // what openMessage left
	size := len(to) - at
	if n := protowire.SizeVarint(uint64(size)); n > room {
		to = append(to, make([]byte, n-room)...)
		copy(to[at+n-room:], to[at:at+size])
	}
	protowire.AppendVarint(to[:at-room], uint64(size))
	return to
}

// appendTime appends a Timestamp; none for the zero time.
func appendTime(to []byte, field protowire.Number, t time.Time) []byte {
	if t.IsZero() {
		return to
	}
	return appendSeconds(to, field, t.Unix(), t.Nanosecond())
}

// appendSpan appends a Duration, also of nothing.
func appendSpan(to []byte, field protowire.Number, d time.Duration) []byte {
	return appendSeconds(to, field, int64(d/time.Second), int(d%time.Second))
}

// appendSeconds appends the seconds and nanoseconds of a Timestamp or a Duration.
func appendSeconds(to []byte, field protowire.Number, seconds int64, nanos int) []byte {
	to = openMessage(to, field)
	at := len(to)
	to = appendVarint(to, 1, uint64(seconds))
	to = appendVarint(to, 2, uint64(nanos))
	return closeMessage(to, at)
}
