package pebblestore

import (
	"context"
	"errors"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// contents is every file under data and what is in it.
func contents(t *testing.T, fs vfs.FS) map[string]string {
	t.Helper()
	names, err := fs.List("data")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, name := range names {
		files[name] = readAll(t, fs, path.Join("data", name))
	}
	return files
}

func readAll(t *testing.T, fs vfs.FS, name string) string {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// filled is a file system with a store that has been used and closed.
func filled(t *testing.T) vfs.FS {
	t.Helper()
	fs := vfs.NewMem()
	s, err := Open(Config{Dir: "data", FS: fs, Reserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	submitJobs(t, s, "q", 100)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return fs
}

// submitJobs puts n new jobs and returns them.
func submitJobs(t testing.TB, s *Store, queue string, n int) []*job.Job {
	t.Helper()
	var jobs []*job.Job
	err := s.Update(context.Background(), func(tx store.Tx) error {
		jobs = nil
		if _, err := tx.MakeQueue(queue); err != nil {
			return err
		}
		for range n {
			spec := &job.Spec{ID: freshID(), Queue: queue, Priority: job.Normal, Payload: make([]byte, 100), PayloadSize: 100}
			j := job.New(spec, tx.Now())
			if err := tx.Put(store.Change{New: j}); err != nil {
				return err
			}
			jobs = append(jobs, j)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return jobs
}

func TestOpenRefuses(t *testing.T) {
	write := func(name, content string) func(*testing.T, vfs.FS) {
		return func(t *testing.T, fs vfs.FS) {
			if err := writeFile(fs, path.Join("data", name), content); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, tc := range map[string]struct {
		spoil func(*testing.T, vfs.FS)
		want  error
		says  string
	}{
		"a newer format":       {write(formatFile, "stint data directory, format 4\n"), ErrFormat, "format 4"},
		"an older format":      {write(formatFile, "stint data directory, format 2\n"), ErrFormat, "format 2"},
		"somebody else's":      {func(t *testing.T, fs vfs.FS) { remove(t, fs, formatFile) }, ErrFormat, "no " + formatFile},
		"a garbled manifest":   {garble("MANIFEST"), ErrDamaged, ""},
		"a missing manifest":   {func(t *testing.T, fs vfs.FS) { removeAll(t, fs, "MANIFEST") }, ErrDamaged, ""},
		"an unreadable format": {write(formatFile, ""), ErrFormat, ""},
	} {
		t.Run(name, func(t *testing.T) {
			fs := filled(t)
			tc.spoil(t, fs)
			before := contents(t, fs)
			s, err := Open(Config{Dir: "data", FS: fs, Reserve: -1})
			if err == nil {
				t.Fatal("opened", s.Close())
			}
			if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("refused with %q, want %v that says %q", err, tc.want, tc.says)
			}
			after := contents(t, fs)
			delete(before, holderFile)
			delete(after, holderFile)
			if diff := cmp.Diff(slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(after))); diff != "" {
				t.Error("files:", diff)
			}
			for name := range before {
				if before[name] != after[name] {
					t.Errorf("%s has changed", name)
				}
			}
		})
	}
}

func remove(t *testing.T, fs vfs.FS, name string) {
	t.Helper()
	if err := fs.Remove(path.Join("data", name)); err != nil {
		t.Fatal(err)
	}
}

func removeAll(t *testing.T, fs vfs.FS, prefix string) {
	t.Helper()
	for name := range contents(t, fs) {
		if strings.HasPrefix(name, prefix) {
			remove(t, fs, name)
		}
	}
}

// garble overwrites the middle of each file whose name has the prefix.
func garble(prefix string) func(*testing.T, vfs.FS) {
	return func(t *testing.T, fs vfs.FS) {
		for name, content := range contents(t, fs) {
			if !strings.HasPrefix(name, prefix) {
				continue
			}
			b := []byte(content)
			for i := len(b) / 4; i < len(b)/2; i++ {
				b[i] ^= 0x5a
			}
			if err := writeFile(fs, path.Join("data", name), string(b)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestDamagedTable: a table that is damaged where it says what it holds is found at the start, though recovery has no use
// for it.
func TestDamagedTable(t *testing.T) {
	cfg := Config{Dir: "data", FS: filled(t), Reserve: -1}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	submitJobs(t, s, "q", 100)
	if err := errors.Join(s.db.Flush(), s.Close()); err != nil {
		t.Fatal(err)
	}
	sound, tables := contents(t, cfg.FS), 0
	for name := range sound {
		if path.Ext(name) != ".sst" {
			continue
		}
		tables++
		b := []byte(sound[name])
		for i := len(b) - 400; i < len(b)-100; i++ { // before the footer
			b[i] ^= 0x5a
		}
		if err := writeFile(cfg.FS, path.Join("data", name), string(b)); err != nil {
			t.Fatal(err)
		}
		if s, err := Open(cfg); !errors.Is(err, ErrDamaged) {
			t.Errorf("with a garbled table: %v", err)
			if err == nil {
				t.Fatal("opened", s.Close())
			}
		}
		if err := writeFile(cfg.FS, path.Join("data", name), sound[name]); err != nil {
			t.Fatal(err)
		}
	}
	if tables < 3 {
		t.Errorf("%d tables", tables)
	}
}

// TestOpenLocked: a second opener is told who has the directory, and changes nothing of the first one's.
func TestOpenLocked(t *testing.T) {
	h := openHarness(t, Config{Reserve: -1})
	_, err := Open(Config{Dir: "data", FS: h.fs, Reserve: -1})
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "held by process") {
		t.Fatalf("refused with %q, want one that names the holder", err)
	}
	submitJobs(t, h.store, "q", 1)
}

// TestStartReadsNoBacklog: a start reads the snapshot and the log after it, whatever waits.
func TestStartReadsNoBacklog(t *testing.T) {
	read := func(backlog int) (bytes int64) {
		fs := &countingFS{FS: vfs.NewMem()}
		cfg := Config{Dir: "data", FS: fs, Reserve: -1, SnapshotBytes: 1}
		s, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		for range backlog / 1000 {
			submitJobs(t, s, "q", 1000)
		}
		if err := errors.Join(s.db.Flush(), s.Close()); err != nil {
			t.Fatal(err)
		}
		fs.read.Store(0)
		if s, err = Open(cfg); err != nil {
			t.Fatal(err)
		}
		bytes = fs.read.Load()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return bytes
	}
	small, large := read(2000), read(40_000)
	if large > small+256<<10 {
		t.Errorf("a start reads %d bytes with 40,000 jobs waiting and %d with 2,000", large, small)
	}
}
