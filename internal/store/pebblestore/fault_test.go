package pebblestore

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// countingFS counts the bytes read.
type countingFS struct {
	vfs.FS
	read atomic.Int64
}

func (fs *countingFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := fs.FS.Open(name, opts...)
	return countingFile{f, &fs.read}, err
}

type countingFile struct {
	vfs.File
	read *atomic.Int64
}

func (f countingFile) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	f.read.Add(int64(n))
	return n, err
}

func (f countingFile) ReadAt(p []byte, at int64) (int, error) {
	n, err := f.File.ReadAt(p, at)
	f.read.Add(int64(n))
	return n, err
}

// TestDiskFailure: after a write or a sync of the log fails nothing is acknowledged any more, the store says so, and
// what was acknowledged is there at the next start.
func TestDiskFailure(t *testing.T) {
	for name, kind := range map[string]errorfs.OpKind{"write": errorfs.OpFileWrite, "sync": errorfs.OpFileSyncData} {
		t.Run(name, func(t *testing.T) {
			var broken atomic.Bool
			mem := vfs.NewCrashableMem()
			fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if broken.Load() && op.Kind == kind && strings.HasSuffix(op.Path, ".log") {
					return errors.New("the disk is gone")
				}
				return nil
			}))
			s, err := Open(Config{Dir: "data", FS: fs, Reserve: -1})
			if err != nil {
				t.Fatal(err)
			}
			kept := submitJobs(t, s, "q", 10)
			broken.Store(true)
			err = s.Update(context.Background(), func(tx store.Tx) error {
				spec := &job.Spec{ID: freshID(), Queue: "q", Priority: job.Normal}
				return tx.Put(store.Change{New: job.New(spec, tx.Now())})
			})
			if !errors.Is(err, store.ErrClosed) {
				t.Errorf("the update ended with %v", err)
			}
			<-s.Failed()
			if err := s.Update(context.Background(), func(store.Tx) error { return nil }); !errors.Is(err, store.ErrClosed) {
				t.Errorf("a later update ended with %v", err)
			}
			if err := s.View(context.Background(), func(store.Reader) error { return nil }); !errors.Is(err, store.ErrClosed) {
				t.Errorf("a later view ended with %v", err)
			}
			clone := mem.CrashClone(vfs.CrashCloneCfg{})
			again, err := Open(Config{Dir: "data", FS: clone, Reserve: -1})
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			for _, j := range kept {
				if got, err := again.load(j.Seq); err != nil || got == nil {
					t.Errorf("job %d is lost: %v", j.Seq, err)
				}
			}
		})
	}
}

// TestHungDisk: who waits for a disk that hangs is let go when its time is over; what it wrote is there once the disk
// goes on, and what did not run never does.
func TestHungDisk(t *testing.T) {
	var hangs atomic.Bool
	hung, goOn := make(chan struct{}), make(chan struct{})
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSyncData && strings.HasSuffix(op.Path, ".log") && hangs.CompareAndSwap(true, false) {
			close(hung)
			<-goOn
		}
		return nil
	}))
	s, err := Open(Config{Dir: "data", FS: fs, Reserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	submitJobs(t, s, "q", 1)
	hangs.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	wrote := freshID()
	answer, ran := make(chan error), make(chan struct{})
	go func() {
		answer <- s.Update(ctx, func(tx store.Tx) error {
			defer close(ran)
			return tx.Put(store.Change{New: job.New(&job.Spec{ID: wrote, Queue: "q", Priority: job.Normal}, tx.Now())})
		})
	}()
	<-hung // maybe in a sync of the batch before
	<-ran
	cancel()
	if err := <-answer; !errors.Is(err, context.Canceled) {
		t.Errorf("the update ended with %v", err)
	}
	if err := s.Update(ctx, func(store.Tx) error { t.Error("it ran"); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("an update after the end of its context ended with %v", err)
	}
	close(goOn)
	if err := s.Update(t.Context(), func(store.Tx) error { return nil }); err != nil { // answered after what came before it
		t.Fatal(err)
	}
	err = s.View(t.Context(), func(r store.Reader) error {
		found, err := r.Find([]job.ID{wrote})
		if err == nil && found[0].Job == nil {
			t.Error("what was written is gone")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// freeFS is a file system whose free space a test says.
type freeFS struct {
	vfs.FS
	free atomic.Uint64
}

func (fs *freeFS) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: fs.free.Load(), TotalBytes: 1 << 40}, nil
}

// TestReserve: under the reserve new jobs are refused and everything else goes on; within five seconds of space
// returning they are taken again.
func TestReserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := &freeFS{FS: vfs.NewMem()}
		fs.free.Store(1 << 30)
		s, err := Open(Config{Dir: "data", FS: fs})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		first := submitJobs(t, s, "q", 1)[0]
		submit := func() error {
			return s.Update(t.Context(), func(tx store.Tx) error {
				spec := &job.Spec{ID: freshID(), Queue: "q", Priority: job.Normal}
				return tx.Put(store.Change{New: job.New(spec, tx.Now())})
			})
		}
		fs.free.Store(DefaultReserve - 1)
		time.Sleep(5 * time.Second)
		if err := submit(); !errors.Is(err, store.ErrFull) || !s.Full() {
			t.Errorf("under the reserve a submit ends with %v", err)
		}
		err = s.Update(t.Context(), func(tx store.Tx) error {
			next, err := first.Dispatch(tx.Now(), job.Dispatch{Fence: tx.NextFence(), Lease: time.Minute})
			if err != nil {
				return err
			}
			return tx.Put(store.Change{Old: first, New: next})
		})
		if err != nil {
			t.Errorf("under the reserve a claim ends with %v", err)
		}
		fs.free.Store(DefaultReserve)
		time.Sleep(5 * time.Second)
		if err := submit(); err != nil || s.Full() {
			t.Errorf("with space again a submit ends with %v", err)
		}
	})
}
