package job

import (
	"math"
	"testing"
)

func TestRoom(t *testing.T) {
	for _, c := range []struct {
		max           uint32
		onZombie      OnZombie
		live, zombies uint64
		want          uint64
	}{
		{0, 0, 7, 7, math.MaxUint64},
		{3, 0, 0, 0, 3},
		{3, 0, 2, 0, 1},
		{3, 0, 1, 1, 1},
		{3, OnZombieHold, 1, 2, 0},
		{3, OnZombieHold, 9, 9, 0},
		{3, OnZombieRelease, 1, 2, 2},
		{3, OnZombieRelease, 4, 0, 0},
		{math.MaxUint32, 0, 1, 0, math.MaxUint32 - 1},
	} {
		p := Policy{MaxRunning: c.max, OnZombie: c.onZombie}
		if got := p.Room(c.live, c.zombies); got != c.want {
			t.Errorf("max %d, on zombie %d: room beside %d live runs and %d zombies is %d, want %d",
				c.max, c.onZombie, c.live, c.zombies, got, c.want)
		}
	}
}
