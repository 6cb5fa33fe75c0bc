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
	nextLane                      uint64
	born                          []*lane // in a replay only their numbers, and what was read of them
	named                         map[uint32]int64
	steps                         []step
	fronts                        []front
	drops                         []drop
	eventBytes                    int    // of the batch's events
	eventsFrom                    uint64 // the batch that the events begin with now; 0: as before
}

// front says where a lane's front is at the end of a batch.
type front struct {
	lane uint64
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

func (c *commit) write(w *writer, names names) {
	w.uint(1, c.batch)
	w.time(2, c.time, 0)
	w.uint(3, c.nextSeq)
	w.uint(4, c.nextReady)
	w.uint(5, c.nextFence)
	w.uint(9, c.nextLane)
	for _, l := range c.born { // before the steps, which name them
		w.message(10, func(w *writer) { writeLane(w, l, names) })
	}
	if len(c.steps) > 0 {
		w.message(6, func(w *writer) { writeSteps(w, c.steps) })
	}
	for _, f := range c.fronts {
		w.message(7, func(w *writer) {
			w.uint(1, f.lane)
			w.uint(3, f.pos)
		})
	}
	for i := range c.drops {
		w.message(8, c.drops[i].write)
	}
	w.uint(12, uint64(c.eventBytes))
	w.uint(13, c.eventsFrom)
	for limit, by := range c.named {
		w.message(11, func(w *writer) {
			w.uint(1, uint64(limit))
			w.uint(2, protowire.EncodeZigZag(by))
		})
	}
}

// readCommit reads a record; the lanes that it names are among those of the state, or born with it.
func (s *state) readCommit(raw []byte) (*commit, error) {
	c := &commit{named: map[uint32]int64{}}
	lanes := map[uint64]*lane{}
	laneOf := func(number uint64) *lane {
		if l := lanes[number]; l != nil {
			return l
		}
		return s.lanes[number]
	}
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
			c.steps, err = readSteps(r.raw, laneOf)
		case 7:
			var f front
			f, err = readFront(r.raw)
			c.fronts = append(c.fronts, f)
		case 8:
			var d drop
			d, err = readDrop(r.raw)
			c.drops = append(c.drops, d)
		case 9:
			c.nextLane = r.v
		case 10:
			var l *lane
			if l, err = s.readLane(r.raw); err == nil {
				lanes[l.number] = l
				c.born = append(c.born, l)
			}
		case 12:
			c.eventBytes = int(r.v)
		case 13:
			c.eventsFrom = r.v
		case 11:
			err = c.readNamed(r.raw)
		}
		if err != nil {
			return nil, err
		}
	}
	return c, r.err
}

func (c *commit) readNamed(raw []byte) error {
	var limit uint32
	r := reader{rest: raw}
	for r.next() {
		switch r.field {
		case 1:
			limit = uint32(r.v)
		case 2:
			c.named[limit] = protowire.DecodeZigZag(r.v)
		}
	}
	return r.err
}

func readFront(raw []byte) (front, error) {
	var f front
	r := reader{rest: raw}
	for r.next() {
		switch r.field {
		case 1:
			f.lane = r.v
		case 3:
			f.pos = r.v
		}
	}
	return f, r.err
}

// writeSteps packs steps: each number is the distance from the same number of the step before, so a batch of fresh
// jobs takes five bytes a job.
func writeSteps(w *writer, steps []step) {
	var seq, lane, left, entered uint64
	who := holders{}
	delta := func(to, from uint64) { w.b = protowire.AppendVarint(w.b, protowire.EncodeZigZag(int64(to-from))) }
	w.brief = true
	defer func() { w.brief = false }()
	for i := range steps {
		st := &steps[i]
		w.b = append(w.b, byte(st.old)<<4|byte(st.new))
		delta(st.seq, seq)
		seq = st.seq
		w.b = protowire.AppendVarint(w.b, uint64(st.queue))
		if st.old == job.Ready {
			delta(st.from.number, lane)
			lane = st.from.number
			delta(st.oldReady, left)
			left = st.oldReady
		}
		switch st.new {
		case job.Ready:
			delta(st.to.number, lane)
			lane = st.to.number
			delta(st.job.ReadySeq, entered)
			entered = st.job.ReadySeq
		case job.Running:
			w.message(1, func(w *writer) {
				writeStatus(w, st.job)
				who.write(w, &st.job.Run)
			})
		default:
		}
	}
}

// readSteps unpacks steps. Their jobs hold what a replay needs: places of READY jobs, the status of RUNNING ones.
func readSteps(b []byte, laneOf func(uint64) *lane) ([]step, error) {
	var steps []step
	var seq, number, left, entered uint64
	bad := false
	who := holders{}
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
		queue, n := binary.Uvarint(b)
		if n <= 0 || max(int(st.old), int(st.new)) >= job.NumberOfStates {
			return nil, errRecord
		}
		b = b[n:]
		st.seq, st.queue = seq, uint32(queue)
		if st.old == job.Ready {
			number = delta(number)
			left = delta(left)
			st.from, st.oldReady = laneOf(number), left
			bad = bad || st.from == nil
		}
		switch st.new {
		case job.Ready:
			number = delta(number)
			entered = delta(entered)
			st.to, st.job = laneOf(number), &job.Job{Seq: seq, ReadySeq: entered}
			bad = bad || st.to == nil
		case job.Running:
			st.job = &job.Job{Seq: seq}
			var err error
			if b, err = readStep(st.job, b, &who); err != nil {
				return nil, err
			}
		default:
		}
		steps = append(steps, st)
	}
	if bad {
		return nil, errRecord
	}
	return steps, nil
}

// readStep reads the status of a RUNNING job and returns what comes after it.
func readStep(j *job.Job, b []byte, who *holders) ([]byte, error) {
	_, _, n := protowire.ConsumeTag(b)
	if n < 0 {
		return nil, errRecord
	}
	raw, m := protowire.ConsumeBytes(b[n:])
	if m < 0 {
		return nil, errRecord
	}
	if err := readStatus(j, raw); err != nil {
		return nil, err
	}
	return b[n+m:], who.read(raw, &j.Run)
}

// holders are those who have the runs of a record: each is written once, and by its number from then on.
type holders struct {
	known []holder
	index map[holder]int
	last  int // of the one that was written last
}

type holder struct {
	worker, build string
	instance      job.ID
}

func (h *holders) write(w *writer, r *job.Run) {
	who := holder{r.Worker, r.Build, r.Instance}
	if len(h.known) > 0 && h.known[h.last] == who {
		w.uint(30, uint64(h.last)+1)
		return
	}
	if i, ok := h.index[who]; ok {
		h.last = i
		w.uint(30, uint64(i)+1)
		return
	}
	w.message(31, func(w *writer) {
		w.str(1, who.worker)
		w.str(2, who.build)
		w.bytes(3, who.instance[:])
	})
	if h.index == nil {
		h.index = map[holder]int{}
	}
	h.last = len(h.known)
	h.index[who] = h.last
	h.known = append(h.known, who)
}

// read finds in a status who has its run.
func (h *holders) read(status []byte, run *job.Run) error {
	r := reader{rest: status}
	for r.next() {
		switch r.field {
		case 30:
			if r.v == 0 || r.v > uint64(len(h.known)) {
				return errRecord
			}
			h.last = int(r.v) - 1
		case 31:
			var who holder
			m := reader{rest: r.raw}
			for m.next() {
				switch m.field {
				case 1:
					who.worker = string(m.raw)
				case 2:
					who.build = string(m.raw)
				case 3:
					m.id((*[16]byte)(&who.instance))
				}
			}
			if m.err != nil {
				return m.err
			}
			h.last = len(h.known)
			h.known = append(h.known, who)
		default:
			continue
		}
		run.Worker, run.Build, run.Instance = h.known[h.last].worker, h.known[h.last].build, h.known[h.last].instance
	}
	return r.err
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
