package pebblestore

import (
	"encoding/binary"
	"maps"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// Gates that are not open are few: each is a record of its own, and all of them are in memory too.

func (v view) Gates(fn func(store.Gate)) {
	s := v.s.state
	s.mu.RLock()
	all := maps.Clone(s.gates)
	s.mu.RUnlock()
	for _, g := range all {
		fn(g)
	}
}

func (t *tx) Gates(fn func(store.Gate)) {
	all := maps.Clone(t.s.state.gates)
	for _, g := range t.gates {
		if all[g.Of] = g; g.Open() {
			delete(all, g.Of)
		}
	}
	for _, g := range all {
		fn(g)
	}
}

func (t *tx) PutGate(g store.Gate) {
	if g.Of.Limit != "" && t.limitOf(g.Of.Limit) == nil && t.s.state.limits[g.Of.Limit] == nil ||
		g.Of.Limit == "" && t.queueOf(g.Of.Name) == nil && t.s.state.queues[g.Of.Name] == nil {
		return
	}
	t.gates = append(t.gates, g)
}

// putGate makes g what is known of its gate.
func (s *state) putGate(g store.Gate) {
	if g.Open() {
		delete(s.gates, g.Of)
	} else {
		s.gates[g.Of] = g
	}
}

func queueGateKey(number uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{kindGate, 'Q'}, number)
}

// gateKey is where a gate's record is.
func (s *state) gateKey(of store.GateName) []byte {
	if of.Limit == "" {
		return queueGateKey(s.queues[of.Name].number)
	}
	return append(binary.BigEndian.AppendUint32([]byte{kindGate, 'L'}, s.limits[of.Limit].number), of.Name...)
}

// writeGate adds the gate to the engine's batch.
func (s *Store) writeGate(g store.Gate) {
	key := s.state.gateKey(g.Of)
	if g.Open() {
		s.delete(key)
		return
	}
	w := writer{}
	w.time(1, g.ThrottledUntil, 0)
	w.str(2, g.ThrottleReason)
	if g.ThrottledBy != (job.ID{}) {
		w.bytes(3, g.ThrottledBy[:])
	}
	w.time(4, g.TripTime, 0)
	w.time(5, g.TryTime, 0)
	w.uint(6, uint64(g.Failures))
	w.str(7, g.Failure)
	s.set(key, w.b)
}

func (s *Store) readGates() error {
	return s.scan(kindGate, func(key, value []byte) error {
		g, err := readGate(value)
		if err != nil {
			return err
		}
		if len(key) < 6 {
			return errRecord
		}
		number := binary.BigEndian.Uint32(key[2:6])
		if key[1] == 'Q' {
			g.Of.Name = s.state.queueName(number)
		} else {
			g.Of = store.GateName{Limit: s.state.limitName(number), Name: string(key[6:])}
		}
		if g.Of == (store.GateName{}) {
			return errRecord
		}
		s.state.putGate(g)
		return nil
	})
}

func readGate(b []byte) (g store.Gate, err error) {
	r := reader{rest: b}
	for r.next() {
		switch r.field {
		case 1:
			g.ThrottledUntil = r.time(0)
		case 2:
			g.ThrottleReason = string(r.raw)
		case 3:
			r.id((*[16]byte)(&g.ThrottledBy))
		case 4:
			g.TripTime = r.time(0)
		case 5:
			g.TryTime = r.time(0)
		case 6:
			g.Failures = uint32(r.v)
		case 7:
			g.Failure = string(r.raw)
		}
	}
	return g, r.err
}

// The parts of policies that gates go by.

func writeRate(w *writer, r job.Rate) {
	w.uint(1, uint64(r.Permits))
	w.duration(2, r.Period)
	w.uint(3, uint64(r.Burst))
}

func readRate(b []byte) (rate job.Rate, err error) {
	r := reader{rest: b}
	for r.next() {
		switch r.field {
		case 1:
			rate.Permits = uint32(r.v)
		case 2:
			rate.Period = r.duration()
		case 3:
			rate.Burst = uint32(r.v)
		}
	}
	if r.err == nil && rate.Permits > 0 && rate.Period <= 0 {
		r.err = errRecord
	}
	return rate, r.err
}

func writeBreaker(w *writer, b job.Breaker) {
	w.uint(1, uint64(b.Failures))
	w.duration(2, b.RetryIn)
}

func readBreaker(b []byte) (breaker job.Breaker, err error) {
	r := reader{rest: b}
	for r.next() {
		switch r.field {
		case 1:
			breaker.Failures = uint32(r.v)
		case 2:
			breaker.RetryIn = r.duration()
		}
	}
	return breaker, r.err
}

// readGating reads a rate or a breaker, if the field is theirs.
func readGating(rate *job.Rate, breaker *job.Breaker, r *reader, rateField, breakerField protowire.Number) (err error) {
	switch r.field {
	case rateField:
		*rate, err = readRate(r.raw)
	case breakerField:
		*breaker, err = readBreaker(r.raw)
	}
	return err
}
