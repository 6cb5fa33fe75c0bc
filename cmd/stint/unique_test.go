package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/store/pebblestore"
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

// The end of a job that holds its key for longer than its record is kept is known to those who wait for it.
func TestWaitPastRetention(t *testing.T) {
	var ahead atomic.Int64
	st, err := pebblestore.Open(pebblestore.Config{
		Dir: "data", FS: vfs.NewMem(), Reserve: -1, Retain: time.Minute, Remember: time.Minute,
		Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
	})
	if err != nil {
		t.Fatal(err)
	}
	out, printed := io.Pipe()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() {
		f := serveFlags{listen: "127.0.0.1:0", ready: "json"}
		ended <- f.serveStore(ctx, st, slog.New(slog.DiscardHandler), printed, io.Discard)
	}()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-ended, st.Close()); err != nil {
			t.Error(err)
		}
	})
	var line ready
	if err := json.NewDecoder(out).Decode(&line); err != nil {
		t.Fatal(err)
	}
	server := "--server=" + line.GRPC
	holders := map[string]string{}
	for key, command := range map[string]string{"good": "true", "bad": "false"} {
		holders[key] = squeeze(ok(t, server, "submit", key, "--unique", key, "--unique-ttl", "24h", "--max-attempts", "1"))
		ok(t, server, "work", key, "--max-runs", "1", "--", command)
	}
	ahead.Store(int64(12 * time.Hour))
	for key, id := range holders {
		for end := time.Now().Add(30 * time.Second); stint(t, "", server, "job", "get", id).code != 3; {
			if time.Now().After(end) {
				t.Fatalf("the %s job is kept", key)
			}
		}
	}
	for key, want := range map[string]ran{
		"good": {code: 0, stderr: " is SUCCEEDED; what came of it is past its retention\n"},
		"bad":  {code: 1, stderr: " is FAILED; what came of it is past its retention\n"},
	} {
		submit := []string{server, "submit", key, "--unique", key, "--wait", "--timeout", "1m"}
		got := stint(t, "", submit...)
		wantCode(t, got, want.code, holders[key]+want.stderr)
		if got.stdout != "" {
			t.Errorf("%s: printed %q", key, got.stdout)
		}
		wantCode(t, stint(t, "x\ny\n", append(submit, "--lines")...), want.code, holders[key]+want.stderr)
	}
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
