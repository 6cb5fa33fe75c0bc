package main

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// A submit that meets the holder of its key prints the holder's id, and says what happened.
func TestSubmitUnique(t *testing.T) {
	server := at(t)
	submit := func(flags ...string) ran {
		return stint(t, "", append([]string{server, "submit", "q", "--unique", "nightly"}, flags...)...)
	}
	first := submit("--unique-ttl", "1h")
	if first.code != 0 || first.stderr != "" {
		t.Fatalf("the first: %+v", first)
	}
	holder := strings.TrimSpace(first.stdout)
	for _, test := range []struct{ flags, stderr, status string }{
		{"--on-conflict return-existing", "not stored: job " + holder + ", which is READY, holds the key\n", "KEY_HELD"},
		{"--on-conflict replace-pending --data new --unique-ttl 2h", "not stored: job " + holder + ", which is READY and holds the key, has its content now\n", "REPLACED"},
	} {
		if got := submit(strings.Fields(test.flags)...); got.code != 0 || got.stdout != holder+"\n" || got.stderr != test.stderr {
			t.Errorf("%s: %+v", test.flags, got)
		}
		got := submit(append(strings.Fields(test.flags), "-o", "jsonl")...)
		var result stintv1.SubmitResult
		if err := protojson.Unmarshal([]byte(got.stdout), &result); err != nil || result.GetHolderId() != holder ||
			result.GetStatus().String() != "SUBMIT_STATUS_"+test.status || result.GetId() == holder {
			t.Errorf("%s as JSON: %v, %+v", test.flags, err, got)
		}
	}
	wantCode(t, submit("--on-conflict", "reject"), 4, "UNIQUE_CONFLICT: unique.key: job "+holder+", which is READY, holds the unique key")
	if out := squeeze(ok(t, server, "job", "get", holder)); !strings.Contains(out, "\nUnique nightly, until finish and 2h0m0s more, held\n") {
		t.Errorf("shown as:\n%s", out)
	}

	other := squeeze(ok(t, server, "submit", "p", "--unique", "nightly", "--unique-until", "start"))
	if out := ok(t, server, "job", "list", "--unique", "nightly", "--queue", "p", "-o", "jsonl"); strings.Count(out, "\n") != 1 || !strings.Contains(out, other) {
		t.Errorf("listed:\n%s", out)
	}
	ok(t, server, "work", "p", "--max-runs", "1", "--", "true")
	if out := squeeze(ok(t, server, "job", "get", other)); !strings.Contains(out, "\nUnique nightly, until start, free\n") {
		t.Errorf("shown as:\n%s", out)
	}
}

// Of lines with one key the first is stored; the others tell its id. Waiting is for that one job, once.
func TestLinesUnique(t *testing.T) {
	server := at(t)
	worked := make(chan ran, 1)
	go func() { worked <- stintUntil(t.Context(), "", server, "work", "q", "--max-runs", "1", "--", "true") }()
	got := stint(t, strings.Repeat("x\n", 20), server, "submit", "q", "--lines", "--unique", "k", "--unique-ttl", "1h", "--wait", "--timeout", "1m")
	ids := strings.Fields(got.stdout)
	if len(ids) != 20 || ids[0] != ids[19] {
		t.Errorf("printed %q", ids)
	}
	for _, says := range []string{"submitted 1 jobs in ", "not stored: 19 jobs, because another one holds the key\n", "1 SUCCEEDED"} {
		if !strings.Contains(got.stderr, says) {
			t.Errorf("told %q, want %q in it", got.stderr, says)
		}
	}
	wantCode(t, <-worked, 0, "")
}

// A key that is held past the end says until when.
func TestUniqueText(t *testing.T) {
	end := time.Date(2100, 1, 2, 3, 4, 5, 0, time.UTC)
	u := &stintv1.UniqueKey{Key: "k", Until: stintv1.UniqueUntil_UNIQUE_UNTIL_FINISH, Held: true, HeldUntil: timestamppb.New(end)}
	if got, want := uniqueText(u), "k, until finish, held until 2100-01-02T03:04:05.000Z"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := uniqueText(nil); got != "" {
		t.Errorf("without a key: %q", got)
	}
}
