package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// Every flag of update arrives at the server, what no flag names stays as it is, and --clear and --now take it all back.
func TestJobUpdate(t *testing.T) {
	server := at(t)
	c := dial(t, server)
	ok(t, server, "limit", "put", "l", "--max", "3")
	id := submit(t, server, "q", "--subject", "old", "--label", "a=1")
	before := get(t, c, id)
	ignored := protocmp.IgnoreFields(&stintv1.Job{}, "etag", "actions")
	if out := ok(t, server, "job", "update", id, "--priority", "high", "--reason", "hurry"); squeeze(out) != id+" READY" {
		t.Errorf("update printed %q", out)
	}
	want := get(t, c, id)
	if a := want.GetActions(); len(a) != 1 || a[0].GetReason() != "hurry" || a[0].GetRequester() != requester() || a[0].GetRequestId() == "" {
		t.Errorf("it remembers %v", a)
	}
	if out := squeeze(ok(t, server, "job", "get", id)); !strings.Contains(out, " UPDATE "+requester()+" hurry") {
		t.Errorf("get printed:\n%s", out)
	}
	ok(t, server, "job", "update", id, "--priority", "very-low", "--run-at", "2100-01-01T00:00:00Z", "--start-by", "2100-01-02T00:00:00Z",
		"--lease", "90s", "--run-timeout", "5m", "--retry", "constant:5s", "--label", "b=2", "--label", "c=3", "--subject", "new",
		"--limit", "l*2=k", "--limit", "l", "--etag", want.GetEtag())
	at2100 := time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	want.State, want.DueTime, want.StartBy = stintv1.JobState_JOB_STATE_SCHEDULED, timestamppb.New(at2100), timestamppb.New(at2100.AddDate(0, 0, 1))
	want.Priority, want.Subject, want.Labels = stintv1.Priority_PRIORITY_VERY_LOW, "new", map[string]string{"b": "2", "c": "3"}
	want.Timeout, want.Limits = durationpb.New(5*time.Minute), []*stintv1.LimitUse{{Name: "l", Units: 1}, {Name: "l", Key: "k", Units: 2}}
	got := get(t, c, id)
	if p := got.GetPolicy(); p.GetLease().AsDuration() != 90*time.Second || p.GetRetry().GetConstant().GetDelay().AsDuration() != 5*time.Second {
		t.Errorf("the policy is %v", p)
	}
	if diff := cmp.Diff(want, got, protocmp.Transform(), ignored, protocmp.IgnoreFields(&stintv1.Job{}, "policy")); diff != "" {
		t.Errorf("all flags (-want +got):\n%s", diff)
	}
	ok(t, server, "job", "update", id, "--now", "--clear", "priority,start-by,lease,run-timeout,retry", "--clear", "limit", "--label", "a=1", "--subject", "old")
	if diff := cmp.Diff(before, get(t, c, id), protocmp.Transform(), ignored); diff != "" {
		t.Errorf("taken back (-want +got):\n%s", diff)
	}
	ok(t, server, "job", "update", id, "--delay", "1h", "--max-attempts", "3", "--clear", "label", "--subject", "")
	got = get(t, c, id)
	if got.GetState() != stintv1.JobState_JOB_STATE_SCHEDULED || got.GetPolicy().GetRetry().GetMaxAttempts() != 3 || len(got.GetLabels()) != 0 || got.GetSubject() != "" {
		t.Errorf("delayed and cleared: %v", got)
	}
}

// What update is asked for has to make sense, and what the server refuses is told with its reason.
func TestJobUpdateRefused(t *testing.T) {
	server := at(t)
	id := submit(t, server, "q")
	for args, says := range map[string]string{
		"":                              "nothing to change",
		"--reason why":                  "nothing to change",
		"--clear queue":                 `--clear "queue": want some of priority, start-by`,
		"--clear label --label a=1":     "--clear label: it is set by another flag",
		"--now --delay 1s":              "none of the others can be",
		"--priority urgent":             `--priority "urgent"`,
		"--limit l*0":                   "--limit",
		"--lease 1s":                    "INVALID_FIELD: update.lease",
		"--retry attempts=5000":         "INVALID_FIELD: update.retry.max_attempts",
		"--run-at 2300-01-01T00:00:00Z": "INVALID_FIELD: update.run_at",
	} {
		wantCode(t, stint(t, "", append([]string{server, "job", "update", id}, strings.Fields(args)...)...), 2, says)
	}
	wantCode(t, stint(t, "", server, "job", "update", id, "--limit", "l"), 3, "LIMIT_NOT_FOUND")
	wantCode(t, stint(t, "", server, "job", "update", newID(), "--now"), 3, "JOB_NOT_FOUND")
	wantCode(t, stint(t, "", server, "job", "update", id, "--subject", "s", "--etag", "x"), 4, "ETAG_MISMATCH")
	ok(t, server, "job", "interrupt", id, "--level", "cancel")
	wantCode(t, stint(t, "", server, "job", "update", id, "--subject", "s"), 4, "INVALID_STATE")
}
