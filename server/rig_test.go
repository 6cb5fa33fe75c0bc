package server_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/dispatch"
	"github.com/stintrun/stint/internal/store"
	"github.com/stintrun/stint/internal/store/pebblestore"
	"github.com/stintrun/stint/server"
)

// rig is a server with a store in memory and a client, all in the bubble of a test.
type rig struct {
	t       *testing.T
	ctx     context.Context
	server  *server.Server
	store   store.Store
	matcher *dispatch.Dispatcher
	conn    *grpc.ClientConn
	jobs    stintv1.JobServiceClient
	queues  stintv1.QueueServiceClient
	workers stintv1.WorkerServiceClient
	events  stintv1.EventServiceClient
	cast    *cast
	log     *logBuffer
	ended   chan error // what Serve returned
	http    *bufconn.Listener
}

// rigConfig is how a rig differs from the usual one.
type rigConfig struct {
	server server.Config
	store  pebblestore.Config
	wrap   func(store.Store) store.Store
}

// logBuffer keeps a log that many goroutines write.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// inBubble runs a test in virtual time against a rig, and takes the rig down after it.
func inBubble(t *testing.T, cfg rigConfig, test func(*rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, cfg)
		test(r)
	})
}

func newRig(t *testing.T, cfg rigConfig) *rig {
	t.Helper()
	r := &rig{t: t, ctx: t.Context(), cast: newCast(), log: &logBuffer{}, ended: make(chan error, 1), http: bufconn.Listen(1 << 16)}
	log := slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg.store.Dir, cfg.store.Logger = "data", slog.New(slog.DiscardHandler)
	if cfg.store.FS == nil {
		cfg.store.FS = vfs.NewMem()
		cfg.store.Reserve = -1
	}
	pebble, err := pebblestore.Open(cfg.store)
	if err != nil {
		t.Fatal(err)
	}
	r.store = pebble
	if cfg.wrap != nil {
		r.store = cfg.wrap(pebble)
	}
	d, err := dispatch.New(r.store, log)
	if err != nil {
		t.Fatal(err)
	}
	r.matcher = d
	if r.server, err = server.New(r.store, d, cfg.server, log); err != nil {
		t.Fatal(err)
	}
	lis := bufconn.Listen(1 << 20)
	serving := context.WithoutCancel(r.ctx)
	go func() { r.ended <- r.server.Serve(serving, lis, r.http) }()
	r.conn, err = grpc.NewClient("passthrough:///stint",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }),
		// Windows that grow would let some tests' readers be slow for longer than others'.
		grpc.WithStaticStreamWindowSize(64<<10), grpc.WithStaticConnWindowSize(1<<20),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	r.jobs = stintv1.NewJobServiceClient(r.conn)
	r.queues = stintv1.NewQueueServiceClient(r.conn)
	r.workers = stintv1.NewWorkerServiceClient(r.conn)
	r.events = stintv1.NewEventServiceClient(r.conn)
	t.Cleanup(func() {
		if err := r.conn.Close(); err != nil {
			t.Error(err)
		}
		now, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		r.server.Shutdown(now)
		if err := <-r.ended; err != nil {
			t.Error("Serve:", err)
		}
		d.Close()
		if err := pebble.Close(); err != nil {
			t.Error("close the store:", err)
		}
	})
	return r
}

// submit submits jobs, each of which must be taken.
func (r *rig) submit(jobs ...*stintv1.JobSpec) []*stintv1.SubmitResult {
	r.t.Helper()
	answer, err := r.jobs.SubmitJobs(r.ctx, &stintv1.SubmitJobsRequest{Jobs: jobs})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, result := range answer.GetResults() {
		if result.GetError() != nil {
			r.t.Fatalf("job %s was refused: %v", result.GetId(), result.GetError())
		}
	}
	return answer.GetResults()
}

// claim claims one run of the queue.
func (r *rig) claim(queue string) *stintv1.Assignment {
	r.t.Helper()
	answer, err := r.workers.ClaimJobs(r.ctx, &stintv1.ClaimJobsRequest{Worker: "test", Queues: []string{queue}})
	if err != nil {
		r.t.Fatal(err)
	}
	if len(answer.GetAssignments()) != 1 {
		r.t.Fatalf("claimed %d runs, want 1", len(answer.GetAssignments()))
	}
	return answer.GetAssignments()[0]
}

// accept names a claimed run, so that it is RUNNING.
func (r *rig) accept(a *stintv1.Assignment) {
	r.t.Helper()
	_, err := r.workers.HeartbeatRuns(r.ctx, &stintv1.HeartbeatRunsRequest{LeaseTokens: []string{a.GetLeaseToken()}})
	if err != nil {
		r.t.Fatal(err)
	}
}

// succeed finishes a run.
func (r *rig) succeed(a *stintv1.Assignment) {
	r.t.Helper()
	answer, err := r.workers.FinishRuns(r.ctx, &stintv1.FinishRunsRequest{Finishes: []*stintv1.Finish{
		{LeaseToken: a.GetLeaseToken(), Outcome: &stintv1.Finish_Success{Success: &stintv1.Success{}}},
	}})
	if err != nil {
		r.t.Fatal(err)
	}
	if got := answer.GetAcks()[0].GetStatus(); got != stintv1.FinishStatus_FINISH_STATUS_RECORDED {
		r.t.Fatalf("finish: %s", got)
	}
}

// job reads a job in whole.
func (r *rig) job(id string) *stintv1.Job {
	r.t.Helper()
	answer, err := r.jobs.GetJob(r.ctx, &stintv1.GetJobRequest{Id: id, View: stintv1.JobView_JOB_VIEW_FULL})
	if err != nil {
		r.t.Fatal(err)
	}
	return answer.GetJob()
}

// queue reads a queue.
func (r *rig) queue(name string) *stintv1.Queue {
	r.t.Helper()
	answer, err := r.queues.GetQueue(r.ctx, &stintv1.GetQueueRequest{Name: name})
	if err != nil {
		r.t.Fatal(err)
	}
	return answer.GetQueue()
}

// refusedCall is what an error of a call says: its reason, the field to blame and how long to wait.
func refusedCall(t *testing.T, err error) (reason stintv1.Reason, field string, wait time.Duration) {
	t.Helper()
	if err == nil {
		t.Fatal("the call was not refused")
	}
	return refusalOf(err)
}

// refusalOf is the same; the reason is UNSPECIFIED if the error holds none of Stint's.
func refusalOf(err error) (reason stintv1.Reason, field string, wait time.Duration) {
	for _, detail := range status.Convert(err).Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == "stint" {
				reason = stintv1.Reason(stintv1.Reason_value["REASON_"+d.GetReason()])
			}
		case *errdetails.BadRequest:
			field = d.GetFieldViolations()[0].GetField()
		case *errdetails.RetryInfo:
			wait = d.GetRetryDelay().AsDuration()
		}
	}
	return reason, field, wait
}
