//go:build blackbox

package blackbox

import (
	"context"
	"encoding/json"
	"os/exec"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// server is a running `stint serve`.
type server struct {
	*process

	data  string
	flags []string
	ready readyLine
}

// readyLine is what `serve --ready json` prints when it takes calls.
type readyLine struct {
	GRPC string `json:"grpc"`
	HTTP string `json:"http"`
	Data string `json:"data"`
	PID  int    `json:"pid"`
}

// serve starts a server on a data directory and free ports, and waits until it takes calls. Flags come last.
func serve(t *testing.T, data string, flags ...string) *server {
	t.Helper()
	return serveAt(t, data, "127.0.0.1:0", "127.0.0.1:0", flags)
}

func serveAt(t *testing.T, data, grpc, http string, flags []string) *server {
	t.Helper()
	args := slices.Concat([]string{"serve", "--data", data, "--listen", grpc, "--http", http, "--ready", "json"}, flags)
	s := &server{process: start(t, stint(t, args...)), data: data, flags: flags}
	s.await(s.stdout, "its ready line", func(text string) bool { return lines(text) > 0 })
	if err := json.Unmarshal([]byte(s.stdout.String()), &s.ready); err != nil {
		t.Fatalf("the ready line is no JSON: %v: %q", err, s.stdout)
	}
	return s
}

// again starts the server again, on the same data and ports. The one before has ended.
func (s *server) again() *server {
	s.t.Helper()
	return serveAt(s.t, s.data, s.ready.GRPC, s.ready.HTTP, s.flags)
}

// stint is a command line of the binary that goes to this server.
func (s *server) stint(args ...string) *exec.Cmd {
	s.t.Helper()
	cmd := stint(s.t, args...)
	// What a killed worker leaves behind goes with the test.
	cmd.Env = append(cmd.Env, "STINT_SERVER="+s.ready.GRPC, "TMPDIR="+s.t.TempDir())
	return cmd
}

// run runs a command line of the binary to its end.
func (s *server) run(args ...string) result {
	s.t.Helper()
	return run(s.t, s.stint(args...))
}

// must is run where only success will do; it returns what was written to standard output.
func (s *server) must(args ...string) string {
	s.t.Helper()
	r := s.run(args...)
	if r.code != 0 {
		s.t.Fatalf("stint %q ended with %d: %s", args, r.code, r.stderr)
	}
	return r.stdout
}

// client returns a client of the server, which outlives its restarts.
func (s *server) client() *client.Client {
	s.t.Helper()
	c, err := client.Dial(s.ready.GRPC)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

// job reads a job by the command line.
func (s *server) job(id string) *stintv1.Job {
	s.t.Helper()
	answer := &stintv1.GetJobResponse{}
	decode(s.t, s.must("job", "get", id, "-o", "json"), answer)
	return answer.GetJob()
}

// wantCounts checks by the command line that a queue holds these jobs and no others.
func (s *server) wantCounts(queue string, want *stintv1.JobCounts) {
	s.t.Helper()
	answer := &stintv1.GetQueueResponse{}
	decode(s.t, s.must("queue", "get", queue, "-o", "json"), answer)
	if diff := cmp.Diff(want, answer.GetQueue().GetCounts(), protocmp.Transform()); diff != "" {
		s.t.Errorf("counts of queue %s (-want +got):\n%s", queue, diff)
	}
}

// decode reads proto3 JSON.
func decode(t *testing.T, text string, into proto.Message) {
	t.Helper()
	if err := protojson.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("not the JSON of %T: %v: %s", into, err, tail(text))
	}
}

// accepted waits until a job's run was accepted by its worker.
func (s *server) accepted(c *client.Client, id string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	stream, err := c.Jobs().WaitJob(ctx, &stintv1.WaitJobRequest{Id: id, Until: stintv1.WaitUntil_WAIT_UNTIL_ACCEPTED})
	for err == nil {
		var answer *stintv1.WaitJobResponse
		if answer, err = stream.Recv(); answer.GetReached() {
			return
		}
	}
	s.t.Fatalf("wait until %s is accepted: %v", id, err)
}
