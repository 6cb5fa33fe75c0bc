package pebblestore

import (
	"testing"

	"pgregory.net/rapid"
)

// TestTable against a map, with hashes that meet often.
func TestTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type item struct {
			hash uint32
			name int
		}
		var tab table[item]
		want := map[int]*item{}
		hashes := rapid.SampledFrom([]uint32{0, 1, 1 << 31, 1<<32 - 1, 1<<32 - 2, 0x2000_0000})
		find := func(hash uint32, name int) *item {
			return tab.find(hash, func(i *item) bool { return i.name == name })
		}
		next := 0
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				for range rapid.IntRange(1, 20).Draw(t, "n") {
					x := &item{hashes.Draw(t, "hash"), next}
					if rapid.Bool().Draw(t, "spread") {
						x.hash = rapid.Uint32().Draw(t, "any")
					}
					next++
					tab.add(x.hash, x)
					want[x.name] = x
				}
			},
			"remove": func(t *rapid.T) {
				n := rapid.IntRange(1, 30).Draw(t, "n")
				for _, x := range want {
					if n--; n < 0 {
						break
					}
					if !tab.remove(x.hash, x) || tab.remove(x.hash, x) {
						t.Fatalf("item %d was not there once", x.name)
					}
					delete(want, x.name)
				}
			},
			"": func(t *rapid.T) {
				for _, x := range want {
					if find(x.hash, x.name) != x {
						t.Fatalf("item %d is not found", x.name)
					}
				}
				if find(1, -1) != nil {
					t.Fatal("an item that was never there is found")
				}
				n := 0
				tab.each(func(x *item) {
					if n++; want[x.name] != x {
						t.Fatalf("item %d is still there", x.name)
					}
				})
				if n != len(want) || tab.n != n || len(tab.items) > max(tableMin, 4*n+4) {
					t.Fatalf("%d items in %d places, counted as %d, want %d", n, len(tab.items), tab.n, len(want))
				}
			},
		})
	})
}
