package dispatch_test

import (
	"fmt"
	"log/slog"
	"runtime"
	"testing"

	"github.com/stintrun/stint/internal/dispatch"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store/pebblestore"
)

// TestWaitingKeys: a key of a limit that a job waits for costs little memory, whether its lane may start or hangs, and none
// once nobody waits for it.
func TestWaitingKeys(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector would take minutes; make test runs it")
	}
	const (
		page   = 2000
		before = 200_000 // fills what is bounded for all of them
		keys   = 500_000
		bound  = 300 // bytes a key
	)
	r := &rig{t: t, ctx: t.Context(), goOn: func() {}, disk: newDisk()}
	dir := t.TempDir()
	var err error
	if r.store, err = pebblestore.Open(pebblestore.Config{Dir: dir, Reserve: -1, CacheBytes: 1 << 20, SnapshotBytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	if r.d, err = dispatch.New(r.store, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	defer r.close()
	r.bound("l", job.LimitPolicy{Max: 2})
	submit := func(from, to int) {
		for from < to {
			specs := make([]*job.Spec, page)
			for i := range specs {
				specs[i] = r.uses("q", use("l", fmt.Sprint(from+i), 2))
			}
			r.submit(specs...)
			from += page
		}
	}
	submit(0, before)
	base := heapBytes()
	submit(before, keys)
	each := func(what string, most int64) {
		t.Helper()
		cost := (heapBytes() - base) / (keys - before)
		t.Logf("%s: %d bytes a key", what, cost)
		if cost > most {
			t.Errorf("%s costs %d bytes of memory, more than %d", what, cost, most)
		}
	}
	each("a waiting key", bound)

	r.bound("l", job.LimitPolicy{Max: 1}) // so that none of them fits
	r.submit(r.uses("q", use("l", "", 1)))
	runs, err := r.d.Claim(r.ctx, claim(1, 1, "q"))
	if err != nil || len(runs) != 1 || runs[0].Job.Spec.Limits[0].Key != "" {
		t.Fatalf("got %v, %v", runs, err)
	}
	each("a key on which a lane hangs", bound)
}

func heapBytes() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
