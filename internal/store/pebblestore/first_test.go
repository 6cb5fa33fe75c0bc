package pebblestore

import (
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// TestFirstStartCutShort: wherever power is lost while a directory is made, the next start goes on with it.
func TestFirstStartCutShort(t *testing.T) {
	for cut := 0; ; cut++ {
		mem := vfs.NewCrashableMem()
		clones := make(map[int]*vfs.MemFS)
		ops, done := 0, make(chan struct{}, 1)
		done <- struct{}{}
		fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(errorfs.Op) error {
			<-done
			defer func() { done <- struct{}{} }()
			if ops == cut {
				clones[0] = mem.CrashClone(vfs.CrashCloneCfg{})
				clones[100] = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
			}
			ops++
			return nil
		}))
		s, err := Open(Config{Dir: "data", FS: fs, Reserve: -1})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if len(clones) == 0 {
			return // it was cut at every operation
		}
		for kept, clone := range clones {
			again, err := Open(Config{Dir: "data", FS: clone, Reserve: -1})
			if err != nil {
				t.Errorf("cut at operation %d, %d %% of the unsynced data kept: %v", cut, kept, err)
				continue
			}
			if err := again.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
