package main

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// Jobs that flags select are acted on over all pages, and counted. A dry run says as much and does nothing.
func TestJobSweep(t *testing.T) {
	server := at(t)
	if got := stint(t, strings.Repeat("x\n", pageSize+200), server, "submit", "q", "--lines"); got.code != 0 {
		t.Fatal(got.stderr)
	}
	other := submit(t, server, "other", "--label", "a=1")
	for _, test := range []struct{ args, want string }{
		{"interrupt --level cancel --queue q --dry-run", "would interrupt 1200 jobs\n"},
		{"interrupt --level retry --label a=1", "0 jobs interrupted, 1 left as they are\n"},
		{"interrupt --level cancel --queue q", "1200 jobs interrupted\n"},
		{"interrupt --level cancel --queue q", "0 jobs interrupted\n"},
		{"retry --all --dry-run", "would retry 1200 jobs\n"},
		{"retry --state cancelled --queue q", "1200 jobs retried\n"},
		{"delete --queue q --since 2199-01-01T00:00:00Z", "0 jobs deleted\n"},
		{"delete --all --dry-run", "would delete 1201 jobs\n"},
		{"delete --queue other --dry-run", "would delete 1 job\n"},
		{"delete --queue q", "1200 jobs deleted\n"},
	} {
		if got := ok(t, append([]string{server, "job"}, strings.Fields(test.args)...)...); got != test.want {
			t.Errorf("%s: printed %q, want %q", test.args, got, test.want)
		}
	}
	if job := get(t, dial(t, server), other); job.GetState() != stintv1.JobState_JOB_STATE_READY {
		t.Errorf("the job that was never selected is %s", job.GetState())
	}
	for args, says := range map[string]string{
		"retry --queue q " + someID: "not both", "delete --all " + someID: "not both", "delete --state lost": "--state \"lost\"",
		"interrupt --level cancel --queue *": "INVALID_FIELD: filter: it admits every job; set all", "retry --before x": "--before \"x\"",
	} {
		wantCode(t, stint(t, "", append([]string{server, "job"}, strings.Fields(args)...)...), 2, says)
	}
}

// As JSON a sweep shows what became of each job on standard output, and the count on standard error.
func TestJobSweepJSON(t *testing.T) {
	server := at(t)
	id := submit(t, server, "q")
	got := stint(t, "", server, "job", "interrupt", "--level", "cancel", "--queue", "q", "--dry-run", "-o", "jsonl")
	want := `{"id":"` + id + `","status":"INTERRUPT_STATUS_CANCELLED","state":"JOB_STATE_CANCELLED","level":"INTERRUPT_LEVEL_CANCEL"}` + "\n"
	if got != (ran{0, want, "would interrupt 1 job\n"}) {
		t.Errorf("got %+v", got)
	}
	got = stint(t, "", server, "job", "delete", "--all", "-o", "json")
	var answer stintv1.DeleteJobsResponse
	if err := protojson.Unmarshal([]byte(got.stdout), &answer); err != nil || answer.GetResults()[0].GetId() != id || got.stderr != "1 job deleted\n" {
		t.Errorf("got %+v, %v", got, err)
	}
}

// A dry run with ids shows what would become of each, and says that it was dry.
func TestJobDryRun(t *testing.T) {
	server := at(t)
	id := submit(t, server, "q")
	for args, want := range map[string]string{"delete": id + "  DELETED\n", "interrupt --level cancel": id + "  CANCELLED  CANCELLED\n"} {
		got := stint(t, "", append([]string{server, "job"}, append(strings.Fields(args), "--dry-run", id)...)...)
		if got != (ran{0, want, "dry run: nothing was changed\n"}) {
			t.Errorf("%s: got %+v", args, got)
		}
	}
	if out := ok(t, server, "job", "list", "--state", "ready"); !strings.Contains(out, id) {
		t.Errorf("the jobs are:\n%s", out)
	}
}

// A retry is kept with the job: who, and why.
func TestJobRetryIsKept(t *testing.T) {
	server := at(t)
	id := submit(t, server, "q", "--delay", "1h")
	ok(t, server, "job", "retry", "--reason", "now", id)
	if a := get(t, dial(t, server), id).GetActions(); len(a) != 1 || a[0].GetReason() != "now" || a[0].GetRequester() != requester() {
		t.Errorf("the actions are %v", a)
	}
}

// endless has one job on every page, and there is always one page more. It is told of a signal before it gives the third.
type endless struct {
	stintv1.UnimplementedJobServiceServer
	signal context.CancelFunc
}

func (e endless) RetryJobs(ctx context.Context, m *stintv1.RetryJobsRequest) (*stintv1.RetryJobsResponse, error) {
	if m.GetContinueToken() == "xx" {
		e.signal()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &stintv1.RetryJobsResponse{Results: []*stintv1.JobResult{{Id: someID}}, ContinueToken: m.GetContinueToken() + "x"}, nil
}

// A signal ends a sweep with the count of what is done.
func TestJobSweepStopped(t *testing.T) {
	ctx, signal := context.WithCancel(t.Context())
	server := serve(t, func(s *grpc.Server) { stintv1.RegisterJobServiceServer(s, endless{signal: signal}) })
	if got := stintUntil(ctx, "", server, "job", "retry", "--all"); got != (ran{code: 130, stderr: "2 jobs retried\n"}) {
		t.Errorf("got %+v", got)
	}
}
