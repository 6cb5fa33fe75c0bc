package pebblestore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Errors of Open. Each wraps what is known about the directory.
var (
	// ErrLocked: another process has the directory open.
	ErrLocked = errors.New("the data directory is in use")
	// ErrFormat: the directory belongs to something else, or to a newer version.
	ErrFormat = errors.New("the data directory has a format that this version does not know")
	// ErrDamaged: what is in the directory cannot be read.
	ErrDamaged = errors.New("the data directory is damaged")
	// ErrDisk: the directory can be read but not written.
	ErrDisk = errors.New("the data directory cannot be written")
)

const (
	formatFile = "STINT"
	holderFile = "STINT-HOLDER"
	lockFile   = "STINT-LOCK"
	format     = "stint data directory, format 3\n"
)

// claimDir makes the directory if needed, checks that it is ours and takes its lock. What it refuses it leaves as it
// found it. It reports whether an engine has been at work there.
func (s *Store) claimDir() (used bool, err error) {
	fs, dir := s.cfg.FS, s.cfg.Dir
	names, err := fs.List(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, fmt.Errorf("%w: %s: %w", ErrDamaged, dir, err)
	}
	fresh := s.unmade(names)
	if !fresh {
		if err := s.checkFormat(); err != nil {
			return false, err
		}
	}
	used = slices.ContainsFunc(names, func(name string) bool {
		ext := path.Ext(name)
		return ext == ".log" || ext == ".sst" || strings.HasPrefix(name, "marker.manifest.")
	})
	if err := fs.MkdirAll(dir, 0o750); err != nil {
		return false, fmt.Errorf("%w: %s: %w", ErrDisk, dir, err)
	}
	lock, err := fs.Lock(fs.PathJoin(dir, lockFile))
	if err != nil {
		holder, _ := readFile(fs, fs.PathJoin(dir, holderFile))
		return false, fmt.Errorf("%w: %s: %s", ErrLocked, dir, strings.TrimSpace(holder+" "+err.Error()))
	}
	s.lock = lock
	host, _ := os.Hostname()
	err = writeFile(fs, fs.PathJoin(dir, holderFile), fmt.Sprintf("held by process %d on host %q\n", os.Getpid(), host))
	if err == nil && fresh {
		err = writeFile(fs, fs.PathJoin(dir, formatFile), format)
	}
	if err != nil {
		return false, errors.Join(fmt.Errorf("%w: %s: %w", ErrDisk, dir, err), lock.Close())
	}
	return used, nil
}

// unmade reports whether the directory holds no more than what claimDir had written when it was cut short.
func (s *Store) unmade(names []string) bool {
	for _, name := range names {
		switch name {
		case lockFile, holderFile:
		case formatFile:
			if got, err := readFile(s.cfg.FS, s.cfg.FS.PathJoin(s.cfg.Dir, name)); err != nil || !strings.HasPrefix(format, got) {
				return false
			}
		default:
			return false
		}
	}
	return true
}

func (s *Store) checkFormat() error {
	fs, dir := s.cfg.FS, s.cfg.Dir
	got, err := readFile(fs, fs.PathJoin(dir, formatFile))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w: %s has files but no %s", ErrFormat, dir, formatFile)
	case err != nil:
		return fmt.Errorf("%w: %s: %w", ErrDamaged, dir, err)
	case got != format:
		return fmt.Errorf("%w: %s says %q", ErrFormat, dir, strings.TrimSpace(got))
	}
	return nil
}

func readFile(fs vfs.FS, name string) (string, error) {
	f, err := fs.Open(name)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(io.LimitReader(f, 1024))
	return string(b), errors.Join(err, f.Close())
}

func writeFile(fs vfs.FS, name, content string) error {
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte(content))
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
