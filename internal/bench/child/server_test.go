package child_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stintrun/stint/internal/bench/child"
)

const ready = `echo '{"grpc":"127.0.0.1:1","http":"127.0.0.1:2","data":"d","pid":3}'; `

// script writes an executable that stands in for the server.
func script(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "stint")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestStartReadsTheReadyLine(t *testing.T) {
	s, err := child.Start(t.Context(), child.Config{Binary: script(t, ready+`exec sleep 60`), Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if s.GRPC != "127.0.0.1:1" || s.HTTP != "127.0.0.1:2" || s.PID != 3 {
		t.Errorf("ready line read as %+v", s.Ready)
	}
	if err := s.Kill(); err != nil {
		t.Errorf("kill: %v", err)
	}
	select {
	case <-s.Ended():
	default:
		t.Error("Kill returned before the process was gone")
	}
	if err := s.Kill(); err != nil {
		t.Errorf("a second kill: %v", err)
	}
}

func TestStartSaysWhyTheServerDidNot(t *testing.T) {
	for _, c := range []struct{ name, body, want string }{
		{"ended", `echo "data directory in use" >&2; exit 3`, "data directory in use"},
		{"bad line", `echo hello; exec sleep 60`, "no ready line"},
		{"silent", `exec sleep 60`, "not ready after"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := child.Start(t.Context(), child.Config{
				Binary: script(t, c.body), Data: t.TempDir(), StartTimeout: 2 * time.Second,
			})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestStop(t *testing.T) {
	for _, c := range []struct{ name, body, want string }{
		{"clean", `trap 'exit 0' TERM; ` + ready + `while :; do sleep 0.1; done`, ""},
		{"bad exit", `trap 'echo broken >&2; exit 9' TERM; ` + ready + `while :; do sleep 0.1; done`, "broken"},
		{"too slow", `trap '' TERM; ` + ready + `while :; do sleep 0.1; done`, "did not end within"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := child.Start(t.Context(), child.Config{
				Binary: script(t, c.body), Data: t.TempDir(), StopTimeout: 2 * time.Second,
			})
			if err != nil {
				t.Fatal(err)
			}
			err = s.Stop()
			if (err == nil) != (c.want == "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
				t.Errorf("stop: %v, want %q", err, c.want)
			}
		})
	}
}
