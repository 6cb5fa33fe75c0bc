package demo

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestWaterfall(t *testing.T) {
	s := play(t)
	got := waterfall(s.entries[1], s.jobs[1], at(100), at(200))
	want := `one job's history: file-1
  job-1, succeeded
  submitted, waits      |====                                    |      0.0 to      18.0 ms  
  run 1 on w            |   =====================================|     18.0 to     229.0 ms  succeeded, fence 11
  server away           |                ==================      |     99.0 to     199.0 ms  
  adopted by new server |                                     ===|    219.0 to     229.0 ms  fence 11
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestSpans(t *testing.T) {
	s := play(t)
	got := map[string]Span{}
	for _, one := range spans(s.ledger) {
		one.Meaning = ""
		got[one.Name] = one
	}
	ms := time.Millisecond
	want := map[string]Span{ // of 10 10 10 207, 20 19 18 237, 30 210 210 10 and 50 229 228 247
		"submit": {Name: "submit", P50: 10 * ms, P90: 10 * ms, P99: 10 * ms, Max: 207 * ms},
		"start":  {Name: "start", P50: 19 * ms, P90: 20 * ms, P99: 20 * ms, Max: 237 * ms},
		"run":    {Name: "run", P50: 30 * ms, P90: 210 * ms, P99: 210 * ms, Max: 210 * ms},
		"life":   {Name: "life", P50: 228 * ms, P90: 229 * ms, P99: 229 * ms, Max: 247 * ms},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestReportSaysHowItWent(t *testing.T) {
	good := Report{Files: 4, Took: time.Second, Crash: Crash{Held: 2, Adopted: 1, Answered: 1}}
	bad := good
	bad.Faults = []error{errors.New("file-1: its job is missing")}
	none := good
	none.Crash.Adopted = 0
	for _, c := range []struct {
		name   string
		r      Report
		err    error
		has    string
		hasNot string
	}{
		{"good", good, nil, "nothing missing, nothing accepted twice", "wrong"},
		{"bad", bad, ErrMismatch, "wrong: file-1: its job is missing", "nothing missing"},
		{"none adopted", none, ErrNotAdopted, "no run was adopted", "nothing missing"},
	} {
		var text strings.Builder
		if err := c.r.Write(&text); err != nil {
			t.Fatal(err)
		}
		if err := c.r.verdict(); !errors.Is(err, c.err) {
			t.Errorf("%s: verdict %v", c.name, err)
		}
		if !strings.Contains(text.String(), c.has) || strings.Contains(text.String(), c.hasNot) {
			t.Errorf("%s: the report says\n%s", c.name, text.String())
		}
	}
}

func TestBar(t *testing.T) {
	if got, want := barLine("done", 3, 4), "[##############################..........] 3 of 4 done"; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	var out strings.Builder
	b := newBar(&out)
	b.follow("first", 1, func() int { return 1 })
	b.follow("second", 1, func() int { return 0 })
	b.stop()
	b.stop()
	if text := out.String(); !strings.Contains(text, "first") || !strings.HasSuffix(text, "second\x1b[K\r\x1b[K") {
		t.Errorf("drew %q", text)
	}
	silent := newBar(nil)
	silent.follow("nothing", 1, func() int { t.Error("asked"); return 0 })
	silent.stop()
}

func TestTheDemoTakesOnlyAFreshDirectory(t *testing.T) {
	files, data := t.TempDir(), t.TempDir()
	for _, dir := range []string{files, data} {
		for i := range filesLeast {
			if err := os.WriteFile(filepath.Join(dir, strings.Repeat("x", i+1)), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	_, err := Run(t.Context(), Config{Binary: "/nonexistent", Files: files, Data: data})
	if err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("error %v", err)
	}
	fresh := filepath.Join(t.TempDir(), "fresh")
	if _, err := Run(t.Context(), Config{Binary: "/nonexistent", Files: files, Data: fresh}); err == nil {
		t.Error("a server that does not exist was started")
	}
	if _, err := os.Stat(fresh); !os.IsNotExist(err) {
		t.Errorf("the directory was left behind: %v", err)
	}
	if _, err := Run(t.Context(), Config{Files: t.TempDir(), Data: data}); err == nil || !strings.Contains(err.Error(), "holds 0 files") {
		t.Errorf("error %v", err)
	}
	if left, err := os.ReadDir(data); err != nil || len(left) != filesLeast {
		t.Errorf("%d files are left in the directory: %v", len(left), err)
	}
}
