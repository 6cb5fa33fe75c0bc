package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

const someID = "018f4e7a-1c2d-4000-8000-000000000001" // a UUIDv4: it is never too old

// Every flag of submit arrives at the server.
func TestSubmitFlags(t *testing.T) {
	server := at(t)
	t.Setenv("TRACEPARENT", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	out := ok(t, server, "submit", "media/video", "--id", someID, "--json", `{"a": 1}`, "--priority", "very-high",
		"--run-at", "2100-01-01T00:00:00Z", "--start-by", "2100-01-02T01:00:00+01:00", "--lease", "90s", "--run-timeout", "5m", "--max-attempts", "3",
		"--label", "a=1", "--label", "b=2", "--subject", "order/4711", "-o", "json")
	var answer stintv1.SubmitJobsResponse
	if err := protojson.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&stintv1.SubmitJobsResponse{Results: []*stintv1.SubmitResult{
		{Id: someID, Status: stintv1.SubmitStatus_SUBMIT_STATUS_CREATED, State: stintv1.JobState_JOB_STATE_SCHEDULED},
	}}, &answer, protocmp.Transform()); diff != "" {
		t.Errorf("the answer differs (-want +got):\n%s", diff)
	}
	at2100 := time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	want := &stintv1.Job{
		Id: someID, Sequence: 1, Queue: "media/video", State: stintv1.JobState_JOB_STATE_SCHEDULED, Priority: stintv1.Priority_PRIORITY_VERY_HIGH,
		Payload: &stintv1.Payload{Content: &stintv1.Payload_Data{Data: []byte(`{"a": 1}`)}, ContentType: "application/json"},
		DueTime: timestamppb.New(at2100), StartBy: timestamppb.New(at2100.AddDate(0, 0, 1)),
		Policy: &stintv1.JobPolicy{Lease: durationpb.New(90 * time.Second), Retry: &stintv1.RetryPolicy{MaxAttempts: 3}},
		Labels: map[string]string{"a": "1", "b": "2"}, Subject: "order/4711", Timeout: durationpb.New(5 * time.Minute),
		TraceContext: &stintv1.TraceContext{Traceparent: os.Getenv("TRACEPARENT")},
	}
	ofDefaults := protocmp.IgnoreFields(&stintv1.RetryPolicy{}, "exponential", "on_failure", "interrupt_delay")
	if diff := cmp.Diff(want, get(t, dial(t, server), someID), protocmp.Transform(), ofDefaults,
		protocmp.IgnoreFields(&stintv1.Job{}, "submit_time", "epoch", "counters", "interrupt", "etag")); diff != "" {
		t.Errorf("the job differs (-want +got):\n%s", diff)
	}
	id := squeeze(ok(t, server, "submit", "media/video", "--retry", "constant:5s,deadline=1h,attempts=2"))
	retry := &stintv1.RetryPolicy{
		MaxAttempts: 2, Deadline: durationpb.New(time.Hour),
		Backoff: &stintv1.RetryPolicy_Constant{Constant: &stintv1.ConstantBackoff{Delay: durationpb.New(5 * time.Second)}},
	}
	if diff := cmp.Diff(retry, get(t, dial(t, server), id).GetPolicy().GetRetry(), protocmp.Transform(), ofDefaults); diff != "" {
		t.Errorf("the policy differs (-want +got):\n%s", diff)
	}
}

// The payload comes from where the flags say.
func TestSubmitPayload(t *testing.T) {
	server := at(t)
	file := filepath.Join(t.TempDir(), "order.xml")
	if err := os.WriteFile(file, []byte("<order/>"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		flags             []string
		text, contentType string
	}{
		{nil, "", ""},
		{[]string{"--data", "a text"}, "a text", ""},
		{[]string{"--data", "@" + file, "--content-type", "text/xml"}, "<order/>", "text/xml"},
		{[]string{"--data", "-"}, "from standard input\n", ""},
		{[]string{"--json", `[1]`, "--content-type", "application/vnd.x+json"}, "[1]", "application/vnd.x+json"},
		{[]string{"--json", `null`}, "null", "application/json"},
	} {
		got := stint(t, "from standard input\n", append([]string{server, "submit", "q"}, test.flags...)...)
		if got.code != 0 {
			t.Errorf("%v: %+v", test.flags, got)
			continue
		}
		job := get(t, dial(t, server), strings.TrimSpace(got.stdout))
		if p := job.GetPayload(); string(p.GetData()) != test.text || p.GetContentType() != test.contentType {
			t.Errorf("%v: stored %v", test.flags, p)
		}
	}
}

// Wrong flags end with 2 and say which; nothing is stored.
func TestSubmitRefuses(t *testing.T) {
	server := at(t)
	for _, test := range []struct {
		args, says string
	}{
		{"", "accepts 1 arg(s)"},
		{"q --json {", "--json: \"{\" is not a JSON text"},
		{"q --json {} --data x", "[data json]"},
		{"q --json {} --lines", "[json lines]"},
		{"q --lines --id " + someID, "[id lines]"},
		{"q --delay 1s --run-at 2100-01-01T00:00:00Z", "[delay run-at]"},
		{"q --data @/no/such/file", "--data: open /no/such/file"},
		{"q --priority urgent", "--priority \"urgent\": want one of very-low"},
		{"q --label x", "--label \"x\": want key=value"},
		{"q --run-at noon", "--run-at \"noon\""},
		{"q --start-by noon", "--start-by \"noon\""},
		{"q --delay 5", "--delay"},
		{"q --max-attempts -1", "--max-attempts"},
		{"q --colour red", "unknown flag: --colour"},
		{"q --delay=-5s", "INVALID_FIELD: delay: "},
		{"q --lease 1s", "INVALID_FIELD: lease: "},
		{"q --run-timeout=-1s", "--run-timeout -1s: want 1ms or more"},
		{"q --run-timeout 999us", "--run-timeout 999µs: want 1ms or more"},
		{"q --run-timeout 90000h", "INVALID_FIELD: timeout: "},
		{"q --id 4711", "INVALID_FIELD: id: "},
		{"q --on-conflict reject", "--unique-until, --unique-ttl and --on-conflict go with --unique"},
		{"q --unique k --unique-until end", "--unique-until \"end\": want one of start, finish"},
		{"q --unique k --on-conflict fail", "--on-conflict \"fail\": want one of return-existing, reject, replace-pending"},
		{"q --unique k --unique-until start --unique-ttl 1h", "INVALID_FIELD: unique.ttl: "},
		{"q --unique k --unique-ttl=-1s", "INVALID_FIELD: unique.ttl: "},
		{"Q", "INVALID_FIELD: queue: "},
		{"q --timeout=-1s", "--timeout -1s: must not be negative"},
	} {
		got := stint(t, "", append([]string{server, "submit"}, strings.Fields(test.args)...)...)
		wantCode(t, got, 2, test.says)
		if got.stdout != "" {
			t.Errorf("%s: printed %q", test.args, got.stdout)
		}
	}
	if out := ok(t, server, "job", "list", "-o", "jsonl"); out != "" {
		t.Errorf("stored:\n%s", out)
	}
}

// An id makes a submit safe to repeat: the same content is found, other content is a conflict.
func TestSubmitAgain(t *testing.T) {
	server := at(t)
	submit := []string{server, "submit", "q", "--id", someID, "-o", "jsonl", "--data"}
	if out := ok(t, append(submit, "x")...); !strings.Contains(out, "SUBMIT_STATUS_CREATED") {
		t.Errorf("first: %s", out)
	}
	if out := ok(t, append(submit, "x")...); !strings.Contains(out, "SUBMIT_STATUS_EXISTING") {
		t.Errorf("again: %s", out)
	}
	wantCode(t, stint(t, "", append(submit, "y")...), 4, "ID_CONFLICT: id: ")
}

// With --wait standard output is the result and nothing else, and the exit code is the outcome.
func TestSubmitAndWait(t *testing.T) {
	server := at(t)
	worked := make(chan ran, 1)
	work := "case $(cat) in good) printf 'the\\nresult' >&3;; *) exit 3;; esac"
	go func() {
		worked <- stintUntil(t.Context(), "", server, "work", "q", "--max-runs", "3", "--fail-code", "3", "--", "sh", "-c", work)
	}()
	good := stint(t, "", server, "submit", "q", "--data", "good", "--wait", "--timeout", "1m")
	if good.code != 0 || good.stdout != "the\nresult" || !strings.HasPrefix(good.stderr, "submitted ") {
		t.Errorf("a success: %+v", good)
	}
	wantCode(t, stint(t, "", server, "submit", "q", "--data", "bad", "--wait", "--timeout", "1m"), 1, " is FAILED: exit status 3\n")
	bad := stint(t, "", server, "submit", "q", "--data", "bad", "--wait", "--timeout", "1m", "-o", "json")
	var answer stintv1.WaitJobResponse
	if err := protojson.Unmarshal([]byte(bad.stdout), &answer); err != nil || bad.code != 1 ||
		!answer.GetReached() || answer.GetJob().GetFailure().GetProcess().GetExitCode() != 3 {
		t.Errorf("a failure as JSON: %v, %+v", err, bad)
	}
	wantCode(t, <-worked, 0, "3 runs, 3 outcomes recorded")

	wantCode(t, stint(t, "", server, "submit", "nobody", "--wait", "--timeout", "100ms"), 124, "timed out")
	expired := stint(t, "", server, "submit", "nobody", "--wait", "--start-by", "2001-01-01T00:00:00Z", "--timeout", "1m")
	wantCode(t, expired, 8, " is EXPIRED\n")
}
