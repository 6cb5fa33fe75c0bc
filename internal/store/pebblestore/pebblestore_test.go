package pebblestore

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/stintrun/stint/internal/store"
	"github.com/stintrun/stint/internal/store/storetest"
)

// TestMain makes the rare paths frequent: windows spill, buckets fill and snapshots are taken all the time.
func TestMain(m *testing.M) {
	windowMax, windowSmall, windowsMax, refillPage, windowCompacts = 8, 4, 24, 5, 3
	bucketBits, chunkBits = 6, 4
	bucketSize, chunkSize = 1<<bucketBits, 1<<chunkBits
	m.Run()
}

// harness is a store on a file system in memory that can lose what was not synced.
type harness struct {
	tb    testing.TB
	cfg   Config
	fs    *vfs.MemFS
	store *Store
}

func openHarness(tb testing.TB, cfg Config) *harness {
	h := &harness{tb: tb, cfg: cfg, fs: vfs.NewCrashableMem()}
	h.open()
	tb.Cleanup(func() { _ = h.store.Close() })
	return h
}

func (h *harness) open() {
	h.tb.Helper()
	cfg := h.cfg
	cfg.Dir, cfg.FS = "data", h.fs
	s, err := Open(cfg)
	if err != nil {
		h.tb.Fatalf("open: %v", err)
	}
	h.store = s
}

func (h *harness) Store() store.Store { return h.store }

// Reopen loses everything that was not synced.
func (h *harness) Reopen() {
	h.tb.Helper()
	clone := h.fs.CrashClone(vfs.CrashCloneCfg{})
	_ = h.store.Close()
	h.fs = clone
	h.open()
}

func TestConformance(t *testing.T) {
	for name, snapshot := range map[string]int{"rare snapshots": 0, "a snapshot every few batches": 256} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(tb testing.TB, now func() time.Time) storetest.Harness {
				return openHarness(tb, Config{Now: now, SnapshotBytes: snapshot, Reserve: -1})
			})
		})
	}
}
