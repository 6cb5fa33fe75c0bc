package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// A line is its bytes without the line feed, however long the reader's buffer is; too long a line costs itself only.
func TestReadLine(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	const tooLong = "(too long)"
	for _, test := range []struct {
		name, input string
		want        []string
	}{
		{"nothing", "", nil},
		{"one", "a\n", []string{"a"}},
		{"the last without an end", "a\nb", []string{"a", "b"}},
		{"empty ones", "\n\na\n\n", []string{"", "", "a", ""}},
		{"any bytes", "a\r\n\x00\xff\n", []string{"a\r", "\x00\xff"}},
		{"of the buffer's size", "123456789012345\n1234567890123456\n12345678901234567\n", []string{"123456789012345", "1234567890123456", "12345678901234567"}},
		{"the longest", long + "\n" + long, []string{long, long}},
		{"too long", "a\n" + long + "y\nb\n", []string{"a", tooLong, "b"}},
		{"much too long", long + long + "\n" + long + long + "\nb", []string{tooLong, tooLong, "b"}},
		{"too long without an end", "a\n" + long + "y", []string{"a", tooLong}},
		{"much too long without an end", long + long, []string{tooLong}},
	} {
		in := bufio.NewReaderSize(strings.NewReader(test.input), 16)
		var got []string
		var err error
		for {
			var text []byte
			if text, err = readLine(in); err == nil {
				got = append(got, string(text))
			} else if errors.Is(err, errLongLine) {
				got = append(got, tooLong)
			} else {
				break
			}
		}
		if !cmp.Equal(test.want, got) || !errors.Is(err, io.EOF) {
			t.Errorf("%s: got %d lines, then %v:\n%.200q\nwant %d:\n%.200q", test.name, len(got), err, got, len(test.want), test.want)
		}
	}
}

// Reading ends with the input's error, told with its line's number; a cut-off line is not taken for a whole one.
func TestReadLinesTellsThatReadingFailed(t *testing.T) {
	broken := errors.New("broken pipe")
	var got []line
	for l := range readLines(t.Context(), io.MultiReader(strings.NewReader("a\nb"), iotest.ErrReader(broken))) {
		got = append(got, l)
	}
	if len(got) != 2 || string(got[0].text) != "a" || got[0].err != nil || !errors.Is(got[1].err, broken) || got[1].number != 2 {
		t.Errorf("got %+v", got)
	}
}

// Nobody reads on once the command is over, also if nobody takes what was read.
func TestReadLinesEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	endless, _ := io.Pipe()
	lines := readLines(ctx, io.MultiReader(strings.NewReader(strings.Repeat("a\n", 1000)), endless))
	<-lines
	cancel()
	read := 1
	for range lines {
		read++
	}
	if read > 200 {
		t.Errorf("read %d lines after the end", read)
	}
}

func TestSubmitLines(t *testing.T) {
	server := at(t)
	got := stint(t, "one\n\nthree", server, "submit", "numbers", "--lines", "--label", "a=1")
	wantCode(t, got, 0, "submitted 3 jobs in ")
	c := dial(t, server)
	var payloads []string
	for _, id := range lines(got.stdout) {
		job := get(t, c, id)
		payloads = append(payloads, string(job.GetPayload().GetData()))
		if job.GetQueue() != "numbers" || job.GetLabels()["a"] != "1" {
			t.Errorf("stored %v", job)
		}
	}
	if diff := cmp.Diff([]string{"one", "", "three"}, payloads); diff != "" {
		t.Errorf("payloads (-want +got):\n%s", diff)
	}
	if got := stint(t, "x\ny\n", server, "submit", "numbers", "--lines", "-o", "jsonl"); got.code != 0 ||
		strings.Count(got.stdout, `"status":"SUBMIT_STATUS_CREATED","state":"JOB_STATE_READY"`) != 2 {
		t.Errorf("got %+v", got)
	}
	if got := stint(t, "", server, "submit", "numbers", "--lines", "-o", "json"); got.code != 0 || got.stdout != "{\"results\":[\n]}\n" {
		t.Errorf("no lines: got %+v", got)
	}
}

// A line that this side or the server refuses is named, with its number; the others are stored.
func TestSubmitLinesGoesOnAfterARefusedLine(t *testing.T) {
	server := "--server=" + serving(t, "--memory", "--max-payload", "4").GRPC
	input := "good\nworse\n" + strings.Repeat("x", maxLine+1) + "\nfine\n"
	got := stint(t, input, server, "submit", "numbers", "--lines")
	wantCode(t, got, 1, "line 2: TOO_LARGE: payload: ")
	wantCode(t, got, 1, "line 3: longer than 3145728 bytes\n")
	wantCode(t, got, 1, "submitted 2 jobs in ")
	if n := len(lines(got.stdout)); n != 2 {
		t.Errorf("%d ids on standard output, want 2:\n%s", n, got.stdout)
	}
}

// The exit code is the worst outcome, and standard error says which job it was and why.
func TestSubmitLinesAndWait(t *testing.T) {
	server := at(t)
	worked := make(chan ran, 1)
	work := `case $(cat) in bad) echo it is bad >&2; exit 3;; odd) exit 4;; esac`
	go func() {
		worked <- stintUntil(t.Context(), "", server, "work", "numbers", "--max-runs", "4", "--fail-code", "3", "--park-code", "4", "--", "sh", "-c", work)
	}()
	got := stint(t, "good\nbad\nodd\nfine\n", server, "submit", "numbers", "--lines", "--wait", "--timeout", "1m")
	wantCode(t, got, 1, " is FAILED: exit status 3\n  | it is bad\n")
	wantCode(t, got, 1, " is PARKED: WORKER: exit status 4\n")
	wantCode(t, got, 1, "1 PARKED, 2 SUCCEEDED, 1 FAILED\n")
	wantCode(t, <-worked, 0, "4 runs, 4 outcomes recorded\n")
}

// A signal ends a submit whose input is still open, without waiting for the input.
func TestSubmitLinesStops(t *testing.T) {
	server := at(t)
	ctx, signal := context.WithCancel(t.Context())
	input, feed := io.Pipe()
	ended := make(chan int, 1)
	stdout, printed := io.Pipe()
	go func() {
		code := run(ctx, []string{server, "submit", "numbers", "--lines"}, input, printed, io.Discard)
		printed.Close()
		ended <- code
	}()
	if _, err := feed.Write([]byte("one\n")); err != nil {
		t.Fatal(err)
	}
	id, err := bufio.NewReader(stdout).ReadString('\n') // the first job is stored
	if err != nil {
		t.Fatal(err)
	}
	signal()
	if code := <-ended; code != 130 {
		t.Errorf("ended with %d, want 130", code)
	}
	if job := get(t, dial(t, server), strings.TrimSpace(id)); job.GetState() != stintv1.JobState_JOB_STATE_READY {
		t.Errorf("the first job is %s", job.GetState())
	}
}
