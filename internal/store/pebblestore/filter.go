package pebblestore

import (
	"encoding/binary"
	"math/bits"

	"github.com/stintrun/stint/internal/job"
)

// filter is a blocked Bloom filter over ids (Putze, Sanders, Singler: "Cache-, hash- and space-efficient Bloom
// filters", 2007): all bits of an id lie in one cache line, so a test costs one miss. At filterBits bits an id it lets
// about one id in a hundred through wrongly; such a one pays a lookup and nothing else.
type filter struct{ blocks [][filterWords]uint64 }

const (
	filterWords  = 8  // 64 bytes: a cache line
	filterBits   = 12 // per id
	filterProbes = 6
)

func newFilter(ids int) *filter {
	n := (ids*filterBits + 64*filterWords - 1) / (64 * filterWords)
	return &filter{blocks: make([][filterWords]uint64, max(n, 1))}
}

// spread turns an id into a block and the bits in it.
func (f *filter) spread(id job.ID) (block int, h uint64) {
	a, b := binary.LittleEndian.Uint64(id[:8]), binary.LittleEndian.Uint64(id[8:])
	hi, lo := bits.Mul64(a^0x9e3779b97f4a7c15, b^0xd1b54a32d192ed03)
	h = hi ^ lo
	h2, _ := bits.Mul64(h*0xbf58476d1ce4e5b9, uint64(len(f.blocks)))
	return int(h2), h * 0x94d049bb133111eb
}

func (f *filter) add(id job.ID) {
	block, h := f.spread(id)
	for range filterProbes {
		f.blocks[block][h>>61] |= 1 << (h >> 55 & 63)
		h = bits.RotateLeft64(h, 9)
	}
}

func (f *filter) has(id job.ID) bool {
	block, h := f.spread(id)
	for range filterProbes {
		if f.blocks[block][h>>61]&(1<<(h>>55&63)) == 0 {
			return false
		}
		h = bits.RotateLeft64(h, 9)
	}
	return true
}

func (f *filter) append(b []byte) []byte {
	for i := range f.blocks {
		for _, w := range f.blocks[i] {
			b = binary.LittleEndian.AppendUint64(b, w)
		}
	}
	return b
}

func readFilter(b []byte) (*filter, error) {
	if len(b) == 0 || len(b)%(8*filterWords) != 0 {
		return nil, errRecord
	}
	f := &filter{blocks: make([][filterWords]uint64, len(b)/(8*filterWords))}
	for i := range f.blocks {
		for w := range f.blocks[i] {
			f.blocks[i][w] = binary.LittleEndian.Uint64(b)
			b = b[8:]
		}
	}
	return f, nil
}
