package client

import (
	"context"
	"fmt"
	"net"
	"testing"

	"google.golang.org/grpc"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// echo is a server without a store: it assigns what is demanded and records what is finished.
type echo struct {
	stintv1.UnimplementedWorkerServiceServer
	stintv1.UnimplementedJobServiceServer
	messages int
}

func (e *echo) Work(stream stintv1.WorkerService_WorkServer) error {
	seq, limit, inFlight := uint64(0), 0, 0
	payload := &stintv1.Payload{Content: &stintv1.Payload_Data{Data: make([]byte, 100)}}
	for {
		req, err := stream.Recv()
		if err != nil {
			return nil //nolint:nilerr // the worker left
		}
		e.messages++
		resp := &stintv1.WorkResponse{Drained: req.Drain != nil}
		if req.Hello != nil {
			resp.Welcome = &stintv1.Welcome{NextReportIn: seconds(3)}
		}
		if req.Report != nil {
			resp.ReportAnswer = &stintv1.ReportAnswer{Seq: req.Seq, NextReportIn: seconds(3)}
		}
		if req.Demand != nil {
			limit = 0
			for _, p := range req.Demand.Pools {
				limit += int(p.MaxRuns)
			}
		}
		for _, f := range req.Finishes {
			inFlight--
			resp.FinishAcks = append(resp.FinishAcks, &stintv1.FinishAck{LeaseToken: f.LeaseToken, Status: 1, JobState: 7})
		}
		for inFlight < limit {
			inFlight++
			seq++
			resp.Assignments = append(resp.Assignments, &stintv1.Assignment{
				AssignmentSeq: seq, LeaseToken: fmt.Sprintf("token-of-a-usual-length-0123456789-%012d", seq),
				JobId: "0197a0a0-0000-7000-8000-000000000000", Queue: "q", RunNumber: 1, Fence: seq, Payload: payload, Lease: seconds(30),
			})
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
}

func (e *echo) Submit(stream stintv1.JobService_SubmitServer) error {
	for {
		req, err := stream.Recv()
		if err != nil {
			return nil //nolint:nilerr // the client left
		}
		if err := stream.Send(&stintv1.SubmitResponse{Results: created(req.Jobs)}); err != nil {
			return err
		}
	}
}

func serveEcho(b *testing.B) (*echo, *Client) {
	b.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	e := &echo{}
	server := grpc.NewServer()
	stintv1.RegisterWorkerServiceServer(server, e)
	stintv1.RegisterJobServiceServer(server, e)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	c, err := Dial(listener.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = c.Close()
		server.Stop()
		<-served
	})
	return e, c
}

// BenchmarkWorker measures empty handlers over one session, with the echo server's share.
func BenchmarkWorker(b *testing.B) {
	for _, concurrency := range []int{1, 50, 500} {
		b.Run(fmt.Sprint(concurrency), func(b *testing.B) {
			e, c := serveEcho(b)
			b.ReportAllocs()
			w := c.NewWorker(WorkerConfig{MaxRuns: max(b.N, 1)})
			w.Handle("q", concurrency, func(context.Context, *Run) error { return nil })
			if err := w.Run(b.Context()); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/float64(e.messages), "runs/message")
		})
	}
}

// BenchmarkSubmitter measures submits over one stream, with the echo server's share.
func BenchmarkSubmitter(b *testing.B) {
	_, c := serveEcho(b)
	b.ReportAllocs()
	payload := make([]byte, 100)
	s := c.SubmitStream(b.Context(), SubmitConfig{})
	for range b.N {
		if err := s.Send(b.Context(), Job{Queue: "q", Payload: payload}); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}
