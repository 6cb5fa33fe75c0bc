package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// ran is what a command line did.
type ran struct {
	code           int
	stdout, stderr string
}

// stint runs a command line in this process, as main would. One that goes on for ever is stopped in the end.
func stint(t *testing.T, stdin string, args ...string) ran {
	t.Helper()
	ctx, signal := context.WithCancel(t.Context())
	defer signal()
	defer time.AfterFunc(time.Minute, signal).Stop()
	return stintUntil(ctx, stdin, args...)
}

// stintUntil is stint with a context whose end is a signal to stop.
func stintUntil(ctx context.Context, stdin string, args ...string) ran {
	var stdout, stderr bytes.Buffer
	code := run(ctx, args, strings.NewReader(stdin), &stdout, &stderr)
	return ran{code, stdout.String(), stderr.String()}
}

// ok runs a command line that must end with 0, and returns its output.
func ok(t *testing.T, args ...string) string {
	t.Helper()
	got := stint(t, "", args...)
	if got.code != 0 {
		t.Fatalf("stint %s: ended with %d: %s", strings.Join(args, " "), got.code, got.stderr)
	}
	return got.stdout
}

// wantCode checks how a command line ended, and that its standard error says why.
func wantCode(t *testing.T, got ran, code int, says string) {
	t.Helper()
	if got.code != code || !strings.Contains(got.stderr, says) {
		t.Errorf("ended with %d and %q on standard error, want %d and %q in it", got.code, got.stderr, code, says)
	}
}

// ready is the ready line of a server.
type ready struct {
	GRPC, HTTP, Data string
	PID              int
}

// serving runs `stint serve` in this process until the test is over, and tells where. A stop must end it with 0.
func serving(t *testing.T, flags ...string) ready {
	t.Helper()
	line, stop := startServer(t, flags...)
	t.Cleanup(func() {
		if got := stop(); got.code != 0 {
			t.Errorf("the server ended with %d: %s", got.code, got.stderr)
		}
	})
	return line
}

// startServer runs `stint serve`, on free ports and with its ready line as JSON, until stop is called.
func startServer(t *testing.T, flags ...string) (line ready, stop func() ran) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	out, printed := io.Pipe()
	ended := make(chan ran, 1)
	go func() {
		var stderr bytes.Buffer
		args := append([]string{"serve", "--ready", "json", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"}, flags...)
		code := run(ctx, args, strings.NewReader(""), printed, &stderr)
		printed.Close()
		ended <- ran{code: code, stderr: stderr.String()}
	}()
	stop = func() ran {
		cancel()
		return <-ended
	}
	if err := json.NewDecoder(out).Decode(&line); err != nil {
		t.Fatalf("no ready line: %v; the server ended with %+v", err, stop())
	}
	return line, stop
}

// at is a server in memory, as the flag that names it.
func at(t *testing.T) string {
	t.Helper()
	return "--server=" + serving(t, "--memory").GRPC
}

// dial is a client of the server that the flag names.
func dial(t *testing.T, server string) *client.Client {
	t.Helper()
	c, err := client.Dial(strings.TrimPrefix(server, "--server="))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// get is a job as the server has it.
func get(t *testing.T, c *client.Client, id string) *stintv1.Job {
	t.Helper()
	job, err := c.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return job
}

// lines are the lines of an output.
func lines(s string) []string { return strings.Split(strings.TrimSuffix(s, "\n"), "\n") }
