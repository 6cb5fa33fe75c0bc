package sidecar

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// files is the directory of one run: its input, its result, and the word of an interrupt.
type files struct {
	dir string
}

func newFiles(payload []byte) (*files, error) {
	dir, err := os.MkdirTemp("", "stint-run-")
	if err != nil {
		return nil, fmt.Errorf("cannot make a directory for the run: %w", err)
	}
	f := &files{dir: dir}
	if err := os.WriteFile(f.stdinPath(), payload, 0o600); err != nil {
		f.remove()
		return nil, fmt.Errorf("cannot write the payload for the run: %w", err)
	}
	return f, nil
}

func (f *files) stdinPath() string     { return filepath.Join(f.dir, "stdin") }
func (f *files) resultPath() string    { return filepath.Join(f.dir, "result") }
func (f *files) interruptPath() string { return filepath.Join(f.dir, "interrupt") }

// remove cannot do anything about an error, and the system clears its directory of temporary files.
func (f *files) remove() { _ = os.RemoveAll(f.dir) }

// openStdin opens the payload for reading. It is a file, not a pipe, so that a program that does not read it, or leaves
// it to a descendant, holds nobody up.
func (f *files) openStdin() (*os.File, error) { return os.Open(f.stdinPath()) }

// openResult opens the result for appending: the program's file descriptor 3.
func (f *files) openResult() (*os.File, error) {
	return os.OpenFile(f.resultPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
}

func (f *files) hasResult() bool {
	info, err := os.Stat(f.resultPath())
	return err == nil && info.Mode().IsRegular() && info.Size() > 0
}

// result reads what the program wrote as its result. The file is opened by name: a program may have put another in its
// place.
func (f *files) result() ([]byte, error) {
	info, err := os.Stat(f.resultPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the result: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("the result is not a regular file")
	}
	file, err := os.Open(f.resultPath())
	if err != nil {
		return nil, fmt.Errorf("cannot read the result: %w", err)
	}
	defer file.Close()
	result, err := io.ReadAll(io.LimitReader(file, MaxResult+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read the result: %w", err)
	}
	if len(result) > MaxResult {
		return nil, fmt.Errorf("the result is larger than %d bytes", MaxResult)
	}
	if len(result) == 0 {
		return nil, nil
	}
	return result, nil
}

// writeInterrupt writes the level to the first line and the reason after it. The file appears whole: a program may look
// for it without waiting for the signal.
func (f *files) writeInterrupt(why Interrupt) error {
	whole := f.interruptPath() + ".new"
	if err := os.WriteFile(whole, []byte(why.Level+"\n"+why.Reason+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(whole, f.interruptPath())
}
