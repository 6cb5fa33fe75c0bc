//go:build blackbox

package blackbox

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// filled makes a data directory that has been in use: it holds a job that has run and one that waits, in tables and in
// the log. No server runs on it any more.
func filled(t *testing.T) (data string, waiting string) {
	t.Helper()
	data = filepath.Join(t.TempDir(), "data")
	s := serve(t, data)
	s.submit("q", "done")
	s.must("work", "q", "--until-empty", "--", "true")
	s.stop()
	s = s.again() // a start moves what is in the log to tables
	waiting = s.submit("q", "waiting")
	s.must("submit", "later", "--data", strings.Repeat("x", 100_000), "--delay", "1h") // a log of some length
	s.stop()
	return data, waiting
}

// stop ends the server as an operator does.
func (s *server) stop() {
	s.t.Helper()
	s.signal(syscall.SIGTERM)
	if code := s.end(patience); code != 0 {
		s.t.Fatalf("the server ended with %d after SIGTERM, want 0", code)
	}
}

// contents returns the hash of each file in a directory.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = fmt.Sprintf("%s %s %x", info.Mode(), info.ModTime(), sha256.Sum256(content))
	}
	return files
}

// wantSame checks that a refused start has left a directory as it was. What names the holder and what is locked are not
// looked at: a process that looks at a directory that is free holds it for that time.
func wantSame(t *testing.T, before, after map[string]string) {
	t.Helper()
	for _, files := range []map[string]string{before, after} {
		maps.DeleteFunc(files, func(name, _ string) bool {
			return slices.Contains([]string{"STINT-HOLDER", "STINT-LOCK", "LOCK"}, name)
		})
	}
	for name, content := range before {
		if after[name] != content {
			t.Errorf("the refused start has changed %s: %q, want %q", name, after[name], content)
		}
	}
	for name := range after {
		if _, known := before[name]; !known {
			t.Errorf("the refused start has made %s", name)
		}
	}
}

// wantRefused starts a server on a directory, where it must give up and change nothing. It returns what the server says.
func wantRefused(t *testing.T, data string) string {
	t.Helper()
	before := contents(t, data)
	p := start(t, stint(t, "serve", "--data", data, "--listen", "127.0.0.1:0", "--http", ""))
	p.await(p.stderr, "why it refuses", func(said string) bool { return lines(said) > 0 })
	p.signal(syscall.SIGTERM) // a server that has started after all says what to try
	r := p.result()
	if r.code != 11 || r.stdout != "" || !strings.Contains(r.stderr, data) {
		t.Errorf("serve ended with %d: %q %q, want 11 and the name of the directory", r.code, r.stdout, r.stderr)
	}
	wantSame(t, before, contents(t, data))
	return r.stderr
}

// TestDirectoryInUse names the process that holds the directory, which goes on.
func TestDirectoryInUse(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	id := s.submit("q", "x")
	said := wantRefused(t, s.data)
	if holder := fmt.Sprintf("process %d ", s.cmd.Process.Pid); !strings.Contains(said, holder) {
		t.Errorf("serve says %q, want it to name %q", said, holder)
	}
	if s.ready.PID != s.cmd.Process.Pid {
		t.Errorf("the ready line says pid %d, want %d", s.ready.PID, s.cmd.Process.Pid)
	}
	s.must("job", "get", id)
	s.submit("q", "y")
}

// TestDirectoryOfSomethingElse refuses what is not a data directory of this version.
func TestDirectoryOfSomethingElse(t *testing.T) {
	t.Parallel()
	other := t.TempDir()
	write(t, filepath.Join(other, "letter.txt"), "dear reader")
	wantRefused(t, other)

	newer, _ := filled(t)
	format := filepath.Join(newer, "STINT")
	now, err := os.ReadFile(format)
	if err != nil {
		t.Fatal(err)
	}
	write(t, format, strings.TrimRight(string(now), "0123456789\n")+"999\n")
	if said := wantRefused(t, newer); !strings.Contains(said, "format 999") {
		t.Errorf("serve says %q, want it to say which format it found", said)
	}
	write(t, format, string(now))
	s := serve(t, newer)
	s.wantCounts("q", &stintv1.JobCounts{Ready: 1, Succeeded: 1})
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedDirectory damages one file at a time. When what it held is put back, all is as it was: the refusal made
// nothing worse.
func TestDamagedDirectory(t *testing.T) {
	t.Parallel()
	sound, waiting := filled(t)
	for _, test := range []struct {
		name   string
		file   string // a pattern
		damage func([]byte) []byte
	}{
		{"format emptied", "STINT", func([]byte) []byte { return nil }},
		{"manifest truncated", "MANIFEST-*", func(b []byte) []byte { return b[:len(b)/2] }},
		{"manifest emptied", "MANIFEST-*", func([]byte) []byte { return nil }},
		{"manifest garbled", "MANIFEST-*", garble},
		{"manifest missing", "MANIFEST-*", nil},
		{"table truncated", "*.sst", func(b []byte) []byte { return b[:len(b)/2] }},
		{"table emptied", "*.sst", func([]byte) []byte { return nil }},
		{"table garbled", "*.sst", garble},
		{"table missing", "*.sst", nil},
		{"log garbled", "*.log", garble},
		{"marker missing", "marker.manifest.*", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			data := filepath.Join(t.TempDir(), "data")
			if err := os.CopyFS(data, os.DirFS(sound)); err != nil {
				t.Fatal(err)
			}
			paths, err := filepath.Glob(filepath.Join(data, test.file))
			if err != nil || len(paths) == 0 {
				t.Fatalf("no file %s in %s (%v)", test.file, data, err)
			}
			path := paths[len(paths)-1]
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if test.damage == nil {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			} else {
				write(t, path, string(test.damage(slices.Clone(content))))
			}
			if said := wantRefused(t, data); !strings.Contains(said, "damaged") && test.file != "STINT" {
				t.Errorf("serve says %q, want it to say damaged", said)
			}
			if t.Failed() {
				return
			}
			write(t, path, string(content))
			s := serve(t, data)
			s.wantCounts("q", &stintv1.JobCounts{Ready: 1, Succeeded: 1})
			s.must("work", "q", "--until-empty", "--", "true")
			if state := s.job(waiting).GetState(); state != stintv1.JobState_JOB_STATE_SUCCEEDED {
				t.Errorf("the job that waited is %v, want SUCCEEDED", state)
			}
		})
	}
}

// garble turns bits over in the first two thirds of a file; what a crash leaves undone is at the end.
func garble(b []byte) []byte {
	for i := 5; i < len(b)*2/3; i += 7 {
		b[i] ^= 0x55
	}
	return b
}

// TestAddresses refuses what other hosts can reach, before it makes anything.
func TestAddresses(t *testing.T) {
	t.Parallel()
	for _, flags := range [][]string{
		{"--listen", "0.0.0.0:0"},
		{"--listen", ":0"},
		{"--listen", "[::]:0"},
		{"--listen", "192.0.2.1:0"},
		{"--listen", "example.com:0"},
		{"--listen", "127.0.0.1:0", "--http", "0.0.0.0:0"},
	} {
		cmd := stint(t, append([]string{"serve"}, flags...)...)
		cmd.Dir = t.TempDir()
		r := run(t, cmd)
		if r.code != 2 || !strings.Contains(r.stderr, "--insecure") {
			t.Errorf("serve %q ended with %d: %q, want 2 and a word of --insecure", flags, r.code, r.stderr)
		}
		if made := contents(t, cmd.Dir); len(made) > 0 {
			t.Errorf("serve %q has made %v", flags, made)
		}
	}
	s := serveAt(t, t.TempDir(), "0.0.0.0:0", "", []string{"--insecure"})
	if host, _, err := net.SplitHostPort(s.ready.GRPC); err != nil || host == "127.0.0.1" || s.ready.HTTP != "" {
		t.Errorf("the ready line is %+v (%v), want an address that all can reach, and no HTTP", s.ready, err)
	}

	// An address that is taken is no reason to touch the data either way: the one who has it goes on.
	r := run(t, stint(t, "serve", "--data", t.TempDir(), "--listen", s.ready.GRPC, "--insecure", "--http", ""))
	if r.code != 1 || !strings.Contains(r.stderr, "address already in use") || lines(r.stderr) != 1 {
		t.Errorf("serve on a port that is taken ended with %d: %q, want 1 and a line that says why", r.code, r.stderr)
	}
}
