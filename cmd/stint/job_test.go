package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// submit stores a job and returns its id.
func submit(t *testing.T, server, queue string, flags ...string) string {
	t.Helper()
	return strings.TrimSpace(ok(t, append([]string{server, "submit", queue}, flags...)...))
}

// claim claims the queue's next job, as a worker that calls, and accepts it. It returns the lease token.
func claim(t *testing.T, c *client.Client, queue string) string {
	t.Helper()
	answer, err := c.Workers().ClaimJobs(t.Context(), &stintv1.ClaimJobsRequest{Worker: "a test", Queues: []string{queue}})
	if err != nil || len(answer.GetAssignments()) != 1 {
		t.Fatalf("claimed %v, %v", answer, err)
	}
	token := answer.GetAssignments()[0].GetLeaseToken()
	if _, err := c.Workers().HeartbeatRuns(t.Context(), &stintv1.HeartbeatRunsRequest{LeaseTokens: []string{token}}); err != nil {
		t.Fatal(err)
	}
	return token
}

func TestJobGet(t *testing.T) {
	server := at(t)
	id := submit(t, server, "q", "--subject", hostile)
	out := ok(t, server, "job", "get", id)
	if !strings.Contains(out, "Job        "+id+"\n") || !strings.Contains(out, "Subject    ·[2J···a\n") {
		t.Errorf("got:\n%s", out)
	}
	var answer stintv1.GetJobResponse
	if err := protojson.Unmarshal([]byte(ok(t, server, "job", "get", id, "-o", "json")), &answer); err != nil || answer.GetJob().GetId() != id {
		t.Errorf("as JSON: %v, %v", &answer, err)
	}
	wantCode(t, stint(t, "", server, "job", "get", someID), 3, "JOB_NOT_FOUND: ")
	wantCode(t, stint(t, "", server, "job", "get", "4711"), 2, "INVALID_FIELD: id: ")
	wantCode(t, stint(t, "", server, "job", "get"), 2, "accepts 1 arg(s)")
}

func TestJobList(t *testing.T) {
	server := at(t)
	audio := submit(t, server, "media/audio", "--label", "a=1", "--subject", "s")
	video := submit(t, server, "media/video", "--label", "a=1", "--label", "b=2")
	later := submit(t, server, "mail", "--delay", "1h", "--priority", "low")
	for _, test := range []struct {
		flags string
		want  []string
	}{
		{"", []string{audio, video, later}},
		{"--newest-first", []string{later, video, audio}},
		{"--limit 2", []string{audio, video}},
		{"--newest-first --limit 1", []string{later}},
		{"--queue media/video", []string{video}},
		{"--queue media/*", []string{audio, video}},
		{"--state scheduled", []string{later}},
		{"--state SCHEDULED --state ready", []string{audio, video, later}},
		{"--state failed", nil},
		{"--label a=1", []string{audio, video}},
		{"--label a=1 --label b=2", []string{video}},
		{"--subject s", []string{audio}},
		{"--since 2001-01-01T00:00:00Z --before 2199-01-01T00:00:00Z", []string{audio, video, later}},
		{"--since 2199-01-01T00:00:00Z", nil},
		{"--before 2001-01-01T00:00:00Z", nil},
	} {
		out := ok(t, append([]string{server, "job", "list"}, strings.Fields(test.flags)...)...)
		rows := lines(out)
		if !strings.HasPrefix(rows[0], "ID ") {
			t.Errorf("%s: the header is %q", test.flags, rows[0])
		}
		var got []string
		for _, row := range rows[1:] {
			got = append(got, strings.Fields(row)[0])
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v, want %v", test.flags, got, test.want)
		}
	}
	if out := ok(t, server, "job", "list", "--state", "scheduled"); !strings.Contains(out, later+"  mail   SCHEDULED  LOW       0     ") {
		t.Errorf("got:\n%s", out)
	}
	for flags, says := range map[string]string{
		"--state lost": "--state \"lost\": want one of scheduled, ready", "--label a": "--label \"a\"",
		"--limit -1": "--limit -1: want 0 or more", "--since now": "--since \"now\": want a time like", "--before now": "--before \"now\"", "--queue *x": "INVALID_FIELD: filter.queue", "more": "unknown command",
	} {
		wantCode(t, stint(t, "", append([]string{server, "job", "list"}, strings.Fields(flags)...)...), 2, says)
	}
}

// A list is as long as what there is, over as many pages as that takes.
func TestJobListOverPages(t *testing.T) {
	server := at(t)
	if got := stint(t, strings.Repeat("x\n", pageSize+500), server, "submit", "q", "--lines"); got.code != 0 {
		t.Fatal(got.stderr)
	}
	for flags, want := range map[string]int{"": pageSize + 500, "--limit 1200": 1200, "--limit 1000": 1000} {
		out := ok(t, append([]string{server, "job", "list", "-o", "jsonl"}, strings.Fields(flags)...)...)
		seen := map[string]bool{}
		for _, line := range lines(out) {
			var job stintv1.Job
			if err := protojson.Unmarshal([]byte(line), &job); err != nil {
				t.Fatal(err)
			}
			seen[job.GetId()] = true
		}
		if len(seen) != want {
			t.Errorf("%s: listed %d jobs, want %d", flags, len(seen), want)
		}
	}
}

// Each item of several has its own end: what was done goes to standard output, what was refused to standard error.
func TestJobInterruptRetryDelete(t *testing.T) {
	server := at(t)
	waiting, running := submit(t, server, "waiting"), submit(t, server, "running")
	claim(t, dial(t, server), "running")

	got := stint(t, "", server, "job", "interrupt", "--level", "retry", waiting)
	if got.code != 0 || got.stdout != waiting+"  NO_RUN  READY\n" {
		t.Errorf("retry of a waiting job: %+v", got)
	}
	got = stint(t, "", server, "job", "interrupt", "--level", "cancel", "--reason", "wrong file", waiting, running, someID)
	wantCode(t, got, 3, someID+": JOB_NOT_FOUND: ")
	if want := waiting + "  CANCELLED  CANCELLED\n" + running + "  REQUESTED  RUNNING\n"; squeeze(got.stdout) != squeeze(want) {
		t.Errorf("cancel printed:\n%swant:\n%s", got.stdout, want)
	}
	if out := ok(t, server, "job", "get", running); !strings.Contains(out, "Interrupt  CANCEL by USER ") || !strings.Contains(out, ": wrong file\n") {
		t.Errorf("the interrupted job:\n%s", out)
	}
	wantCode(t, stint(t, "", server, "job", "interrupt", "--level", "cancel", waiting), 4, waiting+": INTERRUPT_TOO_LATE: the job is terminal (CANCELLED)\n")

	wantCode(t, stint(t, "", server, "job", "delete", running), 4, running+": RUN_ACTIVE: ")
	got = stint(t, "", server, "job", "retry", waiting, running, someID)
	wantCode(t, got, 1, "RUN_ACTIVE") // two kinds of refusals
	if got.stdout != waiting+"  READY\n" {
		t.Errorf("retry printed %q", got.stdout)
	}
	if out := ok(t, server, "job", "delete", waiting); out != waiting+"  DELETED\n" {
		t.Errorf("delete printed %q", out)
	}
	wantCode(t, stint(t, "", server, "job", "get", waiting), 3, "JOB_NOT_FOUND")

	for args, says := range map[string]string{
		"interrupt --level retry": "which jobs?", "interrupt x": "--level \"\": want one of retry, cancel",
		"interrupt x --level stop": "--level \"stop\"", "interrupt x --level retry": "INVALID_FIELD: id: ",
		"retry": "which jobs?", "park": "which jobs?", "park x": "INVALID_FIELD: id: ", "delete --queue=": "--queue is given without a value", "frobnicate": "unknown command", "": "",
	} {
		wantCode(t, stint(t, "", append([]string{server, "job"}, strings.Fields(args)...)...), 2, says)
	}
}

// A parked job says who set it aside, and why; one that has ended stays as it is.
func TestJobPark(t *testing.T) {
	server := at(t)
	waiting, running, ended := submit(t, server, "waiting"), submit(t, server, "running"), submit(t, server, "ended")
	claim(t, dial(t, server), "running")
	ok(t, server, "job", "interrupt", "--level", "cancel", ended)
	got := stint(t, "", server, "job", "park", "--reason", "ask first", waiting, running, ended)
	wantCode(t, got, 4, ended+": INVALID_STATE: ")
	if want := waiting + " PARKED\n" + running + " RUNNING"; squeeze(got.stdout) != want {
		t.Errorf("park printed:\n%s\nwant:\n%s", got.stdout, want)
	}
	out := ok(t, server, "job", "get", waiting)
	if !strings.Contains(squeeze(out), "\nInterrupt PARK by USER "+requester()+" at ") || !strings.Contains(out, ": ask first\n") ||
		!strings.Contains(out, "PARKED (OPERATOR)") {
		t.Errorf("the parked job:\n%s", out)
	}
	if out := ok(t, server, "job", "retry", waiting); squeeze(out) != waiting+" READY" {
		t.Errorf("retry printed %q", out)
	}
}

// squeeze makes runs of spaces one.
func squeeze(s string) string {
	var out []string
	for _, line := range lines(s) {
		out = append(out, strings.Join(strings.Fields(line), " "))
	}
	return strings.Join(out, "\n")
}

// The exit code is the worst outcome of all; what cannot be waited for is told and does not hide the others.
func TestJobWait(t *testing.T) {
	server := at(t)
	cancelled, expired := submit(t, server, "q"), submit(t, server, "q", "--start-by", "2001-01-01T00:00:00Z")
	ok(t, server, "job", "interrupt", "--level", "cancel", "--reason", "not needed", cancelled)

	got := stint(t, "", server, "job", "wait", "--timeout", "1m", expired)
	wantCode(t, got, 8, expired+" is EXPIRED\n")
	if rows := lines(got.stdout); len(rows) != 2 || squeeze(rows[1]) != expired+" q EXPIRED 0" {
		t.Errorf("got:\n%s", got.stdout)
	}
	got = stint(t, "", server, "job", "wait", "--timeout", "1m", expired, cancelled, "-o", "jsonl")
	wantCode(t, got, 6, cancelled+" is CANCELLED: not needed\n")
	if len(lines(got.stdout)) != 2 {
		t.Errorf("got:\n%s", got.stdout)
	}
	got = stint(t, "", server, "job", "wait", "--timeout", "1m", expired, someID)
	wantCode(t, got, 3, someID+": JOB_NOT_FOUND: ")
	if !strings.Contains(got.stdout, expired) {
		t.Errorf("got:\n%s", got.stdout)
	}
	ready := submit(t, server, "nobody")
	wantCode(t, stint(t, "", server, "job", "wait", "--timeout", "100ms", ready), 124, "timed out")

	// A job that ends while it is waited for, among many that have.
	ended := make(chan ran, 1)
	ids := slices.Repeat([]string{expired}, 2*waiters)
	running := submit(t, server, "running")
	c := dial(t, server)
	token := claim(t, c, "running")
	go func() {
		ended <- stintUntil(t.Context(), "", append([]string{server, "job", "wait", "--timeout", "1m", running}, ids...)...)
	}()
	_, err := c.Workers().FinishRuns(t.Context(), &stintv1.FinishRunsRequest{Finishes: []*stintv1.Finish{
		{LeaseToken: token, Outcome: &stintv1.Finish_Success{Success: &stintv1.Success{}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if got := <-ended; got.code != 8 || !strings.Contains(squeeze(got.stdout), running+" running SUCCEEDED 1") {
		t.Errorf("got %+v", got)
	}
}

// A job can be waited for before its end: until a worker has begun, and until its worker acts on an interrupt. It has no
// outcome then that the exit code could tell; one that ended first does.
func TestJobWaitUntil(t *testing.T) {
	server := at(t)
	c := dial(t, server)
	running, cancelled := submit(t, server, "q"), submit(t, server, "other")
	ok(t, server, "job", "interrupt", "--level", "cancel", cancelled)
	wait := []string{server, "job", "wait", "--timeout", "1m", "--until"}
	token := claim(t, c, "q")
	if got := stint(t, "", append(wait, "accepted", running)...); got.code != 0 || got.stderr != "" || !strings.Contains(squeeze(got.stdout), running+" q RUNNING 1") {
		t.Errorf("until accepted: %+v", got)
	}
	if got := stint(t, "", append(wait, "interrupt-acknowledged", running)...); got.code != 0 {
		t.Errorf("until an interrupt that nobody asked for is acknowledged: %+v", got)
	}
	ok(t, server, "job", "interrupt", "--level", "retry", running)
	wantCode(t, stint(t, "", server, "job", "wait", "--until", "interrupt-acknowledged", "--timeout", "100ms", running), 124, "timed out")
	_, err := c.Workers().HeartbeatRuns(t.Context(), &stintv1.HeartbeatRunsRequest{
		LeaseTokens: []string{token}, InterruptAcks: []*stintv1.InterruptAck{{LeaseToken: token, Generation: 1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := stint(t, "", append(wait, "interrupt-acknowledged", running)...)
	if got.code != 0 || !strings.Contains(squeeze(got.stdout), running+" q RUNNING 1") {
		t.Errorf("until the interrupt is acknowledged: %+v", got)
	}
	wantCode(t, stint(t, "", append(wait, "accepted", running, cancelled)...), 6, cancelled+" is CANCELLED\n")
	wantCode(t, stint(t, "", append(wait, "later", running)...), 2, "--until \"later\": want one of end, accepted, interrupt-acknowledged")
}

func TestQueueCommands(t *testing.T) {
	server := at(t)
	submit(t, server, "media/video")
	submit(t, server, "media/video", "--delay", "1h")
	submit(t, server, "mail")
	if out := ok(t, server, "queue", "list", "media/*"); len(lines(out)) != 2 || !strings.HasPrefix(squeeze(lines(out)[1]), "media/video 1 0 1 0 0 0 0 0 0 ") ||
		!strings.HasSuffix(lines(out)[1], " no") {
		t.Errorf("list printed:\n%s", out)
	}
	if out := ok(t, server, "queue", "list"); len(lines(out)) != 3 {
		t.Errorf("list printed:\n%s", out)
	}

	// set changes what its flags name and leaves the rest.
	if out := ok(t, server, "queue", "set", "mail", "--lease", "1m", "--max-attempts", "3", "--retry-initial", "2s"); !strings.Contains(squeeze(out), "\nPolicy lease 1m0s, retry exponential:2s,attempts=3\n") {
		t.Errorf("set printed:\n%s", out)
	}
	if out := ok(t, server, "queue", "set", "mail", "--lease", "0", "--retry-max", "1h"); !strings.Contains(squeeze(out), "\nPolicy retry exponential:2s..1h,attempts=3\n") {
		t.Errorf("set printed:\n%s", out)
	}
	if out := ok(t, server, "queue", "set", "fresh"); !strings.Contains(squeeze(out), "Queue fresh\n") || strings.Contains(out, "Policy") {
		t.Errorf("set made:\n%s", out)
	}
	if out := ok(t, server, "queue", "set", "fresh", "--lost-contact", "continue"); !strings.Contains(squeeze(out), "\nPolicy on lost contact continue\n") {
		t.Errorf("set printed:\n%s", out)
	}
	wantCode(t, stint(t, "", server, "queue", "set", "fresh", "--lost-contact", "hope"), 2, "--lost-contact ")
	if out := ok(t, server, "queue", "set", "fresh", "--max-running", "7", "--on-zombie", "hold"); !strings.Contains(out, "on lost contact continue, at most 7 running, on zombie hold\n") {
		t.Errorf("set printed:\n%s", out)
	}
	if out := ok(t, server, "queue", "set", "fresh", "--max-running", "0", "--on-zombie", "default"); !strings.Contains(squeeze(out), "\nPolicy on lost contact continue\n") {
		t.Errorf("set printed:\n%s", out)
	}
	wantCode(t, stint(t, "", server, "queue", "set", "fresh", "--max-running", "-1"), 2, "--max-running")
	wantCode(t, stint(t, "", server, "queue", "set", "fresh", "--on-zombie", "pray"), 2, `--on-zombie "pray": want hold or release`)
	wantCode(t, stint(t, "", server, "queue", "set", "mail", "--lease", "1s"), 2, "INVALID_FIELD: policy.lease: ")
	const retry = "linear:2s..1h,attempts=3,on-failure=park"
	if out := ok(t, server, "queue", "set", "mail", "--retry", retry); !strings.Contains(squeeze(out), "\nPolicy retry "+retry+"\n") {
		t.Errorf("set printed:\n%s", out)
	}
	wantCode(t, stint(t, "", server, "queue", "set", "mail", "--retry", "attempts=many"), 2, `"--retry" flag: "attempts=many": want a number`)
	wantCode(t, stint(t, "", server, "queue", "set", "mail", "--retry", "attempts=1001"), 2, "INVALID_FIELD: policy.retry.max_attempts: ")
	wantCode(t, stint(t, "", server, "queue", "set", "mail", "--retry", "linear", "--max-attempts", "3"), 2, "none of the others can be")

	if out := ok(t, server, "queue", "pause", "mail", "--reason", "disk"+hostile); !strings.Contains(out, ": disk·[2J···a\n") || !strings.Contains(squeeze(out), "\nPaused since ") {
		t.Errorf("pause printed:\n%s", out)
	}
	if out := ok(t, server, "queue", "list", "mail"); !strings.HasSuffix(lines(out)[1], " yes") {
		t.Errorf("list printed:\n%s", out)
	}
	if out := ok(t, server, "queue", "resume", "mail"); strings.Contains(out, "Paused") {
		t.Errorf("resume printed:\n%s", out)
	}
	var answer stintv1.GetQueueResponse
	if err := protojson.Unmarshal([]byte(ok(t, server, "queue", "get", "mail", "-o", "json")), &answer); err != nil ||
		answer.GetQueue().GetCounts().GetReady() != 1 || answer.GetQueue().GetPolicy().GetRetry().GetMaxAttempts() != 3 {
		t.Errorf("get as JSON: %v, %v", &answer, err)
	}
	wantCode(t, stint(t, "", server, "queue", "delete", "mail"), 4, "QUEUE_NOT_EMPTY: the queue has 1 job not finished")
	submit(t, server, "doomed")
	submit(t, server, "doomed")
	if out := squeeze(ok(t, server, "queue", "delete", "doomed", "--force")); !strings.HasPrefix(out, "doomed DELETED\nJobs 2 deleted with it") {
		t.Errorf("queue delete --force printed:\n%s", out)
	}
	if out := ok(t, server, "queue", "delete", "fresh"); squeeze(out) != "fresh DELETED" {
		t.Errorf("delete printed %q", out)
	}
	for _, verb := range []string{"get", "pause", "resume", "delete"} {
		wantCode(t, stint(t, "", server, "queue", verb, "fresh"), 3, "QUEUE_NOT_FOUND: ")
		wantCode(t, stint(t, "", server, "queue", verb, "Fresh"), 2, "INVALID_FIELD: name: ")
		wantCode(t, stint(t, "", server, "queue", verb), 2, "accepts 1 arg(s)")
	}
}

// Of a policy, `queue set` changes what its flags name: everything else, also what it does not know, stays.
func TestPolicyFlags(t *testing.T) {
	for _, test := range []struct{ before, flags, after string }{
		{`{}`, "", `{}`},
		{`{"lease":"60s"}`, "--max-attempts 3", `{"lease":"60s","retry":{"maxAttempts":3}}`},
		{`{"lease":"60s"}`, "--lease 0", `{}`},
		{`{"retry":{"maxAttempts":3,"exponential":{"initial":"1s"}}}`, "--max-attempts 0", `{"retry":{"exponential":{"initial":"1s"}}}`},
		{`{"retry":{"maxAttempts":3,"exponential":{"initial":"1s"}}}`, "--retry-initial 0", `{"retry":{"maxAttempts":3}}`},
		{`{}`, "--retry-max 1h --retry-multiplier 1.5", `{"retry":{"exponential":{"max":"3600s","multiplier":1.5}}}`},
		{`{"retry":{"exponential":{"multiplier":3}}}`, "--retry-multiplier 0", `{}`},
		{`{"retry":{"constant":{"delay":"5s"},"deadline":"60s"}}`, "--max-attempts 3", `{"retry":{"maxAttempts":3,"constant":{"delay":"5s"},"deadline":"60s"}}`},
		{`{"retry":{"constant":{"delay":"5s"},"deadline":"60s"}}`, "--retry-max 60s", `{"retry":{"exponential":{"max":"60s"},"deadline":"60s"}}`},
		{`{"retry":{"exponential":{}}}`, "--lease 60s", `{"lease":"60s","retry":{"exponential":{}}}`},
		{`{"lease":"60s","retry":{"maxAttempts":3,"deadline":"60s"}}`, "--retry constant:5s", `{"lease":"60s","retry":{"constant":{"delay":"5s"}}}`},
		{`{"lease":"60s","retry":{"maxAttempts":3,"deadline":"60s"}}`, "--retry default", `{"lease":"60s"}`},
	} {
		policy := &stintv1.QueuePolicy{}
		if err := protojson.Unmarshal([]byte(test.before), policy); err != nil {
			t.Fatal(err)
		}
		c := newQueueSetCommand(&globals{})
		p := &policyFlags{}
		if err := c.ParseFlags(strings.Fields(test.flags)); err != nil {
			t.Fatal(err)
		}
		p.retry = *c.Flags().Lookup("retry").Value.(*retryPolicy)
		p.lease, _ = c.Flags().GetDuration("lease")
		p.maxAttempts, _ = c.Flags().GetUint32("max-attempts")
		p.retryInitial, _ = c.Flags().GetDuration("retry-initial")
		p.retryMax, _ = c.Flags().GetDuration("retry-max")
		p.retryMultiplier, _ = c.Flags().GetFloat64("retry-multiplier")
		p.apply(policy, c.Flags().Changed)
		got, err := compact(policy)
		if diff := cmp.Diff(test.after, string(got)); err != nil || diff != "" {
			t.Errorf("%s with %q: %v (-want +got):\n%s", test.before, test.flags, err, diff)
		}
	}
}

// noted is a server with one queue, which notes how it is updated.
type noted struct {
	stintv1.UnimplementedQueueServiceServer
	update chan *stintv1.UpdateQueueRequest
}

func (noted) GetQueue(context.Context, *stintv1.GetQueueRequest) (*stintv1.GetQueueResponse, error) {
	return &stintv1.GetQueueResponse{Queue: &stintv1.Queue{
		Name: "q", Etag: "7", Policy: &stintv1.QueuePolicy{Retry: &stintv1.RetryPolicy{MaxAttempts: 3}},
	}}, nil
}

func (n noted) UpdateQueue(_ context.Context, m *stintv1.UpdateQueueRequest) (*stintv1.UpdateQueueResponse, error) {
	n.update <- m
	return &stintv1.UpdateQueueResponse{Queue: &stintv1.Queue{Name: "q"}}, nil
}

// What `queue set` writes rests on what it read: it names the version, so that a change in between is a conflict.
func TestQueueSetNamesTheVersion(t *testing.T) {
	n := noted{update: make(chan *stintv1.UpdateQueueRequest, 1)}
	ok(t, scripted(t, n), "queue", "set", "q", "--lease", "1m")
	want := &stintv1.UpdateQueueRequest{Name: "q", Etag: "7", Policy: &stintv1.QueuePolicy{
		Lease: durationpb.New(time.Minute), Retry: &stintv1.RetryPolicy{MaxAttempts: 3},
	}}
	if diff := cmp.Diff(want, <-n.update, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// scripted is a server of queues, as the flag that names it.
func scripted(t *testing.T, queues stintv1.QueueServiceServer) string {
	t.Helper()
	return serve(t, func(s *grpc.Server) { stintv1.RegisterQueueServiceServer(s, queues) })
}

// serve is a server of what is registered, as the flag that names it.
func serve(t *testing.T, register func(*grpc.Server)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	register(s)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		<-served
	})
	return "--server=" + l.Addr().String()
}

// A worker is listed with what it holds, and a drain ends it.
func TestWorkerListAndDrain(t *testing.T) {
	server := at(t)
	opened := make(chan struct{}, 1)
	w := dial(t, server).NewWorker(client.WorkerConfig{
		Name: "render" + hostile, InstanceID: someID, OnEvent: func(e client.Event) {
			if e.Kind == client.SessionOpened {
				opened <- struct{}{}
			}
		},
	})
	w.HandlePool([]string{"media/audio", "media/video"}, 7, func(context.Context, *client.Run) error { return nil })
	ended := make(chan error, 1)
	go func() { ended <- w.Run(t.Context()) }()
	<-opened
	submitted := submit(t, server, "media/audio")
	ok(t, server, "job", "wait", "--timeout", "1m", submitted) // its demand has arrived

	out := ok(t, server, "worker", "list")
	if rows := lines(out); len(rows) != 2 || !strings.HasPrefix(rows[1], someID+"  render·[2J···a  ") ||
		!strings.Contains(squeeze(rows[1]), " connected 0 7 media/audio,media/video ") {
		t.Errorf("list printed:\n%s", out)
	}
	got := stint(t, "", server, "worker", "drain", someID, "--reason", "kernel update", "--grace", "5m")
	if got.code != 0 || squeeze(got.stdout) != someID+" DRAINING 0 runs" {
		t.Errorf("drain: %+v", got)
	}
	if err := <-ended; err != nil {
		t.Errorf("the drained worker ended with %v", err)
	}
	unknown := "018f4e7a-1c2d-4000-8000-0000000000ff"
	wantCode(t, stint(t, "", server, "worker", "drain", unknown), 3, unknown+": WORKER_NOT_FOUND: ")
	wantCode(t, stint(t, "", server, "worker", "drain", "x"), 2, "INVALID_FIELD: ")
	wantCode(t, stint(t, "", server, "worker", "drain", someID, "--grace=-1s"), 2, "INVALID_FIELD: grace: ")
}

// Every command that needs a server says in one line that there is none and how to start one, and ends with 5.
func TestNoServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close()
	for _, args := range []string{
		"submit q", "submit q --lines", "submit q --wait", "work q -- true",
		"job get " + someID, "job list", "job wait " + someID, "job interrupt --level retry " + someID, "job retry " + someID, "job park " + someID, "job delete " + someID,
		"job interrupt --level retry --all", "job retry --state failed", "job park --queue q", "job delete --all -o json",
		"queue list", "queue get q", "queue set q", "queue pause q", "queue resume q", "queue delete q",
		"worker list", "worker drain " + someID,
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			got := stint(t, "", append([]string{"--server", nobody}, strings.Fields(args)...)...)
			want := ran{code: 5, stderr: fmt.Sprintf("no server at %s; start one with: stint serve\n", nobody)}
			if got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

// The flag goes before the environment, the environment before the default.
func TestServerAddress(t *testing.T) {
	t.Setenv("STINT_SERVER", "127.0.0.1:2")
	wantCode(t, stint(t, "", "queue", "list"), 5, "no server at 127.0.0.1:2;")
	wantCode(t, stint(t, "", "queue", "list", "--server", "127.0.0.1:1"), 5, "no server at 127.0.0.1:1;")
	g := &globals{}
	t.Setenv("STINT_SERVER", "")
	newRootCommand(g)
	if g.server != "127.0.0.1:7707" {
		t.Errorf("the default is %q", g.server)
	}
}

// stuck is a server that takes calls and never answers.
type stuck struct {
	stintv1.UnimplementedQueueServiceServer
}

func (stuck) ListQueues(ctx context.Context, _ *stintv1.ListQueuesRequest) (*stintv1.ListQueuesResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// --timeout and signals end a command whatever the server does.
func TestTimeoutAndSignal(t *testing.T) {
	at := scripted(t, stuck{})
	wantCode(t, stint(t, "", at, "queue", "list", "--timeout", "50ms"), 124, "timed out\n")
	wantCode(t, stint(t, "", at, "submit", "q", "--timeout", "50ms"), 124, "timed out\n")
	ctx, signal := context.WithCancel(t.Context())
	signal()
	if got := stintUntil(ctx, "", at, "queue", "list"); got != (ran{code: 130}) {
		t.Errorf("a signal: %+v", got)
	}
}

func TestVersion(t *testing.T) {
	if out := ok(t, "version"); !strings.HasPrefix(out, "stint ") || len(strings.Fields(out)) != 4 {
		t.Errorf("got %q", out)
	}
	if out := ok(t, "version", "-o", "json"); !strings.HasPrefix(out, `{"arch":"`) {
		t.Errorf("got %q", out)
	}
	wantCode(t, stint(t, "", "version", "-o", "yaml"), 2, "want table, json or jsonl")
}
