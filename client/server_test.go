package client

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// patience is the virtual time after which a test gives up on an event.
const patience = 10 * time.Minute

// scripted is a server whose lines the test says: it hands each Work and Submit stream to the test, and answers unary
// calls by the test's functions. It runs in the test's bubble, over memory.
type scripted struct {
	stintv1.UnimplementedJobServiceServer
	stintv1.UnimplementedWorkerServiceServer
	stintv1.UnimplementedQueueServiceServer

	works      chan *conversation[stintv1.WorkRequest, stintv1.WorkResponse]
	submits    chan *conversation[stintv1.SubmitRequest, stintv1.SubmitResponse]
	submitJobs func(*stintv1.SubmitJobsRequest) (*stintv1.SubmitJobsResponse, error)
	getJob     func(*stintv1.GetJobRequest) (*stintv1.GetJobResponse, error)
	waitJob    func(*stintv1.WaitJobRequest, grpc.ServerStreamingServer[stintv1.WaitJobResponse]) error
	interrupt  func(*stintv1.InterruptJobsRequest) (*stintv1.InterruptJobsResponse, error)
	park       func(*stintv1.ParkJobsRequest) (*stintv1.ParkJobsResponse, error)
	retry      func(*stintv1.RetryJobsRequest) (*stintv1.RetryJobsResponse, error)
	update     func(*stintv1.UpdateJobRequest) (*stintv1.UpdateJobResponse, error)
	claim      func(*stintv1.ClaimJobsRequest) (*stintv1.ClaimJobsResponse, error)
}

func (s *scripted) ClaimJobs(_ context.Context, req *stintv1.ClaimJobsRequest) (*stintv1.ClaimJobsResponse, error) {
	return s.claim(req)
}

func (s *scripted) UpdateJob(_ context.Context, req *stintv1.UpdateJobRequest) (*stintv1.UpdateJobResponse, error) {
	return s.update(req)
}

func (s *scripted) RetryJobs(_ context.Context, req *stintv1.RetryJobsRequest) (*stintv1.RetryJobsResponse, error) {
	return s.retry(req)
}

func (s *scripted) ParkJobs(_ context.Context, req *stintv1.ParkJobsRequest) (*stintv1.ParkJobsResponse, error) {
	return s.park(req)
}

func (s *scripted) Work(stream stintv1.WorkerService_WorkServer) error {
	return converse(s.works, stream)
}

func (s *scripted) Submit(stream stintv1.JobService_SubmitServer) error {
	return converse(s.submits, stream)
}

func (s *scripted) SubmitJobs(_ context.Context, req *stintv1.SubmitJobsRequest) (*stintv1.SubmitJobsResponse, error) {
	return s.submitJobs(req)
}

func (s *scripted) GetJob(_ context.Context, req *stintv1.GetJobRequest) (*stintv1.GetJobResponse, error) {
	return s.getJob(req)
}

func (s *scripted) WaitJob(req *stintv1.WaitJobRequest, stream stintv1.JobService_WaitJobServer) error {
	return s.waitJob(req, stream)
}

func (s *scripted) InterruptJobs(_ context.Context, req *stintv1.InterruptJobsRequest) (*stintv1.InterruptJobsResponse, error) {
	return s.interrupt(req)
}

// conversation is one stream, in the hands of the test.
type conversation[Req, Resp any] struct {
	stream grpc.BidiStreamingServer[Req, Resp]
	in     chan *Req
	end    chan error
	once   sync.Once
	demand atomic.Uint64 // the version of the last one, of a worker
	deaf   atomic.Bool   // it does not say so
}

// converse hands a stream to the test and lives until the test, or the client, ends it. A client that closes its half
// sees the stream end well.
func converse[Req, Resp any](to chan<- *conversation[Req, Resp], stream grpc.BidiStreamingServer[Req, Resp]) error {
	c := &conversation[Req, Resp]{stream: stream, in: make(chan *Req, 4096), end: make(chan error, 1)}
	received := make(chan error, 1)
	go func() {
		defer close(c.in)
		for {
			req, err := stream.Recv()
			if err != nil {
				received <- err
				return
			}
			if m, ok := any(req).(*stintv1.WorkRequest); ok && m.Demand != nil {
				c.demand.Store(m.Demand.Version)
			}
			c.in <- req
		}
	}()
	to <- c
	select {
	case err := <-c.end:
		return err
	case err := <-received:
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
}

// recv returns the client's next message.
func (c *conversation[Req, Resp]) recv(t *testing.T) *Req {
	t.Helper()
	select {
	case req, ok := <-c.in:
		if !ok {
			t.Fatal("the client ended the stream; want a message")
		}
		return req
	case <-time.After(patience):
		t.Fatal("no message from the client")
	}
	return nil
}

// quiet checks that the client says nothing for d.
func (c *conversation[Req, Resp]) quiet(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case req, ok := <-c.in:
		t.Fatalf("the client said %v (open %v); want silence", req, ok)
	case <-time.After(d):
	}
}

// ended waits until the client has ended the stream, and returns what it said before.
func (c *conversation[Req, Resp]) ended(t *testing.T) (said []*Req) {
	t.Helper()
	giveUp := time.After(patience)
	for {
		select {
		case req, ok := <-c.in:
			if !ok {
				return said
			}
			said = append(said, req)
		case <-giveUp:
			t.Fatal("the client did not end the stream")
		}
	}
}

func (c *conversation[Req, Resp]) send(t *testing.T, resp *Resp) {
	t.Helper()
	if m, ok := any(resp).(*stintv1.WorkResponse); ok && m.DemandVersion == 0 && !c.deaf.Load() {
		m.DemandVersion = c.demand.Load()
	}
	if err := c.stream.Send(resp); err != nil {
		t.Fatalf("Send: %v", err)
	}
}

// fail ends the stream with an error.
func (c *conversation[Req, Resp]) fail(err error) { c.once.Do(func() { c.end <- err }) }

// next returns the next stream that the client opens.
func next[T any](t *testing.T, streams <-chan T) T {
	t.Helper()
	select {
	case c := <-streams:
		return c
	case <-time.After(patience):
		t.Fatal("the client opened no stream")
	}
	panic("unreachable")
}

// bubble runs a test in virtual time, with a server and a client of it.
func bubble(t *testing.T, test func(t *testing.T, s *scripted, c *Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{
			works:   make(chan *conversation[stintv1.WorkRequest, stintv1.WorkResponse], 16),
			submits: make(chan *conversation[stintv1.SubmitRequest, stintv1.SubmitResponse], 16),
		}
		listener := bufconn.Listen(1 << 20)
		server := grpc.NewServer(grpc.MaxRecvMsgSize(maxSend), grpc.KeepaliveEnforcementPolicy(
			keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}))
		stintv1.RegisterJobServiceServer(server, s)
		stintv1.RegisterWorkerServiceServer(server, s)
		stintv1.RegisterQueueServiceServer(server, s)
		served := make(chan error, 1)
		go func() { served <- server.Serve(listener) }()
		c, err := Dial("passthrough:///scripted", grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return listener.DialContext(ctx)
		}))
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			server.Stop()
			<-served
		}()
		test(t, s, c)
	})
}

// refusal is a status as the server sends it.
func refusal(code codes.Code, reason string) error {
	st, err := status.New(code, "refused").WithDetails(&errdetails.ErrorInfo{Domain: "stint", Reason: reason})
	if err != nil {
		panic(err)
	}
	return st.Err()
}

func seconds(n float64) *durationpb.Duration {
	return durationpb.New(time.Duration(n * float64(time.Second)))
}
