package pebblestore

import (
	"errors"
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Records are Protocol Buffers wire format, written by hand: compact, fast, and a reader skips the fields it does not
// know. Zero values are left out.

var errRecord = errors.New("malformed record")

// writer appends fields to b.
type writer struct {
	b     []byte
	brief bool // runs are written without who has them
}

func (w *writer) uint(field protowire.Number, v uint64) {
	if v != 0 {
		w.b = protowire.AppendVarint(protowire.AppendTag(w.b, field, protowire.VarintType), v)
	}
}

func (w *writer) flag(field protowire.Number, v bool) {
	if v {
		w.uint(field, 1)
	}
}

func (w *writer) str(field protowire.Number, v string) {
	if v != "" {
		w.b = protowire.AppendString(protowire.AppendTag(w.b, field, protowire.BytesType), v)
	}
}

func (w *writer) bytes(field protowire.Number, v []byte) {
	if len(v) != 0 {
		w.b = protowire.AppendBytes(protowire.AppendTag(w.b, field, protowire.BytesType), v)
	}
}

func (w *writer) duration(field protowire.Number, d time.Duration) {
	if d != 0 {
		w.uint(field, protowire.EncodeZigZag(int64(d)))
	}
}

func (w *writer) float(field protowire.Number, v float64) { w.uint(field, math.Float64bits(v)) }

// time writes t as its distance from base, plus one so that base itself is not left out.
func (w *writer) time(field protowire.Number, t time.Time, base int64) {
	if t.IsZero() {
		return
	}
	d := t.UnixNano() - base
	if d >= 0 {
		d++
	}
	w.uint(field, protowire.EncodeZigZag(d))
}

// message writes what fn writes as a field of its own.
func (w *writer) message(field protowire.Number, fn func(*writer)) {
	w.b = protowire.AppendTag(w.b, field, protowire.BytesType)
	start := len(w.b)
	w.b = append(w.b, 0) // most are shorter than 128 bytes, so their length takes one byte
	fn(w)
	n := len(w.b) - start - 1
	if n < 0x80 {
		w.b[start] = byte(n)
		return
	}
	extra := protowire.SizeVarint(uint64(n)) - 1
	w.b = append(w.b, make([]byte, extra)...)
	copy(w.b[start+1+extra:], w.b[start+1:start+1+n])
	protowire.AppendVarint(w.b[:start], uint64(n))
}

// reader walks over the fields of a record: for r.next() { switch r.field … }; then r.err.
type reader struct {
	rest  []byte
	field protowire.Number
	v     uint64 // the value of a number
	raw   []byte // the value of a string, bytes or message; part of the record
	err   error
}

func (r *reader) next() bool {
	if r.err != nil || len(r.rest) == 0 {
		return false
	}
	field, typ, n := protowire.ConsumeTag(r.rest)
	if n < 0 {
		r.err = errRecord
		return false
	}
	r.rest = r.rest[n:]
	r.field, r.v, r.raw = field, 0, nil
	switch typ {
	case protowire.VarintType:
		r.v, n = protowire.ConsumeVarint(r.rest)
	case protowire.BytesType:
		r.raw, n = protowire.ConsumeBytes(r.rest)
	default:
		n = protowire.ConsumeFieldValue(field, typ, r.rest)
	}
	if n < 0 {
		r.err = errRecord
		return false
	}
	r.rest = r.rest[n:]
	return true
}

func (r *reader) duration() time.Duration { return time.Duration(protowire.DecodeZigZag(r.v)) }

func (r *reader) float() float64 { return math.Float64frombits(r.v) }

func (r *reader) time(base int64) time.Time {
	d := protowire.DecodeZigZag(r.v)
	if d > 0 {
		d--
	}
	return time.Unix(0, base+d).UTC()
}

// id copies an id; a wrong length is an error.
func (r *reader) id(to *[16]byte) {
	if len(r.raw) != len(to) {
		r.err = errRecord
		return
	}
	copy(to[:], r.raw)
}

// copied returns the bytes of the field as the caller's own.
func (r *reader) copied() []byte { return append([]byte(nil), r.raw...) }
