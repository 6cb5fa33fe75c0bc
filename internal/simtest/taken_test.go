package simtest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// What jobs of a simulation take: a unit or two of one of a few keys, and sometimes one of another limit.
const (
	simLimit, simOther = "sim/limit", "sim/other"
	simMost            = 3 // of each key
	simKeys            = 4
)

// limit makes the limits.
func (s *sim) limit() {
	l := s.connect()
	defer l.close()
	policies := []*stintv1.LimitPolicy{
		{MaxUnits: simMost},
		{MaxUnits: simMost, Rate: &stintv1.Rate{Permits: 20}, CircuitBreaker: &stintv1.CircuitBreaker{Failures: 3, RetryIn: durationpb.New(2 * time.Second)}},
	}
	for i, name := range []string{simLimit, simOther} {
		_, err := l.Queues().PutLimit(context.Background(), &stintv1.PutLimitRequest{Name: name, Policy: policies[i]})
		if err != nil {
			s.t.Fatal(err)
		}
	}
}

func simUses(d *dice) []*stintv1.LimitUse {
	uses := []*stintv1.LimitUse{{Name: simLimit, Key: fmt.Sprint(d.n(simKeys)), Units: uint32(1 + d.n(2))}} //nolint:gosec // 1 or 2
	if d.chance(30) {
		uses = append(uses, &stintv1.LimitUse{Name: simOther})
	}
	return uses
}

// withinLimits sees by the server's record of all runs that no key was ever taken beyond its maximum.
func (s *sim) withinLimits(jobs []*stintv1.Job) {
	type event struct {
		at    time.Time
		units int
	}
	byKey := map[string][]event{}
	s.witness.mu.Lock()
	defer s.witness.mu.Unlock()
	for _, j := range jobs {
		if s.witness.life(j.GetId()).retaken {
			continue // what each run took is not told; a start of the server compares it with what is counted
		}
		for _, u := range j.GetLimits() {
			key := u.GetName() + " " + u.GetKey()
			for _, h := range j.GetHistory() {
				if strings.HasPrefix(h.GetNote(), "came late") {
					continue // it was lost before, when its history no longer tells
				}
				byKey[key] = append(byKey[key], event{h.GetDispatchTime().AsTime(), int(u.GetUnits())}, event{h.GetEndTime().AsTime(), -int(u.GetUnits())})
			}
		}
	}
	for key, events := range byKey {
		slices.SortFunc(events, func(a, b event) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.units, b.units)) })
		taken := 0
		for _, e := range events {
			if taken += e.units; taken > simMost && e.units > 0 {
				s.witness.blame("%d units of %s were taken at %s, of %d", taken, key, e.at, simMost)
			}
		}
	}
}

// unused sees that nothing is taken in the end, and no job counted, once the last zombie's lease is over.
func (s *sim) unused() {
	time.Sleep(2*s.lease[1] + time.Minute)
	l := s.connect()
	defer l.close()
	for _, name := range []string{simLimit, simOther} {
		usage, err := l.Queues().GetLimitUsage(context.Background(), &stintv1.GetLimitUsageRequest{Name: name})
		if err != nil || len(usage.GetKeys()) > 0 || usage.GetLimit().GetJobs() > 0 {
			s.witness.fault("in the end of limit %s: %v, %v", name, usage, err)
		}
	}
}
