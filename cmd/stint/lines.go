package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/stintrun/stint/client"
	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// maxLine is the longest line that is sent: the largest payload that a server can be set to take.
const maxLine = 3 << 20

// line is one line of the input.
type line struct {
	number int // From 1.
	text   []byte
	err    error // It is not to be submitted.
}

// lineSubmitter submits a job for each line and tells what became of it.
type lineSubmitter struct {
	g    *globals
	bar  *progress
	list *list // Nil: plain ids, or nothing.
	ids  bool

	mu       sync.Mutex
	lines    map[string]int              // Line numbers of unanswered jobs.
	jobs     map[string]stintv1.JobState // As of the answers; kept only to wait for. One may hold the key of many.
	count    int
	held     int // Jobs that were not stored, for another one holds their key.
	wait     bool
	errs     itemErrors
	writeErr error
}

// submitLines submits a job like the given one for each line of standard input.
func (g *globals) submitLines(ctx context.Context, c *client.Client, like client.Job, wait bool) error {
	s := &lineSubmitter{
		g: g, lines: map[string]int{}, jobs: map[string]stintv1.JobState{}, wait: wait, errs: itemErrors{g: g},
		bar: newProgress(g.stderr, g.stdin), ids: !isTerminal(g.stdout),
	}
	if g.output == jsons || g.output == jsonl {
		s.list = g.newList("results")
	}
	began := time.Now()
	stop := s.bar.run()
	err := s.stream(ctx, c, like)
	stop()
	took := time.Since(began)
	fmt.Fprintf(g.stderr, "submitted %d jobs in %s (%.0f/s)\n", s.count, took.Round(time.Millisecond), float64(s.count)/took.Seconds())
	if s.held > 0 {
		fmt.Fprintf(g.stderr, "not stored: %s, because another one holds the key\n", jobCount(s.held))
	}
	if s.list != nil {
		err = errors.Join(err, s.list.end())
	}
	if err = errors.Join(err, s.writeErr); err != nil {
		return err
	}
	if wait {
		err = g.waitForLines(ctx, c, s.jobs)
	}
	if refused := s.errs.exit(); refused != nil {
		return refused
	}
	return err
}

func (s *lineSubmitter) stream(ctx context.Context, c *client.Client, like client.Job) error {
	stream := c.SubmitStream(ctx, client.SubmitConfig{OnResult: s.answered})
	err := s.send(ctx, stream, like)
	return errors.Join(err, stream.Close())
}

func (s *lineSubmitter) send(ctx context.Context, stream *client.Submitter, like client.Job) error {
	lines := readLines(ctx, s.g.stdin)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case l, more := <-lines:
			if !more {
				return nil
			}
			s.bar.read(len(l.text) + 1)
			if l.err != nil {
				s.refused(l.number, l.err)
				continue
			}
			job := like
			job.ID, job.Payload = newID(), l.text
			s.mu.Lock()
			s.lines[job.ID] = l.number
			s.mu.Unlock()
			if err := stream.Send(ctx, job); err != nil {
				return err
			}
		}
	}
}

// answered files the server's answer to one line.
func (s *lineSubmitter) answered(answer client.Submitted) {
	s.mu.Lock()
	number := s.lines[answer.ID]
	delete(s.lines, answer.ID)
	s.mu.Unlock()
	if answer.Err != nil {
		s.refused(number, answer.Err)
		return
	}
	s.bar.done()
	s.mu.Lock()
	defer s.mu.Unlock()
	if answer.Holder == "" {
		s.count++
	} else {
		s.held++
	}
	if s.wait {
		s.jobs[answer.Job()] = answer.State
	}
	var err error
	switch {
	case s.list != nil:
		err = s.list.add(submitResult(answer))
	case s.ids:
		_, err = fmt.Fprintln(s.g.stdout, answer.Job())
	}
	if s.writeErr == nil {
		s.writeErr = err
	}
}

// refused tells the error of one line; the others go on.
func (s *lineSubmitter) refused(number int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bar.clear()
	s.errs.tellError(fmt.Sprintf("line %d", number), err)
}

// readLines reads lines until the input or ctx ends. The reader is left behind when ctx ends: a read cannot be called
// off, and the process is about to end.
func readLines(ctx context.Context, from io.Reader) <-chan line {
	lines := make(chan line, 100)
	go func() {
		defer close(lines)
		in := bufio.NewReaderSize(from, 64<<10)
		for number := 1; ; number++ {
			text, err := readLine(in)
			if errors.Is(err, io.EOF) {
				return
			}
			select {
			case lines <- line{number, text, err}:
			case <-ctx.Done():
				return
			}
			if err != nil && !errors.Is(err, errLongLine) {
				return
			}
		}
	}()
	return lines
}

var errLongLine = fmt.Errorf("longer than %d bytes", maxLine)

// readLine reads a line without its end. Of one that is too long nothing is kept.
func readLine(in *bufio.Reader) ([]byte, error) {
	var text []byte
	long := false
	for {
		part, err := in.ReadSlice('\n')
		if long = long || len(text)+len(part) > maxLine+1; long {
			text = nil
		} else {
			text = append(text, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && (!errors.Is(err, io.EOF) || len(part) == 0 && len(text) == 0 && !long):
			return nil, err
		case long:
			return nil, errLongLine
		}
		if n := len(text); n > 0 && text[n-1] == '\n' {
			text = text[:n-1]
		}
		if len(text) > maxLine {
			return nil, errLongLine // the last one, without an end
		}
		return text, nil
	}
}

// waitForLines waits for the jobs of all lines; the exit code is the worst outcome.
func (g *globals) waitForLines(ctx context.Context, c *client.Client, jobs map[string]stintv1.JobState) error {
	ended := outcomes{}
	var failed error
	for w := range waitEach(ctx, c, slices.Sorted(maps.Keys(jobs)), stintv1.WaitUntil_WAIT_UNTIL_END) {
		if state, known := endOf(jobs[w.id], w.err); known {
			ended[state]++
			g.tellEnd(w.id, state)
			continue
		}
		if w.err != nil {
			failed = cmp.Or(failed, w.err)
			continue
		}
		ended[w.job.GetState()]++
		g.tellOutcome(w.job)
	}
	fmt.Fprintln(g.stderr, ended)
	if failed != nil {
		return failed
	}
	return ended.exit()
}

// isTerminal reports whether a stream is one.
func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && hasWindow(file)
}
