package server

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/dispatch"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// Bounds of limits.
const (
	limitKeyMax  = 200  // bytes of a key
	keyMaximaMax = 1000 // keys of a limit with a maximum of their own
	holdersMax   = 20   // runs shown of each key
)

// PutLimit sets a limit. Setting what is set already changes nothing, the etag included.
func (s *Server) PutLimit(ctx context.Context, m *stintv1.PutLimitRequest) (*stintv1.PutLimitResponse, error) {
	if err := checkPutLimit(m); err != nil {
		return nil, err
	}
	policy := limitPolicyFrom(m.GetPolicy())
	answer := &stintv1.PutLimitResponse{}
	err := s.store.Update(ctx, func(tx store.Tx) error {
		l := tx.Limit(m.GetName())
		if m.GetEtag() != "" && (l == nil || m.GetEtag() != limitEtag(l)) {
			return errLimitEtag
		}
		if l == nil || !l.Policy.Equal(&policy) {
			next := store.Limit{Name: m.GetName(), CreateTime: tx.Now()}
			if l != nil {
				next = *l
			}
			next.Policy = policy
			if err := tx.PutLimit(&next); err != nil {
				return err
			}
			l = tx.Limit(m.GetName())
		}
		answer.Limit = wireLimit(l)
		return nil
	})
	s.dispatch.WakeLimit(m.GetName()) // also if the caller has gone: what was written lasts
	return answer, err
}

// ListLimits lists limits by name; the position of a page is the name it starts with.
func (s *Server) ListLimits(ctx context.Context, m *stintv1.ListLimitsRequest) (*stintv1.ListLimitsResponse, error) {
	query := &stintv1.ListLimitsRequest{}
	position, err := s.tokens.open(query, m.GetPageToken())
	if err != nil {
		return nil, err
	}
	page := &stintv1.ListLimitsResponse{}
	next := ""
	err = s.store.View(ctx, func(r store.Reader) error {
		page.AsOf = s.asOf(r)
		size := clampPageSize(m.GetPageSize())
		r.Limits(string(position), func(l *store.Limit) bool {
			if len(page.Limits) == size {
				next = l.Name
				return false
			}
			page.Limits = append(page.Limits, wireLimit(l))
			return true
		})
		return nil
	})
	if err != nil || next == "" {
		return page, err
	}
	page.NextPageToken, err = s.tokens.seal(query, []byte(next))
	return page, err
}

// DeleteLimit deletes a limit that no unfinished job names, or any if it is forced.
func (s *Server) DeleteLimit(ctx context.Context, m *stintv1.DeleteLimitRequest) (*stintv1.DeleteLimitResponse, error) {
	if err := checkName("name", "limit", m.GetName()); err != nil {
		return nil, err
	}
	err := s.store.Update(ctx, func(tx store.Tx) error {
		l := tx.Limit(m.GetName())
		switch {
		case l == nil:
			return errLimitNotFound
		case m.GetEtag() != "" && m.GetEtag() != limitEtag(l):
			return errLimitEtag
		case l.Jobs > 0 && !m.GetForce():
			return limitInUse(l.Jobs)
		}
		return tx.DeleteLimit(l.Name)
	})
	s.dispatch.WakeLimit(m.GetName())
	return &stintv1.DeleteLimitResponse{}, err
}

// GetLimitUsage shows a page of a limit's keys; the position of a page is the key it starts with.
func (s *Server) GetLimitUsage(ctx context.Context, m *stintv1.GetLimitUsageRequest) (*stintv1.GetLimitUsageResponse, error) {
	if err := checkName("name", "limit", m.GetName()); err != nil {
		return nil, err
	}
	if err := checkText("key", m.GetKey(), limitKeyMax); err != nil {
		return nil, err
	}
	query := &stintv1.GetLimitUsageRequest{Name: m.GetName(), Key: m.Key}
	position, err := s.tokens.open(query, m.GetPageToken())
	if err != nil {
		return nil, err
	}
	u := usagePage{gate: s.dispatch.Gate, limit: m.GetName(), size: clampPageSize(m.GetPageSize()), from: string(position), only: m.Key}
	err = s.store.View(ctx, func(r store.Reader) error {
		u.answer.AsOf = s.asOf(r)
		return u.read(r)
	})
	if err != nil || u.next == nil {
		return &u.answer, err
	}
	u.answer.NextPageToken, err = s.tokens.seal(query, []byte(*u.next))
	return &u.answer, err
}

// usagePage is a page of a limit's keys in the making.
type usagePage struct {
	gate   func(store.GateName, job.Rate, uint32) dispatch.GateState
	now    time.Time
	limit  string
	from   string
	only   *string // nil: all keys
	size   int
	keys   map[string]*stintv1.KeyUsage
	answer stintv1.GetLimitUsageResponse
	next   *string // nil: it is the last page
}

func (p *usagePage) read(r store.Reader) error {
	l := r.Limit(p.limit)
	if l == nil {
		return errLimitNotFound
	}
	p.answer.Limit, p.now = wireLimit(l), r.Now()
	p.keys = map[string]*stintv1.KeyUsage{}
	if p.only != nil {
		p.add(l, r.Key(l.Name, *p.only))
	} else {
		keys := r.Keys(l.Name, p.from, p.size+1)
		if len(keys) > p.size {
			p.next = &keys[p.size].Name
			keys = keys[:p.size]
		}
		for _, k := range keys {
			p.add(l, k)
		}
	}
	p.hold(r)
	return nil
}

// wireMax is a maximum; 0 if there is none.
func wireMax(most uint32) uint32 {
	if most == math.MaxUint32 {
		return 0
	}
	return most
}

func (p *usagePage) add(l *store.Limit, k store.KeyUsage) {
	u := &stintv1.KeyUsage{
		Key: k.Name, MaxUnits: wireMax(l.Policy.MaxOf(k.Name)), LiveUnits: k.Live, ZombieUnits: k.Zombies, WaitingJobs: k.Waiting,
	}
	u.Gate = wireGate(p.gate(store.GateName{Limit: l.Name, Name: k.Name}, l.Policy.RateOf(k.Name), 1), p.now)
	p.keys[k.Name] = u
	p.answer.Keys = append(p.answer.Keys, u)
}

// hold tells who has the units of the page's keys, the runs that began first before the others.
func (p *usagePage) hold(r store.Reader) {
	var zombies []*store.Zombie
	var seqs []uint64
	r.Zombies(func(z *store.Zombie) bool {
		if slices.ContainsFunc(z.Limits, func(u job.LimitUse) bool { return u.Limit == p.limit && p.keys[u.Key] != nil }) {
			zombies, seqs = append(zombies, z), append(seqs, z.Seq)
		}
		return len(seqs) < itemsMax
	})
	jobs, err := r.Load(seqs)
	for i, z := range zombies {
		h := &stintv1.LimitHolder{
			Queue: z.Queue, Worker: z.Worker, InstanceId: z.Instance.String(), Since: wireTime(z.Time), Zombie: true,
		}
		if err == nil && jobs[i] != nil { // its job may be gone
			h.JobId = jobs[i].Spec.ID.String()
		}
		p.holder(z.Limits, h)
	}
	r.Running(func(j *job.Job) bool {
		if len(j.Taken()) > 0 {
			p.holder(j.Taken(), &stintv1.LimitHolder{
				JobId: j.Spec.ID.String(), Queue: j.Spec.Queue, Worker: j.Run.Worker, InstanceId: j.Run.Instance.String(),
				Since: wireTime(j.Run.DispatchTime),
			})
		}
		return true
	})
}

func (p *usagePage) holder(uses []job.LimitUse, h *stintv1.LimitHolder) {
	for _, u := range uses {
		if k := p.keys[u.Key]; u.Limit == p.limit && k != nil && len(k.Holders) < holdersMax {
			k.Holders = append(k.Holders, &stintv1.LimitHolder{
				JobId: h.JobId, Queue: h.Queue, Worker: h.Worker, InstanceId: h.InstanceId, Units: u.Units, Since: h.Since, Zombie: h.Zombie,
			})
		}
	}
}

// checkUses says what is wrong with what a job takes, as far as that is to be seen without the limits.
func checkUses(uses []*stintv1.LimitUse) error {
	if len(uses) > job.LimitsMax {
		return invalid("limits", "at most %d; these are %d", job.LimitsMax, len(uses))
	}
	for i, u := range uses {
		// What a good job's fields are called is not worth its price.
		if checkName("", "limit", u.GetName()) != nil {
			return checkName(fmt.Sprintf("limits[%d].name", i), "limit", u.GetName())
		}
		if checkText("", u.GetKey(), limitKeyMax) != nil {
			return checkText(fmt.Sprintf("limits[%d].key", i), u.GetKey(), limitKeyMax)
		}
		for _, other := range uses[:i] {
			if other.GetName() == u.GetName() && other.GetKey() == u.GetKey() {
				return invalid(fmt.Sprintf("limits[%d]", i), "key %q of limit %q is named twice", clip(u.GetKey()), u.GetName())
			}
		}
	}
	return nil
}

// usesFrom is what a job takes, in the order in which jobs keep it.
func usesFrom(uses []*stintv1.LimitUse) []job.LimitUse {
	if len(uses) == 0 {
		return nil
	}
	all := make([]job.LimitUse, len(uses))
	for i, u := range uses {
		all[i] = job.LimitUse{Limit: u.GetName(), Key: u.GetKey(), Units: max(u.GetUnits(), 1)}
	}
	slices.SortFunc(all, job.CompareUses)
	return all
}

func wireUses(uses []job.LimitUse) []*stintv1.LimitUse {
	if len(uses) == 0 {
		return nil
	}
	all := make([]*stintv1.LimitUse, len(uses))
	for i, u := range uses {
		all[i] = &stintv1.LimitUse{Name: u.Limit, Key: u.Key, Units: u.Units}
	}
	return all
}

// refuseUses says why a new or updated job cannot take what it asks for; false if it can.
func refuseUses(r store.Reader, uses []job.LimitUse) (refused result, is bool) {
	for _, u := range uses {
		l := r.Limit(u.Limit)
		if l == nil {
			return result{err: &refusal{
				code: codes.NotFound, reason: stintv1.Reason_REASON_LIMIT_NOT_FOUND, field: "limits",
				message: fmt.Sprintf("no limit has the name %q", u.Limit),
			}}, true
		}
		if most := l.Policy.UnitsMax(u.Key); u.Units > most {
			return result{err: &refusal{
				code: codes.FailedPrecondition, reason: stintv1.Reason_REASON_UNITS_OVER_LIMIT, field: "limits",
				message: fmt.Sprintf("it takes %s of key %q of limit %q, of which at most %d are there at once: it could never run", many(uint64(u.Units), "unit"), clip(u.Key), u.Limit, most),
			}}, true
		}
	}
	return result{}, false
}

// limitInUse refuses to delete a limit that so many unfinished jobs name.
func limitInUse(jobs uint64) *refusal {
	return &refusal{
		code: codes.FailedPrecondition, reason: stintv1.Reason_REASON_LIMIT_IN_USE,
		message: fmt.Sprintf("the limit is named by %s not finished; force deletes it all the same", many(jobs, "job")),
	}
}

func checkPutLimit(m *stintv1.PutLimitRequest) error {
	if err := checkName("name", "limit", m.GetName()); err != nil {
		return err
	}
	p := m.GetPolicy()
	if p.GetMaxUnits() == 0 && len(p.GetMaxUnitsOf()) == 0 && p.GetRate() == nil && len(p.GetRateOf()) == 0 && p.GetCircuitBreaker() == nil {
		return invalid("policy.max_units", "must be 1 to %d, unless there is a rate or a circuit breaker", uint32(math.MaxUint32))
	}
	if err := checkRate("policy.rate", p.GetRate()); err != nil {
		return err
	}
	if err := checkBreaker("policy.circuit_breaker", p.GetCircuitBreaker()); err != nil {
		return err
	}
	if err := checkKeyRates(p.GetRateOf()); err != nil {
		return err
	}
	if _, known := stintv1.OnZombie_name[int32(p.GetOnZombie())]; !known {
		return invalid("policy.on_zombie", "must be HOLD or RELEASE, or absent")
	}
	if n := len(p.GetMaxUnitsOf()); n > keyMaximaMax {
		return invalid("policy.max_units_of", "at most %d keys; these are %d", keyMaximaMax, n)
	}
	for key, most := range p.GetMaxUnitsOf() {
		if err := checkText("policy.max_units_of", key, limitKeyMax); err != nil {
			return err
		}
		if most == 0 {
			return invalid("policy.max_units_of", "of %q: must be 1 to %d", clip(key), uint32(math.MaxUint32))
		}
	}
	return nil
}

func checkKeyRates(rates map[string]*stintv1.Rate) error {
	if n := len(rates); n > keyMaximaMax {
		return invalid("policy.rate_of", "at most %d keys; these are %d", keyMaximaMax, n)
	}
	for key, rate := range rates {
		if err := checkText("policy.rate_of", key, limitKeyMax); err != nil {
			return err
		}
		if rate == nil {
			rate = &stintv1.Rate{} // as it is on the wire
		}
		if err := checkRate("policy.rate_of", rate); err != nil {
			return err
		}
	}
	return nil
}

func limitPolicyFrom(p *stintv1.LimitPolicy) job.LimitPolicy {
	policy := job.LimitPolicy{
		Max: p.GetMaxUnits(), OnZombie: job.OnZombie(p.GetOnZombie()), Rate: rateFrom(p.GetRate()), Breaker: breakerFrom(p.GetCircuitBreaker()),
	}
	for _, key := range slices.SortedFunc(maps.Keys(p.GetRateOf()), cmp.Compare[string]) {
		policy.Rates = append(policy.Rates, job.KeyRate{Key: key, Rate: rateFrom(p.GetRateOf()[key])})
	}
	for _, key := range slices.SortedFunc(maps.Keys(p.GetMaxUnitsOf()), cmp.Compare[string]) {
		policy.Keys = append(policy.Keys, job.KeyMax{Key: key, Max: p.GetMaxUnitsOf()[key]})
	}
	return policy
}

func wireLimit(l *store.Limit) *stintv1.Limit {
	m := &stintv1.Limit{
		Name: l.Name,
		Policy: &stintv1.LimitPolicy{
			MaxUnits: l.Policy.Max, OnZombie: stintv1.OnZombie(l.Policy.OnZombie), Rate: wireRate(l.Policy.Rate), CircuitBreaker: wireBreaker(l.Policy.Breaker),
		},
		Jobs:       l.Jobs,
		CreateTime: wireTime(l.CreateTime),
		Etag:       limitEtag(l),
	}
	for _, k := range l.Policy.Rates {
		if m.Policy.RateOf == nil {
			m.Policy.RateOf = map[string]*stintv1.Rate{}
		}
		m.Policy.RateOf[k.Key] = wireRate(k.Rate)
	}
	for _, k := range l.Policy.Keys {
		if m.Policy.MaxUnitsOf == nil {
			m.Policy.MaxUnitsOf = map[string]uint32{}
		}
		m.Policy.MaxUnitsOf[k.Key] = k.Max
	}
	return m
}

// limitEtag changes whenever the limit's settings do: versions go on when it is deleted and made again.
func limitEtag(l *store.Limit) string { return strconv.FormatUint(l.Version, 36) }
