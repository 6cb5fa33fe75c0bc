package job

import "math"

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
	if p.OnZombie != OnZombieRelease {
		live += zombies
	}
	return uint64(p.MaxRunning) - min(live, uint64(p.MaxRunning))
}
