//go:build blackbox

package blackbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// promise is within which time the server must have noticed what happens to its disk.
const promise = 5 * time.Second

// disk is a small file system of this test alone.
type disk struct {
	t    *testing.T
	path string
}

func newDisk(t *testing.T, size uint64) *disk {
	t.Helper()
	path := t.TempDir()
	if err := unix.Mount("tmpfs", path, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", size)); err != nil {
		t.Fatalf("cannot mount a file system to fill: %v; this test needs root, with the right to mount (CAP_SYS_ADMIN)", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return &disk{t, path}
}

func (d *disk) data() string { return filepath.Join(d.path, "data") }

// fill takes all space but so many bytes, piece by piece, for a server is at work on the disk.
func (d *disk) fill(free uint64) {
	d.t.Helper()
	ballast, err := os.Create(filepath.Join(d.path, "ballast"))
	if err != nil {
		d.t.Fatal(err)
	}
	defer ballast.Close()
	const page = 4 << 10
	size := int64(0)
	for piece := int64(1 << 20); piece >= page; {
		var usage unix.Statfs_t
		if err := unix.Statfs(d.path, &usage); err != nil {
			d.t.Fatal(err)
		}
		if usage.Bavail*uint64(usage.Bsize) < free+uint64(piece) {
			piece /= 2
			continue
		}
		switch err := unix.Fallocate(int(ballast.Fd()), 0, size, piece); {
		case err == nil:
			size += piece
		case !errors.Is(err, unix.ENOSPC):
			d.t.Fatal(err)
		}
	}
}

// clear gives the space back.
func (d *disk) clear() {
	d.t.Helper()
	if err := os.Remove(filepath.Join(d.path, "ballast")); err != nil {
		d.t.Fatal(err)
	}
}

// TestReserve takes the free space under the reserve and gives it back. In between new jobs are refused, each by itself
// and with the time to wait, and what is there is worked on as ever.
func TestReserve(t *testing.T) {
	t.Parallel()
	const reserve = 64 << 20
	d := newDisk(t, 4*reserve)
	s := serve(t, d.data(), "--reserve", "64MiB")
	c := s.client()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for range 10 {
		s.submit("q", "x")
	}
	cancelled := s.submit("q", "cancelled")

	d.fill(reserve / 2)
	s.await(s.stderr, "that space is short", func(log string) bool { return strings.Contains(log, "full=true") })
	if r := s.run("submit", "q", "--data", "x"); r.code != 1 || !strings.HasPrefix(r.stderr, "STORAGE_FULL: ") {
		t.Errorf("stint submit: %+v, want 1 and STORAGE_FULL", r)
	}
	var answers []client.Submitted
	stream := c.SubmitStream(ctx, client.SubmitConfig{OnResult: func(a client.Submitted) { answers = append(answers, a) }})
	for range 3 {
		if err := stream.Send(ctx, client.Job{Queue: "q"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := stream.Close(); err != nil {
		t.Fatal(err)
	}
	unary, err := c.Submit(ctx, client.Job{Queue: "q"})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range append(answers, unary...) {
		var refused *client.ItemError
		if !errors.As(a.Err, &refused) || refused.Reason != stintv1.Reason_REASON_STORAGE_FULL || refused.RetryAfter <= 0 {
			t.Errorf("a submit is answered %+v, want STORAGE_FULL with the time to wait", a)
		}
	}
	if len(answers) != 3 {
		t.Errorf("%d of 3 jobs of the stream were answered", len(answers))
	}

	s.must("job", "interrupt", "--level", "cancel", cancelled)
	s.must("work", "q", "--until-empty", "--", "true")
	s.wantCounts("q", &stintv1.JobCounts{Succeeded: 10, Cancelled: 1})

	d.clear()
	deadline := time.After(promise)
	for {
		answer, err := c.Submit(ctx, client.Job{Queue: "q"})
		if err != nil {
			t.Fatal(err)
		}
		var refused *client.ItemError
		if !errors.As(answer[0].Err, &refused) {
			break
		}
		select {
		case <-time.After(refused.RetryAfter):
		case <-deadline:
			t.Fatalf("a submit is answered %v, %v after space has returned", refused, promise)
		}
	}
	s.wantCounts("q", &stintv1.JobCounts{Ready: 1, Succeeded: 10, Cancelled: 1})
}

// TestDiskFull fills the disk to the last byte under a server without a reserve. It ends with its code, having
// acknowledged nothing that is not there when it starts again with space. A young store finds no room for its log; one
// that has written much writes its log over old ones, and finds no room for its tables.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		warm int // MiB written before
	}{
		{"log", 0},
		{"tables", 256},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newDisk(t, 384<<20)
			s := serve(t, d.data(), "--reserve", "0")
			jobs := make([]client.Job, test.warm)
			for i := range jobs {
				jobs[i] = client.Job{Queue: "warm", Payload: make([]byte, 1<<20)}
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := submitAll(ctx, s.client(), jobs); err != nil {
				t.Fatal(err)
			}
			d.fill(0)
			acknowledged, last := submitUntilItEnds(s)
			if code := s.end(promise); code != 10 {
				t.Errorf("the server ended with %d, want 10", code)
			}
			if took := time.Since(last); took > promise {
				t.Errorf("the server ended %v after its last acknowledgement, want at most %v", took, promise)
			}
			if !strings.Contains(s.stderr.String(), "start the server again") {
				t.Errorf("the server does not say what to do: %s", tail(s.stderr.String()))
			}

			// A start on the full disk ends in the same way, unless it finds room by clearing up.
			full := start(t, stint(t, "serve", "--data", d.data(), "--listen", "127.0.0.1:0", "--http", "", "--reserve", "0"))
			full.await(full.stderr, "why it ends, or what to try", func(said string) bool { return lines(said) > 0 })
			full.signal(unix.SIGTERM)
			if code := full.end(patience); code != 10 && (code != 0 || lines(full.stdout.String()) != 1) {
				t.Errorf("a start on the full disk ended with %d, want 10, or 0 after its ready line", code)
			}

			d.clear()
			s = s.again()
			wantPayloads(s, acknowledged)
			s.submit("other", "x")
			s.must("work", "other", "--until-empty", "--", "true")
			s.wantCounts("other", &stintv1.JobCounts{Succeeded: 1})
		})
	}
}

// payloadFor is what a job carries, large enough to fill a disk soon.
func payloadFor(id string) []byte { return []byte(strings.Repeat(id+"\n", 1000)) }

// submitUntilItEnds submits jobs until the server is gone. It returns the ids that were acknowledged, and when the last
// of them was.
func submitUntilItEnds(s *server) (acknowledged map[string]bool, last time.Time) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	go func() {
		select {
		case <-s.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	var mu sync.Mutex
	acknowledged, last = make(map[string]bool), time.Now()
	stream := s.client().SubmitStream(ctx, client.SubmitConfig{OnResult: func(a client.Submitted) {
		mu.Lock()
		defer mu.Unlock()
		if a.Err == nil {
			acknowledged[a.ID], last = true, time.Now()
		}
	}})
	for {
		id := uuid.Must(uuid.NewV7()).String()
		if err := stream.Send(ctx, client.Job{ID: id, Queue: "fill", Payload: payloadFor(id)}); err != nil {
			break
		}
	}
	_ = stream.Close() // the server is gone
	select {
	case <-s.ended:
	default:
		s.t.Fatalf("the server did not end within %v on a full disk; %d jobs were acknowledged", patience, len(acknowledged))
	}
	return acknowledged, last
}

// wantPayloads checks that every acknowledged job is there, whole.
func wantPayloads(s *server, acknowledged map[string]bool) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	c := s.client()
	missing := len(acknowledged)
	req := &stintv1.ListJobsRequest{
		Filter: &stintv1.JobFilter{Queue: "fill"}, View: stintv1.JobView_JOB_VIEW_FULL, PageSize: 200,
	}
	for {
		page, err := c.Jobs().ListJobs(ctx, req)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, job := range page.GetJobs() {
			if string(job.GetPayload().GetData()) != string(payloadFor(job.GetId())) {
				s.t.Errorf("job %s has not the payload that was submitted", job.GetId())
			}
			if acknowledged[job.GetId()] {
				missing--
			}
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	if missing != 0 {
		s.t.Errorf("%d of %d acknowledged jobs are missing", missing, len(acknowledged))
	}
}
