package job

import (
	"cmp"
	"math"
	"slices"
)

// LimitsMax is how many limits a job may name.
const LimitsMax = 8

// LimitUse is what a job takes of one key of a limit while it runs.
type LimitUse struct {
	Limit string
	Key   string
	Units uint32 // never 0
}

// CompareUses orders uses by limit and key. A job's uses are in this order, and no two are of the same key.
func CompareUses(a, b LimitUse) int {
	return cmp.Or(cmp.Compare(a.Limit, b.Limit), cmp.Compare(a.Key, b.Key))
}

// LimitPolicy says how much of a limit's keys may be taken at once.
type LimitPolicy struct {
	Max      uint32    // units of a key; 0: any number
	OnZombie OnZombie  // whether a zombie's units count
	Keys     []KeyMax  // keys with a maximum of their own, by name
	Rate     Rate      // of units of a key
	Rates    []KeyRate // keys with a rate of their own, by name
	Breaker  Breaker   // of each key
}

// KeyMax is the maximum of one key.
type KeyMax struct {
	Key string
	Max uint32
}

// MaxOf is how many units of the key may be taken at once; MaxUint32 is any number.
func (p *LimitPolicy) MaxOf(key string) uint32 {
	if i, ok := slices.BinarySearchFunc(p.Keys, key, func(k KeyMax, key string) int { return cmp.Compare(k.Key, key) }); ok {
		return p.Keys[i].Max
	}
	if p.Max == 0 {
		return unbounded
	}
	return p.Max
}

// Equal reports whether two policies say the same.
func (p *LimitPolicy) Equal(o *LimitPolicy) bool {
	return p.Max == o.Max && p.OnZombie == o.OnZombie && p.Rate == o.Rate && p.Breaker == o.Breaker &&
		slices.Equal(p.Keys, o.Keys) && slices.Equal(p.Rates, o.Rates)
}

// Room is how many more units of the key may be taken while live runs and zombies have so many.
func (p *LimitPolicy) Room(key string, live, zombies uint64) uint64 {
	most := p.MaxOf(key)
	if most == unbounded {
		return math.MaxUint64
	}
	return room(uint64(most), p.OnZombie, live, zombies)
}

// OnZombie says whether a limit counts zombies: runs that were left behind at their hard deadline and may still be at
// work.
type OnZombie uint8

// The ways. The numbers are stored and never reused.
const (
	OnZombieNone    OnZombie = 0 // as Hold
	OnZombieHold    OnZombie = 1 // a zombie takes a place until it is known to be gone
	OnZombieRelease OnZombie = 2 // its place is free at once
)

// Room is how many more runs may begin in a queue that has so many live ones and zombies.
func (p Policy) Room(live, zombies uint64) uint64 {
	if p.MaxRunning == 0 {
		return math.MaxUint64
	}
	return room(uint64(p.MaxRunning), p.OnZombie, live, zombies)
}

func room(most uint64, onZombie OnZombie, live, zombies uint64) uint64 {
	if onZombie != OnZombieRelease {
		live += zombies
	}
	return most - min(live, most)
}
