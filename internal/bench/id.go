package bench

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"
)

// ids makes the ids of one set of jobs: UUIDv7 whose last 48 bits are the job's number in the set, so that they ascend
// and that the number can be read back from the id.
type ids struct {
	set string // version, variant and randomness: the middle of every id
}

const (
	idLen       = 36
	idSetFrom   = 14
	idSetTo     = 23
	idNumberPos = 24
)

func newIDs() ids {
	return ids{set: fmt.Sprintf("7%03x-%04x", rand.IntN(1<<12), 0x8000|rand.IntN(1<<14))}
}

// append appends the id of a job made at the given time.
func (s ids) append(to []byte, at time.Time, job int) []byte {
	ms := uint64(at.UnixMilli())
	to = appendHex(to, ms>>16, 8)
	to = append(to, '-')
	to = appendHex(to, ms, 4)
	to = append(to, '-')
	to = append(to, s.set...)
	to = append(to, '-')
	return appendHex(to, uint64(job), 12)
}

func appendHex(to []byte, value uint64, digits int) []byte {
	for shift := 4 * (digits - 1); shift >= 0; shift -= 4 {
		to = append(to, "0123456789abcdef"[value>>shift&15])
	}
	return to
}

// number is the number of the job with the id.
func (s ids) number(id string) (int, error) {
	if len(id) != idLen || id[idSetFrom:idSetTo] != s.set {
		return 0, fmt.Errorf("id %q is none of this run's", id)
	}
	n, err := strconv.ParseUint(id[idNumberPos:], 16, 48)
	if err != nil {
		return 0, fmt.Errorf("id %q is none of this run's", id)
	}
	return int(n), nil
}
