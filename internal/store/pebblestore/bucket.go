package pebblestore

import (
	"math"
	"time"

	"github.com/stintrun/stint/internal/job"
)

// bucketBits: a bucket is 2^18 consecutive sequence numbers. Ids are remembered, and finished jobs dropped, by bucket.
// They are variables only for tests.
var (
	bucketBits        = 18
	bucketSize uint64 = 1 << bucketBits
)

// bucket is what is known of a stretch of the submit sequence: which ids it holds, how many jobs of it are not
// terminal, and when the last one ended.
type bucket struct {
	number uint32
	ids    *filter
	count  uint32 // ids added
	open   uint32 // jobs that are not terminal
	// The times inside the bucket's UUIDv7s, in milliseconds by their makers' clocks: an id outside of them is not here.
	v7min, v7max int64
	other        bool      // it holds ids that are not UUIDv7
	begun        time.Time // the first submit
	submitted    time.Time // the last submit
	ended        time.Time // the last end
	trim         uint32    // how many of its chunks are trimmed
	moves        uint64    // how often its jobs changed since the start
}

func newBucket(number uint32) *bucket {
	return &bucket{number: number, ids: newFilter(int(bucketSize)), v7min: math.MaxInt64, v7max: math.MinInt64}
}

func bucketOf(seq uint64) uint32 { return uint32(seq >> bucketBits) }

func (b *bucket) add(id job.ID) {
	b.ids.add(id)
	b.count++
	if t, ok := id.V7Time(); ok {
		b.v7min, b.v7max = min(b.v7min, t.UnixMilli()), max(b.v7max, t.UnixMilli())
	} else {
		b.other = true
	}
}

// mayHold reports whether the bucket may hold the id; it never says no wrongly.
func (b *bucket) mayHold(id job.ID) bool {
	if t, ok := id.V7Time(); ok {
		if ms := t.UnixMilli(); ms < b.v7min || ms > b.v7max {
			return false
		}
	} else if !b.other {
		return false
	}
	return b.ids.has(id)
}

func (b *bucket) write(w *writer) {
	w.uint(1, uint64(b.number))
	w.uint(2, uint64(b.count))
	w.uint(3, uint64(b.open))
	w.time(4, b.submitted, 0)
	w.time(5, b.ended, 0)
	w.uint(6, uint64(b.trim))
	w.time(7, b.begun, 0)
}

func readBucket(raw []byte) (*bucket, error) {
	b := &bucket{v7min: math.MaxInt64, v7max: math.MinInt64}
	r := reader{rest: raw}
	for r.next() {
		switch r.field {
		case 1:
			b.number = uint32(r.v)
		case 2:
			b.count = uint32(r.v)
		case 3:
			b.open = uint32(r.v)
		case 4:
			b.submitted = r.time(0)
		case 5:
			b.ended = r.time(0)
		case 6:
			b.trim = uint32(r.v)
		case 7:
			b.begun = r.time(0)
		}
	}
	return b, r.err
}

// appendFilter writes what Find needs of a full bucket.
func (b *bucket) appendFilter(buf []byte) []byte {
	w := writer{b: buf}
	w.duration(1, time.Duration(b.v7min))
	w.duration(2, time.Duration(b.v7max))
	w.flag(3, b.other)
	w.bytes(4, b.ids.append(nil))
	return w.b
}

func (b *bucket) readFilter(raw []byte) error {
	r := reader{rest: raw}
	for r.next() {
		switch r.field {
		case 1:
			b.v7min = int64(r.duration())
		case 2:
			b.v7max = int64(r.duration())
		case 3:
			b.other = r.v != 0
		case 4:
			f, err := readFilter(r.raw)
			if err != nil {
				return err
			}
			b.ids = f
		}
	}
	if b.ids == nil && r.err == nil {
		return errRecord
	}
	return r.err
}
