package server_test

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/server"
)

// TestConfig: a server refuses a payload size that messages cannot carry, and serves the one it is given.
func TestConfig(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		for _, size := range []int{-1, server.MaxPayloadLimit + 1} {
			if _, err := server.New(r.store, r.matcher, server.Config{MaxPayload: size}, nil); err == nil {
				t.Errorf("a largest payload of %d bytes is taken", size)
			}
		}
	})
	config := rigConfig{server: server.Config{MaxPayload: server.MaxPayloadLimit, Version: "1.2.3"}}
	inBubble(t, config, func(r *rig) {
		if got := r.submitOne(&stintv1.JobSpec{Queue: "q", Payload: blob("x", server.MaxPayloadLimit+1)}); got.reason != tooLarge {
			t.Errorf("one byte too many: %s", got)
		}
		r.addBlobs("q", server.MaxPayloadLimit, "a")
		w := r.work()
		w.say(hello(newInstance()))
		if got := w.all[0].GetWelcome().GetServerVersion(); got != "1.2.3" {
			t.Errorf("the server's version is %q", got)
		}
		w.say(demand(1, "q", 1))
		w.say(finish(&stintv1.Finish{LeaseToken: r.token("a/1"), Outcome: &stintv1.Finish_Success{
			Success: &stintv1.Success{Result: blob("y", server.MaxPayloadLimit)},
		}}))
		got, err := r.jobs.GetJob(r.ctx, &stintv1.GetJobRequest{Id: r.id("a")})
		if err != nil || got.GetJob().GetState() != succeeded {
			t.Errorf("a job of the full size: %v, %v", got, err)
		}
	})
}

// TestCallDeadline: a unary call ends by itself when the store stands still, whatever its caller asked for.
func TestCallDeadline(t *testing.T) {
	faults := &faulty{}
	inBubble(t, withFaults(faults), func(r *rig) {
		began := time.Now()
		faults.stall.Store(true)
		_, err := r.jobs.SubmitJobs(r.ctx, &stintv1.SubmitJobsRequest{Jobs: []*stintv1.JobSpec{{Queue: "q"}}})
		if took := time.Since(began); status.Code(err) != codes.DeadlineExceeded || took != 30*time.Second {
			t.Errorf("the call ended with %v after %s", err, took)
		}
		faults.stall.Store(false)
	})
}

// TestOversizedMessage: a message beyond what a server takes ends its own call or stream only.
func TestOversizedMessage(t *testing.T) {
	inBubble(t, rigConfig{}, func(r *rig) {
		big := &stintv1.JobSpec{Queue: "q", Payload: blob("x", 4<<20)}
		w := r.work()
		w.say(hello(newInstance()))
		if got := r.submitOne(big); got.code != codes.ResourceExhausted {
			t.Errorf("a call: %s", got)
		}
		stream, err := r.jobs.Submit(r.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&stintv1.SubmitRequest{Jobs: []*stintv1.JobSpec{big}}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); ofCall(err).code != codes.ResourceExhausted {
			t.Errorf("a stream: %v", err)
		}
		w.say(report())
		w.expect(`
			> 1, hello
			< welcome, report in ~15s
			> 2, report
			< report 2, next in ~15s`)
	})
}

// TestServe: a listener that fails ends the server with its error, the end of the context without one; either way both
// listeners are closed.
func TestServe(t *testing.T) {
	for name, row := range map[string]struct {
		end  func(g, h net.Listener, stop context.CancelFunc)
		want string // of the error
	}{
		"gRPC listener": {func(g, _ net.Listener, _ context.CancelFunc) { g.Close() }, "serve gRPC on"},
		"HTTP listener": {func(_, h net.Listener, _ context.CancelFunc) { h.Close() }, "serve HTTP on"},
		"context":       {func(_, _ net.Listener, stop context.CancelFunc) { stop() }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, rigConfig{}, func(r *rig) {
				s, err := server.New(r.store, r.matcher, server.Config{}, slog.New(slog.DiscardHandler))
				if err != nil {
					r.t.Fatal(err)
				}
				ctx, stop := context.WithCancel(r.ctx)
				defer stop()
				g, h, ended := bufconn.Listen(1<<16), bufconn.Listen(1<<16), make(chan error, 1)
				go func() { ended <- s.Serve(ctx, g, h) }()
				synctest.Wait()
				row.end(g, h, stop)
				err = <-ended
				if (err != nil) != (row.want != "") || err != nil && !strings.Contains(err.Error(), row.want) {
					r.t.Errorf("it ended with %v, want %q", err, row.want)
				}
				for _, l := range []net.Listener{g, h} {
					if _, err := l.Accept(); err == nil {
						r.t.Error("a listener is open")
					}
				}
			})
		})
	}
}
