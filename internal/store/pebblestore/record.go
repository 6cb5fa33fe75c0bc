package pebblestore

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/stintrun/stint/internal/job"
)

// inlineMax is the size up to which payloads and results ride in the job's record.
const inlineMax = 512

// recordVersion is the first byte of every job record.
const recordVersion = 1

// A job record is recordVersion, then fields: the spec in 1, the status in 2, each ended run in 3, the result in 4.
const (
	fieldSpec protowire.Number = iota + 1
	fieldStatus
	fieldHistory
	fieldResult
)

// writeJob writes j's record; queue is the number of its queue.
func writeJob(w *writer, j *job.Job, queue uint32, names names) {
	w.b = append(w.b, recordVersion)
	base := j.SubmitTime.UnixNano()
	w.message(fieldSpec, func(w *writer) { writeSpec(w, j.Spec, queue, base, names) })
	w.message(fieldStatus, func(w *writer) { writeStatus(w, j) })
	for i := range j.History {
		w.message(fieldHistory, func(w *writer) { writeRun(w, &j.History[i], base) })
	}
	if r := j.Result; r != nil {
		w.message(fieldResult, func(w *writer) {
			w.bytes(1, r.Data)
			w.uint(2, uint64(r.Size))
			w.str(3, r.ContentType)
		})
	}
}

// decodeJob reads a record.
func decodeJob(seq uint64, b []byte, names names) (*job.Job, error) {
	if len(b) == 0 || b[0] != recordVersion {
		return nil, fmt.Errorf("job %d: %w", seq, errRecord)
	}
	j := &job.Job{Seq: seq, Spec: &job.Spec{}}
	if err := readStatusOf(j, b[1:]); err != nil {
		return nil, fmt.Errorf("job %d: status: %w", seq, err)
	}
	base := j.SubmitTime.UnixNano()
	r := reader{rest: b[1:]}
	for r.next() {
		switch r.field {
		case fieldSpec:
			if err := readSpec(j.Spec, r.raw, base, names); err != nil {
				return nil, fmt.Errorf("job %d: spec: %w", seq, err)
			}
		case fieldHistory:
			var run job.Run
			if err := readRun(&run, r.raw, base); err != nil {
				return nil, fmt.Errorf("job %d: run: %w", seq, err)
			}
			j.History = append(j.History, run)
		case fieldResult:
			res, err := readResult(r.raw)
			if err != nil {
				return nil, fmt.Errorf("job %d: result: %w", seq, err)
			}
			j.Result = res
		}
	}
	if r.err != nil {
		return nil, fmt.Errorf("job %d: %w", seq, r.err)
	}
	return j, nil
}

// readStatusOf finds the status first: every other time is relative to its submit time.
func readStatusOf(j *job.Job, b []byte) error {
	r := reader{rest: b}
	for r.next() {
		if r.field == fieldStatus {
			return readStatus(j, r.raw)
		}
	}
	return errRecord
}

func readResult(b []byte) (*job.Result, error) {
	res := &job.Result{}
	r := reader{rest: b}
	for r.next() {
		switch r.field {
		case 1:
			res.Data = r.copied()
		case 2:
			res.Size = int(r.v)
		case 3:
			res.ContentType = string(r.raw)
		}
	}
	return res, r.err
}

func writeSpec(w *writer, s *job.Spec, queue uint32, base int64, names names) {
	w.bytes(1, s.ID[:])
	w.uint(2, uint64(queue))
	w.uint(3, uint64(s.Priority))
	w.bytes(4, s.Payload)
	w.uint(5, uint64(s.PayloadSize))
	w.str(6, s.ContentType)
	w.time(7, s.RunAt, base)
	w.time(8, s.StartBy, base)
	w.duration(9, s.Timeout)
	w.duration(10, s.Lease)
	if s.Retry != nil {
		w.message(11, func(w *writer) { writeRetry(w, s.Retry) })
	}
	w.bytes(12, s.Digest[:])
	w.str(13, s.Subject)
	w.str(14, s.Traceparent)
	w.str(15, s.Tracestate)
	for k, v := range s.Labels {
		w.message(16, func(w *writer) { w.str(1, k); w.str(2, v) })
	}
	writeUses(w, 17, s.Limits, names)
	w.str(18, s.FairnessKey)
	if u := s.Unique; u != nil {
		w.message(19, func(w *writer) {
			w.str(1, u.Key)
			w.uint(2, uint64(u.Until))
			w.duration(3, u.TTL)
			w.uint(4, uint64(u.OnConflict))
		})
	}
}

func readSpec(s *job.Spec, b []byte, base int64, names names) error {
	r := reader{rest: b}
	for r.next() {
		switch r.field {
		case 1:
			r.id((*[16]byte)(&s.ID))
		case 2:
			s.Queue = names.queueName(uint32(r.v))
		case 3:
			s.Priority = job.Priority(r.v)
		case 4:
			s.Payload = r.copied()
		case 5:
			s.PayloadSize = int(r.v)
		case 6:
			s.ContentType = string(r.raw)
		case 7:
			s.RunAt = r.time(base)
		case 8:
			s.StartBy = r.time(base)
		case 9:
			s.Timeout = r.duration()
		case 10:
			s.Lease = r.duration()
		case 11:
			s.Retry = &job.RetryPolicy{}
			if err := readRetry(s.Retry, r.raw); err != nil {
				return err
			}
		case 12:
			r.id(&s.Digest)
		case 13:
			s.Subject = string(r.raw)
		case 14:
			s.Traceparent = string(r.raw)
		case 15:
			s.Tracestate = string(r.raw)
		case 16:
			if err := readLabel(s, r.raw); err != nil {
				return err
			}
		case 17:
			u, err := readUse(r.raw, names)
			if err != nil {
				return err
			}
			s.Limits = append(s.Limits, u)
		case 18:
			s.FairnessKey = string(r.raw)
		case 19:
			if err := readUnique(s, r.raw); err != nil {
				return err
			}
		}
	}
	return r.err
}

func readUnique(s *job.Spec, b []byte) error {
	s.Unique = &job.Unique{}
	r := reader{rest: b}
	for r.next() {
		switch r.field {
		case 1:
			s.Unique.Key = string(r.raw)
		case 2:
			s.Unique.Until = job.UniqueUntil(r.v)
		case 3:
			s.Unique.TTL = r.duration()
		case 4:
			s.Unique.OnConflict = job.OnConflict(r.v)
		}
	}
	return r.err
}

func readLabel(s *job.Spec, b []byte) error {
	var k, v string
	r := reader{rest: b}
	for r.next() {
		switch r.field {
		case 1:
			k = string(r.raw)
		case 2:
			v = string(r.raw)
		}
	}
	if s.Labels == nil {
		s.Labels = map[string]string{}
	}
	s.Labels[k] = v
	return r.err
}

func writeRetry(w *writer, p *job.RetryPolicy) {
	w.uint(1, uint64(p.MaxAttempts))
	w.duration(2, p.Initial)
	w.duration(3, p.Max)
	w.float(4, p.Multiplier)
	w.uint(5, uint64(p.OnFailure))
	w.uint(6, uint64(p.Curve))
	w.duration(7, p.Increment)
	w.duration(8, p.Deadline)
	w.duration(9, p.InterruptDelay)
}

func readRetry(p *job.RetryPolicy, b []byte) error {
	r := reader{rest: b}
	for r.next() {
		switch r.field {
		case 1:
			p.MaxAttempts = uint32(r.v)
		case 2:
			p.Initial = r.duration()
		case 3:
			p.Max = r.duration()
		case 4:
			p.Multiplier = r.float()
		case 5:
			p.OnFailure = job.OnFailure(r.v)
		case 6:
			p.Curve = job.Curve(r.v)
		case 7:
			p.Increment = r.duration()
		case 8:
			p.Deadline = r.duration()
		case 9:
			p.InterruptDelay = r.duration()
		}
	}
	return r.err
}

// writeStatus writes everything that changes in a job's life but its history and result. The submit time comes first:
// it is absolute, the others count from it.
func writeStatus(w *writer, j *job.Job) {
	base := j.SubmitTime.UnixNano()
	w.uint(1, uint64(base))
	w.uint(2, uint64(j.State))
	w.uint(3, j.Version)
	w.uint(4, uint64(j.Epoch))
	w.time(5, j.ReadyTime, base)
	w.uint(6, j.ReadySeq)
	w.uint(7, uint64(j.RunCount))
	w.time(8, j.EndTime, base)
	w.time(9, j.DueTime, base)
	w.time(10, j.StartBy, base)
	if j.Run.Number != 0 {
		w.message(11, func(w *writer) { writeRun(w, &j.Run, base) })
	}
	if j.Counters != (job.Counters{}) {
		w.message(12, func(w *writer) { writeCounters(w, &j.Counters) })
	}
	if j.Interrupt != nil {
		w.message(13, func(w *writer) { writeInterrupt(w, j.Interrupt, base) })
	}
	w.uint(14, uint64(j.ParkReason))
	w.str(15, j.ParkBuild)
	if !j.AvoidUntil.IsZero() {
		w.bytes(16, j.Avoid[:])
		w.time(17, j.AvoidUntil, base)
	}
	if j.Failure != nil {
		w.message(18, func(w *writer) { writeFailure(w, j.Failure) })
	}
	w.time(19, j.EpochTime, base)
	for _, build := range j.ReleasedBy {
		w.str(20, build)
	}
	for _, a := range j.Actions {
		w.message(21, func(w *writer) { writeAction(w, a, base) })
	}
	w.flag(22, j.KeyFree)
	if j.Run.Kept != nil {
		w.message(24, func(w *writer) { writeKept(w, j.Run.Kept) })
	}
}

func readStatus(j *job.Job, b []byte) error {
	var base int64
	r := reader{rest: b}
	for r.next() {
		switch r.field {
		case 1:
			base = int64(r.v)
			j.SubmitTime = time.Unix(0, base).UTC()
		case 2:
			j.State = job.State(r.v)
		case 3:
			j.Version = r.v
		case 4:
			j.Epoch = uint32(r.v)
		case 5:
			j.ReadyTime = r.time(base)
		case 6:
			j.ReadySeq = r.v
		case 7:
			j.RunCount = uint32(r.v)
		case 8:
			j.EndTime = r.time(base)
		case 9:
			j.DueTime = r.time(base)
		case 10:
			j.StartBy = r.time(base)
		case 14:
			j.ParkReason = job.ParkReason(r.v)
		case 15:
			j.ParkBuild = string(r.raw)
		case 16:
			r.id((*[16]byte)(&j.Avoid))
		case 17:
			j.AvoidUntil = r.time(base)
		case 19:
			j.EpochTime = r.time(base)
		case 20:
			j.ReleasedBy = append(j.ReleasedBy, string(r.raw))
		case 22:
			j.KeyFree = r.v != 0
		default:
			if err := readStatusPart(j, &r, base); err != nil {
				return err
			}
		}
	}
	return r.err
}

func readStatusPart(j *job.Job, r *reader, base int64) error {
	switch r.field {
	case 11:
		return readRun(&j.Run, r.raw, base)
	case 12:
		return readCounters(&j.Counters, r.raw)
	case 13:
		j.Interrupt = &job.Interrupt{}
		return readInterrupt(j.Interrupt, r.raw, base)
	case 18:
		j.Failure = &job.Failure{}
		return readFailure(j.Failure, r.raw)
	case 21:
		a, err := readAction(r.raw, base)
		j.Actions = append(j.Actions, a)
		return err
	case 24:
		j.Run.Kept = &job.Kept{}
		return readKept(j.Run.Kept, r.raw)
	}
	return nil
}

func writeAction(w *writer, a job.Action, base int64) {
	w.uint(1, uint64(a.Kind))
	w.str(2, a.Reason)
	w.str(3, a.Requester)
	w.time(4, a.Time, base)
	w.str(5, a.Request)
	w.uint(6, uint64(a.Effect))
}

func readAction(b []byte, base int64) (a job.Action, err error) {
	r := reader{rest: b}
	for r.next() {
		switch r.field {
		case 1:
			a.Kind = job.ActionKind(r.v)
		case 2:
			a.Reason = string(r.raw)
		case 3:
			a.Requester = string(r.raw)
		case 4:
			a.Time = r.time(base)
		case 5:
			a.Request = string(r.raw)
		case 6:
			a.Effect = job.InterruptEffect(r.v)
		}
	}
	return a, r.err
}

func writeCounters(w *writer, c *job.Counters) {
	w.uint(1, uint64(c.Attempts))
	w.uint(2, uint64(c.Crashes))
	w.uint(3, uint64(c.Interrupts))
	w.uint(4, uint64(c.Snoozes))
	w.uint(5, uint64(c.Deliveries))
}

func readCounters(c *job.Counters, b []byte) error {
	r := reader{rest: b}
	for r.next() {
		switch r.field {
		case 1:
			c.Attempts = uint32(r.v)
		case 2:
			c.Crashes = uint32(r.v)
		case 3:
			c.Interrupts = uint32(r.v)
		case 4:
			c.Snoozes = uint32(r.v)
		case 5:
			c.Deliveries = uint32(r.v)
		}
	}
	return r.err
}
