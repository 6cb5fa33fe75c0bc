package pebblestore

import (
	"time"

	"github.com/stintrun/stint/internal/job"
)

func writeRun(w *writer, r *job.Run, base int64) {
	w.uint(1, uint64(r.Number))
	w.uint(2, r.Fence)
	w.uint(3, uint64(r.State))
	if !w.brief {
		w.str(4, r.Worker)
		w.bytes(5, r.Instance[:])
		w.str(6, r.Build)
	}
	w.flag(7, r.Unary)
	w.duration(8, r.Lease)
	w.time(9, r.DispatchTime, base)
	w.time(10, r.AcceptTime, base)
	w.time(11, r.EndTime, base)
	if r.Failure != nil {
		w.message(12, func(w *writer) { writeFailure(w, r.Failure) })
	}
	w.str(13, r.Note)
	w.uint(14, uint64(r.Epoch))
	w.uint(15, uint64(r.Charged))
	w.uint(17, uint64(r.LostContact))
	if r.Interrupt != nil {
		w.message(16, func(w *writer) { writeInterrupt(w, r.Interrupt, base) })
	}
	if t := r.Throttle; t != nil {
		w.message(18, func(w *writer) {
			w.str(1, t.Limit)
			w.str(2, t.Key)
			w.duration(3, t.Cooldown)
		})
	}
}

func readRun(run *job.Run, b []byte, base int64) error {
	r := reader{rest: b}
	for r.next() {
		switch r.field {
		case 1:
			run.Number = uint32(r.v)
		case 2:
			run.Fence = r.v
		case 3:
			run.State = job.RunState(r.v)
		case 4:
			run.Worker = string(r.raw)
		case 5:
			r.id((*[16]byte)(&run.Instance))
		case 6:
			run.Build = string(r.raw)
		case 7:
			run.Unary = r.v != 0
		case 8:
			run.Lease = r.duration()
		case 9:
			run.DispatchTime = r.time(base)
		case 10:
			run.AcceptTime = r.time(base)
		case 11:
			run.EndTime = r.time(base)
		case 12:
			run.Failure = &job.Failure{}
			if err := readFailure(run.Failure, r.raw); err != nil {
				return err
			}
		case 13:
			run.Note = string(r.raw)
		case 14:
			run.Epoch = uint32(r.v)
		case 15:
			run.Charged = job.Counter(r.v)
		case 17:
			run.LostContact = job.LostContact(r.v)
		case 16:
			run.Interrupt = &job.Interrupt{}
			if err := readInterrupt(run.Interrupt, r.raw, base); err != nil {
				return err
			}
		case 18:
			t, err := readThrottle(r.raw)
			if err != nil {
				return err
			}
			run.Throttle = t
		}
	}
	return r.err
}

func readThrottle(b []byte) (*job.Throttle, error) {
	t := &job.Throttle{}
	r := reader{rest: b}
	for r.next() {
		switch r.field {
		case 1:
			t.Limit = string(r.raw)
		case 2:
			t.Key = string(r.raw)
		case 3:
			t.Cooldown = r.duration()
		}
	}
	return t, r.err
}

// writeKept names limits in full: few runs keep anything.
func writeKept(w *writer, k *job.Kept) {
	w.duration(1, k.Timeout)
	for _, u := range k.Limits {
		w.message(2, func(w *writer) {
			w.str(1, u.Limit)
			w.str(2, u.Key)
			w.uint(3, uint64(u.Units))
		})
	}
}

func readKept(k *job.Kept, b []byte) error {
	r := reader{rest: b}
	for r.next() {
		switch r.field {
		case 1:
			k.Timeout = r.duration()
		case 2:
			var u job.LimitUse
			m := reader{rest: r.raw}
			for m.next() {
				switch m.field {
				case 1:
					u.Limit = string(m.raw)
				case 2:
					u.Key = string(m.raw)
				case 3:
					u.Units = uint32(m.v)
				}
			}
			if m.err != nil {
				return m.err
			}
			k.Limits = append(k.Limits, u)
		}
	}
	return r.err
}

func writeInterrupt(w *writer, i *job.Interrupt, base int64) {
	w.uint(1, uint64(i.Level))
	w.uint(2, uint64(i.Generation))
	w.uint(3, uint64(i.Source))
	w.str(4, i.Reason)
	w.str(5, i.Requester)
	w.time(6, i.RequestTime, base)
	w.flag(7, i.Park)
	w.time(8, i.GraceTime, base)
	w.time(9, i.HardTime, base)
	w.time(10, i.DeliverTime, base)
	w.time(11, i.AckTime, base)
	w.uint(12, uint64(i.End))
	w.time(13, i.EndTime, base)
}

func readInterrupt(i *job.Interrupt, b []byte, base int64) error {
	r := reader{rest: b}
	for r.next() {
		switch r.field {
		case 1:
			i.Level = job.Level(r.v)
		case 2:
			i.Generation = uint32(r.v)
		case 3:
			i.Source = job.Source(r.v)
		case 4:
			i.Reason = string(r.raw)
		case 5:
			i.Requester = string(r.raw)
		case 6:
			i.RequestTime = r.time(base)
		case 7:
			i.Park = r.v != 0
		case 8:
			i.GraceTime = r.time(base)
		case 9:
			i.HardTime = r.time(base)
		case 10:
			i.DeliverTime = r.time(base)
		case 11:
			i.AckTime = r.time(base)
		case 12:
			i.End = job.InterruptEnd(r.v)
		case 13:
			i.EndTime = r.time(base)
		}
	}
	return r.err
}

func writeFailure(w *writer, f *job.Failure) {
	w.uint(1, uint64(f.Class))
	w.str(2, f.Type)
	w.str(3, f.Message)
	for i := range f.Stack {
		w.message(4, func(w *writer) {
			w.str(1, f.Stack[i].Function)
			w.str(2, f.Stack[i].File)
			w.uint(3, uint64(f.Stack[i].Line))
		})
	}
	for i := range f.Causes {
		w.message(5, func(w *writer) { w.str(1, f.Causes[i].Type); w.str(2, f.Causes[i].Message) })
	}
	w.flag(6, f.Final)
	w.flag(7, f.Park)
	if f.RetryDelay != nil {
		w.message(8, func(w *writer) { w.duration(1, *f.RetryDelay) })
	}
	if p := f.Process; p != nil {
		w.message(9, func(w *writer) {
			w.duration(1, time.Duration(p.Code))
			w.str(2, p.Signal)
			w.str(3, p.StderrTail)
		})
	}
}

func readFailure(f *job.Failure, b []byte) error {
	r := reader{rest: b}
	for r.next() {
		switch r.field {
		case 1:
			f.Class = job.Class(r.v)
		case 2:
			f.Type = string(r.raw)
		case 3:
			f.Message = string(r.raw)
		case 6:
			f.Final = r.v != 0
		case 7:
			f.Park = r.v != 0
		default:
			if err := readFailurePart(f, &r); err != nil {
				return err
			}
		}
	}
	return r.err
}

// readFailurePart reads the parts that are records of their own.
func readFailurePart(f *job.Failure, in *reader) error {
	field := in.field
	var frame job.Frame
	var cause job.Cause
	var exit job.ProcessExit
	var delay time.Duration
	r := reader{rest: in.raw}
	for r.next() {
		switch r.field {
		case 1:
			frame.Function, cause.Type = string(r.raw), string(r.raw)
			delay = r.duration()
			exit.Code = int32(delay)
		case 2:
			frame.File, cause.Message, exit.Signal = string(r.raw), string(r.raw), string(r.raw)
		case 3:
			frame.Line, exit.StderrTail = uint32(r.v), string(r.raw)
		}
	}
	switch field {
	case 4:
		f.Stack = append(f.Stack, frame)
	case 5:
		f.Causes = append(f.Causes, cause)
	case 8:
		f.RetryDelay = &delay
	case 9:
		f.Process = &exit
	}
	return r.err
}
