// Package bounds has one of everything that a page of bounds has to tell, and of what it must leave out.
package bounds

import (
	"math"
	"net/http"
	"time"
)

// Times of a visit.
const (
	// Patience is how long
	// a visitor waits.
	Patience  = 2 * time.Minute
	longVisit = 3 * Patience // a visit of this length is long
	season    = 90 * 24 * time.Hour
)

// roomsMax bounds the rooms.
const roomsMax = http.StatusTeapot + 4<<10 - 418

const share, ratio = 0.25, 1 | 2

// pageMax is a variable only for tests. It may be small.
var pageMax = 1_000_000

// A page leaves these out: an enum, texts, letters, what stands for none, what is not constant, a setting.
type colour int

const (
	red    colour = iota + 1
	name          = "bounds"
	letter        = 'b'
	never         = math.MaxInt64
)

var (
	now  = time.Now()
	size int
)

// Visit is how a visit goes.
type Visit struct {
	Name   string
	Length time.Duration // 0 means an hour
	// Guests is how many come; 0 means two.
	Guests int
}
