package pebblestore

import (
	"encoding/binary"
	"slices"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/stintrun/stint/internal/event"
	"github.com/stintrun/stint/internal/job"
)

// The events of a batch are one record, in the order of the transitions. Most of them differ from others of the record in
// their job alone, so what they have in common, their shape, is written once: then an event is the number of its shape and a
// job's id, or not even that after another one of the same job.

// shape is what events have in common. Its flags say what each has for itself.
type shape struct {
	event.Shape
	flags uint8
}

// Flags of a shape: what follows its number, in this order.
const (
	hasTime   = 1 << iota // the distance from the time of the event before
	hasJob                // an id
	hasSame               // nothing: the job, and its labels, are those of the event before
	hasReason             // a text
	hasWho                // a text
	hasUntil              // the distance from the event's time
	hasLabels             // how many, and eight bytes each
)

const eventRecordVersion = 1

// packer packs the events of one batch.
type packer struct {
	b      []byte
	shapes map[shape]uint64
	latest [256]struct { // by kind: most events are shaped as the last one of their kind
		shape shape
		n     uint64
	}
	time   int64 // of the last event
	job    job.ID
	labels []uint64 // of the last event; the packer's own copy
}

// reset begins another record.
func (p *packer) reset() {
	clear(p.shapes)
	for i := range p.latest {
		p.latest[i].n = 0
	}
	p.b, p.time, p.job, p.labels = p.b[:0], 0, job.ID{}, p.labels[:0]
}

// add packs an event.
func (p *packer) add(e *event.Event) {
	if len(p.b) == 0 {
		p.b = append(p.b, eventRecordVersion)
	}
	at := e.Time.UnixNano()
	s := shape{e.Shape, p.flags(e, at)}
	p.shape(&s)
	if s.flags&hasTime != 0 {
		p.distance(at, p.time)
	}
	if s.flags&hasJob != 0 {
		p.b = append(p.b, e.Job[:]...)
	}
	if s.flags&hasReason != 0 {
		p.text(e.Reason)
	}
	if s.flags&hasWho != 0 {
		p.text(e.Who)
	}
	if s.flags&hasUntil != 0 {
		p.distance(e.Until.UnixNano(), at)
	}
	if s.flags&hasLabels != 0 {
		p.b = protowire.AppendVarint(p.b, uint64(len(e.Labels)))
		for _, h := range e.Labels {
			p.b = binary.BigEndian.AppendUint64(p.b, h)
		}
	}
	p.time, p.job, p.labels = at, e.Job, append(p.labels[:0], e.Labels...)
}

func (p *packer) flags(e *event.Event, at int64) (f uint8) {
	switch {
	case e.Job == job.ID{}:
	case e.Job == p.job && slices.Equal(e.Labels, p.labels):
		f |= hasSame
	default:
		f |= hasJob
		if len(e.Labels) > 0 {
			f |= hasLabels
		}
	}
	if at != p.time {
		f |= hasTime
	}
	if e.Reason != "" {
		f |= hasReason
	}
	if e.Who != "" {
		f |= hasWho
	}
	if !e.Until.IsZero() {
		f |= hasUntil
	}
	return f
}

// shape writes the number of the shape, and the first time the shape.
func (p *packer) shape(s *shape) {
	l := &p.latest[s.Kind]
	if l.n == 0 || l.shape != *s {
		n, known := p.shapes[*s]
		if !known {
			if p.shapes == nil {
				p.shapes = map[shape]uint64{}
			}
			n = uint64(len(p.shapes)) + 1
			p.shapes[*s] = n
			p.define(s)
		} else {
			p.b = protowire.AppendVarint(p.b, n)
		}
		l.shape, l.n = *s, n
		return
	}
	p.b = protowire.AppendVarint(p.b, l.n)
}

func (p *packer) define(s *shape) {
	p.b = append(p.b, 0, byte(s.Kind), s.flags, byte(s.State), byte(s.RunState), byte(s.Level), byte(s.Source))
	p.b = protowire.AppendVarint(p.b, uint64(s.Run))
	if s.Instance == (job.ID{}) {
		p.b = append(p.b, 0)
	} else {
		p.b = append(append(p.b, 1), s.Instance[:]...)
	}
	for _, name := range [...]string{s.Queue, s.Worker, s.Limit, s.Key} {
		p.b = protowire.AppendString(p.b, name)
	}
}

func (p *packer) distance(to, from int64) {
	p.b = protowire.AppendVarint(p.b, protowire.EncodeZigZag(to-from))
}

// text writes a text, cut to its bound.
func (p *packer) text(s string) {
	if len(s) > event.TextMax {
		n := event.TextMax
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	p.b = protowire.AppendString(p.b, s)
}

// unpacker unpacks a record.
type unpacker struct {
	b      []byte
	shapes []shape
	e      event.Event
	time   int64
	bad    bool
}

func unpack(record []byte) (*unpacker, error) {
	if len(record) == 0 || record[0] != eventRecordVersion {
		return nil, errRecord
	}
	return &unpacker{b: record[1:]}, nil
}

// next unpacks an event, which is valid until the next call; false at the end.
func (u *unpacker) next() (*event.Event, bool) {
	if len(u.b) == 0 || u.bad {
		return nil, false
	}
	s := u.shape()
	if u.bad {
		return nil, false
	}
	e := &u.e
	e.Shape, e.Reason, e.Who, e.Until = s.Shape, "", "", time.Time{}
	if s.flags&hasTime != 0 {
		u.time += u.distance()
	}
	e.Time = time.Unix(0, u.time).UTC()
	if s.flags&hasSame == 0 {
		e.Job, e.Labels = job.ID{}, nil
	}
	if s.flags&hasJob != 0 {
		copy(e.Job[:], u.take(len(e.Job)))
	}
	if s.flags&hasReason != 0 {
		e.Reason = u.text()
	}
	if s.flags&hasWho != 0 {
		e.Who = u.text()
	}
	if s.flags&hasUntil != 0 {
		e.Until = time.Unix(0, u.time+u.distance()).UTC()
	}
	if s.flags&hasLabels != 0 {
		e.Labels = u.labels()
	}
	return e, !u.bad
}

// shape reads the number of a shape, and the shape if it is a new one.
func (u *unpacker) shape() *shape {
	n := u.uint()
	if n > 0 {
		if n > uint64(len(u.shapes)) {
			u.bad = true
			return nil
		}
		return &u.shapes[n-1]
	}
	head := u.take(6)
	s := shape{event.Shape{
		Kind: event.Kind(head[0]), State: job.State(head[2]), RunState: job.RunState(head[3]),
		Level: job.Level(head[4]), Source: job.Source(head[5]), Run: uint32(u.uint()),
	}, head[1]}
	if u.take(1)[0] != 0 {
		copy(s.Instance[:], u.take(len(s.Instance)))
	}
	for _, name := range [...]*string{&s.Queue, &s.Worker, &s.Limit, &s.Key} {
		*name = u.text()
	}
	u.shapes = append(u.shapes, s)
	return &u.shapes[len(u.shapes)-1]
}

// take returns the next n bytes, at most 16; zeros if there are not so many.
func (u *unpacker) take(n int) []byte {
	if n > len(u.b) {
		u.bad, u.b = true, nil
		return make([]byte, n)
	}
	b := u.b[:n]
	u.b = u.b[n:]
	return b
}

func (u *unpacker) uint() uint64 {
	v, n := protowire.ConsumeVarint(u.b)
	if n < 0 {
		u.bad, u.b = true, nil
		return 0
	}
	u.b = u.b[n:]
	return v
}

func (u *unpacker) distance() int64 { return protowire.DecodeZigZag(u.uint()) }

func (u *unpacker) text() string {
	b, n := protowire.ConsumeBytes(u.b)
	if n < 0 {
		u.bad, u.b = true, nil
		return ""
	}
	u.b = u.b[n:]
	return string(b)
}

func (u *unpacker) labels() []uint64 {
	n := u.uint()
	if n > uint64(len(u.b)/8) {
		u.bad = true
		return nil
	}
	all := make([]uint64, n)
	for i := range all {
		all[i] = binary.BigEndian.Uint64(u.take(8))
	}
	return all
}
