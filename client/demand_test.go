package client

import (
	"testing"
	"testing/synctest"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// TestLostDemandIsRepeated: the answer to a report shows that the server does not know it, also the first one of a session.
func TestLostDemandIsRepeated(t *testing.T) {
	bubble(t, func(t *testing.T, s *scripted, c *Client) {
		w := run(t, c, WorkerConfig{}, 3, untilCancelled)
		stream := next(t, s.works)
		stream.deaf.Store(true)
		lost := welcome(t, stream, 15).GetDemand()
		report := stream.recv(t)
		if report.Report == nil || report.Demand != nil {
			t.Fatalf("the worker says %v; want a report", report)
		}
		answer := &stintv1.ReportAnswer{Seq: report.Seq, NextReportIn: seconds(15)}
		stream.send(t, &stintv1.WorkResponse{ReportAnswer: answer})
		again := stream.recv(t)
		if d := again.GetDemand(); d.GetVersion() <= lost.GetVersion() || len(d.GetPools()) != 1 || d.GetPools()[0].GetMaxRuns() != 3 {
			t.Fatalf("the worker says %v; want its demand once more", again)
		}
		stream.deaf.Store(false)
		report = stream.recv(t)
		stream.send(t, &stintv1.WorkResponse{ReportAnswer: &stintv1.ReportAnswer{Seq: report.Seq, NextReportIn: seconds(15)}})
		synctest.Wait()
		if req := stream.recv(t); req.Demand != nil || req.Report == nil {
			t.Errorf("the worker says %v; want a report only, for the server knows its demand", req)
		}
		w.kill(t)
	})
}
