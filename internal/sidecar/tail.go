package sidecar

import (
	"strings"
	"sync"
	"unicode/utf8"
)

// tail keeps the last bytes written to it.
type tail struct {
	mu    sync.Mutex
	size  int
	bytes []byte // At most twice the size, so that a byte is moved once on the average.
	cut   bool   // Bytes were dropped.
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	t.cut = t.cut || len(t.bytes)+n > t.size
	if n >= t.size {
		t.bytes, p = t.bytes[:0], p[len(p)-t.size:]
	}
	if len(t.bytes)+len(p) > 2*t.size {
		t.bytes = append(t.bytes[:0], t.bytes[len(t.bytes)-t.size:]...)
	}
	t.bytes = append(t.bytes, p...)
	return n, nil
}

// String is the tail as valid UTF-8, no longer than the size: a character that the cut has split is left out, and a run
// of other invalid bytes is shown as "?".
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	last := t.bytes[max(0, len(t.bytes)-t.size):]
	if t.cut {
		for range utf8.UTFMax - 1 {
			if len(last) > 0 && !utf8.RuneStart(last[0]) {
				last = last[1:]
			}
		}
	}
	return strings.ToValidUTF8(string(last), "?")
}
