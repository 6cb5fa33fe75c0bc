package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

func TestParsePriority(t *testing.T) {
	for text, want := range map[string]stintv1.Priority{
		"":          stintv1.Priority_PRIORITY_UNSPECIFIED,
		"normal":    stintv1.Priority_PRIORITY_NORMAL,
		"very-high": stintv1.Priority_PRIORITY_VERY_HIGH,
		"VERY_HIGH": stintv1.Priority_PRIORITY_VERY_HIGH,
		"Very-Low":  stintv1.Priority_PRIORITY_VERY_LOW,
		"20":        stintv1.Priority_PRIORITY_LOW,
	} {
		if got, err := parsePriority(text); err != nil || got != want {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
}

// What is no value is refused with the ones that are, in the order of their numbers; zero is none.
func TestParseEnumRefuses(t *testing.T) {
	for _, text := range []string{"highest", "0", "unspecified", "PRIORITY_HIGH", "35", "-10", " high"} {
		_, err := parsePriority(text)
		if err == nil || !strings.HasSuffix(err.Error(), "want one of very-low, low, normal, high, very-high") {
			t.Errorf("%q: got error %v", text, err)
		}
	}
	for _, text := range []string{"", "0", "none", "stop"} {
		if _, err := parseLevel(text); err == nil || !strings.HasSuffix(err.Error(), "want one of retry, cancel") {
			t.Errorf("level %q: got error %v", text, err)
		}
	}
}

// Every state and every priority is understood under the name that tables show.
func TestShownNamesParse(t *testing.T) {
	for number := range stintv1.JobState_name {
		if state := stintv1.JobState(number); number != 0 {
			if got, err := parseStates([]string{stateName(state)}); err != nil || got[0] != state {
				t.Errorf("state %s: got %v, %v", stateName(state), got, err)
			}
		}
	}
	for number := range stintv1.Priority_name {
		if p := stintv1.Priority(number); number != 0 {
			if got, err := parsePriority(priorityName(p)); err != nil || got != p {
				t.Errorf("priority %s: got %v, %v", priorityName(p), got, err)
			}
		}
	}
}

func TestParseLabels(t *testing.T) {
	got, err := parseLabels([]string{"a=1", "b=", "c=x=y", "d e=é"})
	if diff := cmp.Diff(map[string]string{"a": "1", "b": "", "c": "x=y", "d e": "é"}, got); err != nil || diff != "" {
		t.Errorf("error %v, (-want +got):\n%s", err, diff)
	}
	if got, err := parseLabels(nil); got != nil || err != nil {
		t.Errorf("no labels: got %v, %v", got, err)
	}
	for text, says := range map[string]string{"a": "want key=value", "": "want key=value", "=1": "want key=value", "b=2": "twice"} {
		if _, err := parseLabels([]string{"b=1", text}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: got error %v, want %q in it", text, err, says)
		}
	}
}

func TestParseTime(t *testing.T) {
	utc := time.Date(2026, 1, 31, 15, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"":                          {},
		"2026-01-31T15:04:05Z":      utc,
		"2026-01-31T17:04:05+02:00": utc,
		"2026-01-31T15:04:05.25Z":   utc.Add(250 * time.Millisecond),
	} {
		if got, err := parseTime("run-at", text); err != nil || !got.Equal(want) {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"tomorrow", "2026-01-31", "2026-01-31 15:04:05", "2026-02-31T00:00:00Z", "1769871845"} {
		if _, err := parseTime("run-at", text); err == nil || !strings.Contains(err.Error(), "--run-at") {
			t.Errorf("%q: got error %v, want one that names the flag", text, err)
		}
	}
}

func TestByteSize(t *testing.T) {
	for _, test := range []struct {
		text string
		want byteSize
		back string
	}{
		{"0", 0, "0"},
		{"1", 1, "1"},
		{"7B", 7, "7"},
		{"1024", 1 << 10, "1KiB"},
		{"1536", 1536, "1536"},
		{"64KiB", 64 << 10, "64KiB"},
		{"1 MiB", 1 << 20, "1MiB"},
		{"1536KiB", 1536 << 10, "1536KiB"},
		{"2048MiB", 2 << 30, "2GiB"},
		{"1048576GiB", 1 << 50, "1048576GiB"},
	} {
		var got byteSize
		if err := got.Set(test.text); err != nil || got != test.want || got.String() != test.back {
			t.Errorf("%q: got %d (%s), %v, want %d (%s)", test.text, got, &got, err, test.want, test.back)
		}
	}
	for _, text := range []string{"", "B", "MiB", "-1", "-1KiB", "1.5MiB", "1MB", "1mib", "1KiBMiB", "1048577GiB", "9223372036854775808", "lots"} {
		got := byteSize(42)
		if err := got.Set(text); err == nil || got != 42 {
			t.Errorf("%q: got %d, %v, want an error and no change", text, got, err)
		}
	}
}

// What a help text shows as a default can be given as a value, exactly.
func TestByteSizeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := byteSize(rapid.Int64Range(0, 1<<20).Draw(t, "n") << rapid.IntRange(0, 30).Draw(t, "shift"))
		var got byteSize
		if err := got.Set(size.String()); err != nil || got != size {
			t.Errorf("%d: %s became %d, %v", size, &size, got, err)
		}
	})
}

// A flag that is given and empty is a script's empty variable: it is refused, before anything is done with the wide meaning
// that the flag has when it is left out.
func TestEmptyFlags(t *testing.T) {
	server := at(t)
	id := submit(t, server, "q")
	for command, flags := range map[string][]string{
		"submit q":      {"json", "id", "run-at", "start-by", "unique", "unique-until", "on-conflict"},
		"job update x":  {"run-at", "start-by", "etag"},
		"job list":      {"queue", "subject", "unique", "since", "before"},
		"job retry":     {"queue", "subject", "unique", "since", "before"},
		"job park":      {"queue", "subject", "unique", "since", "before"},
		"job delete":    {"queue", "subject", "unique", "since", "before"},
		"job interrupt": {"queue", "subject", "unique", "since", "before"},
	} {
		for _, flag := range flags {
			args := append([]string{server}, strings.Fields(command)...)
			if command == "job interrupt" {
				args = append(args, "--level", "cancel")
			}
			wantCode(t, stint(t, "", append(args, "--"+flag, "")...), 2, "--"+flag+" is given without a value")
		}
	}
	wantCode(t, stint(t, "", server, "job", "delete", "--queue", "q", "--unique", ""), 2, "--unique is given without a value")
	wantCode(t, stint(t, "", server, "submit", "q", "--unique", "", "--unique-ttl", "1h"), 2, "--unique is given without a value")
	if out := ok(t, server, "job", "list", "-o", "jsonl"); strings.Count(out, "\n") != 1 || !strings.Contains(out, id) {
		t.Errorf("left:\n%s", out)
	}
}
