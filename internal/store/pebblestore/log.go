package pebblestore

import (
	"encoding/binary"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/stintrun/stint/internal/job"
)

// commit is a commit record: all transitions of one batch. It is the redo log of state: a start reads the last
// snapshot and applies the commits after it.
type commit struct {
	batch                         uint64
	time                          time.Time
	nextSeq, nextReady, nextFence uint64
	steps                         []step
	fronts                        []front
	drops                         []drop
}

// front says where a lane's front is at the end of a batch.
type front struct {
	lane laneID
	pos  uint64
}

// drop says what retention took from a bucket.
type drop struct {
	bucket   uint32
	trim     uint32 // the bucket's chunks that are trimmed
	forgot   bool   // its ids went too
	left     uint32 // all but so many
	horizon  time.Time
	finished map[uint32]*[job.NumberOfStates]uint64 // dropped records by queue and state
}

func (c *commit) append(b []byte) []byte {
	w := writer{b}
	w.uint(1, c.batch)
	w.time(2, c.time, 0)
	w.uint(3, c.nextSeq)
	w.uint(4, c.nextReady)
	w.uint(5, c.nextFence)
	if len(c.steps) > 0 {
		w.message(6, func(w *writer) { w.b = appendSteps(w.b, c.steps) })
	}
	for _, f := range c.fronts {
		w.message(7, func(w *writer) {
			w.uint(1, uint64(f.lane.queue))
			w.uint(2, uint64(f.lane.priority))
			w.uint(3, f.pos)
		})
	}
	for i := range c.drops {
		w.message(8, c.drops[i].write)
	}
	return w.b
}

func readCommit(raw []byte) (*commit, error) {
	c := &commit{}
	r := reader{rest: raw}
	for r.next() {
		var err error
		switch r.field {
		case 1:
			c.batch = r.v
		case 2:
			c.time = r.time(0)
		case 3:
			c.nextSeq = r.v
		case 4:
			c.nextReady = r.v
		case 5:
			c.nextFence = r.v
		case 6:
			c.steps, err = readSteps(r.raw)
		case 7:
			var f front
			f, err = readFront(r.raw)
			c.fronts = append(c.fronts, f)
		case 8:
			var d drop
			d, err = readDrop(r.raw)
			c.drops = append(c.drops, d)
		}
		if err != nil {
			return nil, err
		}
	}
	return c, r.err
}

func readFront(raw []byte) (front, error) {
	var f front
	r := reader{rest: raw}
	for r.next() {
		switch r.field {
		case 1:
			f.lane.queue = uint32(r.v)
		case 2:
			f.lane.priority = job.Priority(r.v)
		case 3:
			f.pos = r.v
		}
	}
	if r.err == nil && !knownBand(f.lane.priority) {
		r.err = errRecord
	}
	return f, r.err
}

// appendSteps packs steps: each number is the distance from the same number of the step before, so a batch of fresh
// jobs takes four bytes a job.
func appendSteps(b []byte, steps []step) []byte {
	var seq, left, entered uint64
	delta := func(to, from uint64) { b = protowire.AppendVarint(b, protowire.EncodeZigZag(int64(to-from))) }
	for i := range steps {
		st := &steps[i]
		b = append(b, byte(st.old)<<4|byte(st.new))
		delta(st.seq, seq)
		seq = st.seq
		b = protowire.AppendVarint(b, uint64(st.queue)*8+uint64(bandIndex(st.priority)))
		if st.old == job.Ready {
			delta(st.oldReady, left)
			left = st.oldReady
		}
		switch st.new {
		case job.Ready:
			delta(st.job.ReadySeq, entered)
			entered = st.job.ReadySeq
		case job.Running:
			w := writer{b}
			w.message(1, func(w *writer) { writeStatus(w, st.job) })
			b = w.b
		default:
		}
	}
	return b
}

// readSteps unpacks steps. Their jobs hold what a replay needs: places of READY jobs, the status of RUNNING ones.
func readSteps(b []byte) ([]step, error) {
	var steps []step
	var seq, left, entered uint64
	bad := false
	delta := func(from uint64) uint64 {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			bad = true
			return from
		}
		b = b[n:]
		return from + uint64(protowire.DecodeZigZag(v))
	}
	for len(b) > 0 && !bad {
		st := step{old: job.State(b[0] >> 4), new: job.State(b[0] & 15)}
		b = b[1:]
		seq = delta(seq)
		lane, n := binary.Uvarint(b)
		if n <= 0 || lane%8 >= uint64(len(bands)) || max(int(st.old), int(st.new)) >= job.NumberOfStates {
			return nil, errRecord
		}
		b = b[n:]
		st.seq, st.queue, st.priority = seq, uint32(lane/8), bands[lane%8]
		if st.old == job.Ready {
			left = delta(left)
			st.oldReady = left
		}
		switch st.new {
		case job.Ready:
			entered = delta(entered)
			st.job = &job.Job{Seq: seq, ReadySeq: entered}
		case job.Running:
			_, _, n := protowire.ConsumeTag(b)
			if n < 0 {
				return nil, errRecord
			}
			raw, m := protowire.ConsumeBytes(b[n:])
			if m < 0 {
				return nil, errRecord
			}
			st.job = &job.Job{Seq: seq}
			if err := readStatus(st.job, raw); err != nil {
				return nil, err
			}
			b = b[n+m:]
		default:
		}
		steps = append(steps, st)
	}
	if bad {
		return nil, errRecord
	}
	return steps, nil
}

func (d *drop) write(w *writer) {
	w.uint(1, uint64(d.bucket))
	w.uint(2, uint64(d.trim))
	w.time(3, d.horizon, 0)
	w.flag(5, d.forgot)
	w.uint(6, uint64(d.left))
	for q, counts := range d.finished {
		for s, n := range counts {
			if n > 0 {
				w.message(4, func(w *writer) {
					w.uint(1, uint64(q))
					w.uint(2, uint64(s))
					w.uint(3, n)
				})
			}
		}
	}
}

func readDrop(raw []byte) (drop, error) {
	d := drop{finished: map[uint32]*[job.NumberOfStates]uint64{}}
	r := reader{rest: raw}
	for r.next() {
		switch r.field {
		case 1:
			d.bucket = uint32(r.v)
		case 2:
			d.trim = uint32(r.v)
		case 3:
			d.horizon = r.time(0)
		case 5:
			d.forgot = r.v != 0
		case 6:
			d.left = uint32(r.v)
		case 4:
			var q, s, n uint64
			c := reader{rest: r.raw}
			for c.next() {
				switch c.field {
				case 1:
					q = c.v
				case 2:
					s = c.v
				case 3:
					n = c.v
				}
			}
			if c.err != nil || s >= uint64(job.NumberOfStates) {
				return d, errRecord
			}
			d.count(uint32(q), job.State(s), n)
		}
	}
	return d, r.err
}

func (d *drop) count(queue uint32, s job.State, n uint64) {
	if d.finished[queue] == nil {
		d.finished[queue] = &[job.NumberOfStates]uint64{}
	}
	d.finished[queue][s] += n
}
