package demo

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// Report is what the demo showed.
type Report struct {
	// Files is how many files there were, and so how many jobs.
	Files int
	// Bytes is their size in all.
	Bytes int64
	// Root is the directory that they are under.
	Root string
	// Workers is how many workers there were.
	Workers int
	// Took is the time from the first submit to the last acknowledged finish, the crash included.
	Took time.Duration
	// Spans are the latencies, each with a description.
	Spans []Span
	// Crash is what the crash did.
	Crash Crash
	// Faults is everything that did not fit at the end; empty if all is well.
	Faults []error
	// Kept is the data directory, if it was left behind.
	Kept string

	history string
}

// Span is the distribution of one latency over all jobs.
type Span struct {
	// Name and Meaning say from where to where it goes.
	Name, Meaning string
	// P50, P90, P99 and Max are its quantiles.
	P50, P90, P99, Max time.Duration
}

// report makes the report from the ledger and from what the server answered at the end.
func (s *show) report(expected []Digest, jobs []*stintv1.Job) Report {
	r := Report{
		Files: len(s.files), Root: s.config.Files, Workers: s.config.Workers, Took: s.end.Sub(s.begin),
		Faults: compare(s.ledger, expected, jobs), Spans: spans(s.ledger), Crash: s.ledger.crash(s.killed),
	}
	for _, d := range expected {
		r.Bytes += d.Bytes
	}
	r.Crash.Held = s.held
	r.Crash.Away, r.Crash.Back = s.ready.Sub(s.killed), s.resumed.Sub(s.killed)
	if s.config.Keep {
		r.Kept = s.config.Data
	}
	if e := s.ledger.example(); e != nil {
		for _, j := range jobs {
			if j.GetId() == e.id {
				r.history = waterfall(e, j, s.killed, s.ready)
			}
		}
	}
	return r
}

// verdict says whether the demo showed what it should.
func (r Report) verdict() error {
	switch {
	case len(r.Faults) > 0:
		return fmt.Errorf("%w: %d faults", ErrMismatch, len(r.Faults))
	case r.Crash.Adopted == 0:
		return ErrNotAdopted
	}
	return nil
}

// spans measures the jobs' lives as the client side saw them.
func spans(l *ledger) []Span {
	l.mu.Lock()
	defer l.mu.Unlock()
	var submit, start, work, life []time.Duration
	for _, e := range l.entries {
		submit = append(submit, e.answered.Sub(e.sent))
		for i, r := range e.runs {
			if i == 0 {
				start = append(start, r.assigned.Sub(e.sent))
			}
			if r.accepted() {
				work = append(work, r.acks[0].at.Sub(r.assigned))
				life = append(life, r.acks[0].at.Sub(e.sent))
			}
		}
	}
	return []Span{
		span("submit", "from its sending until it was acknowledged", submit),
		span("start", "from its sending until a worker had it", start),
		span("run", "from then until its finish was acknowledged", work),
		span("life", "from its sending until its finish was acknowledged", life),
	}
}

func span(name, meaning string, values []time.Duration) Span {
	s := Span{Name: name, Meaning: meaning}
	if len(values) == 0 {
		return s
	}
	slices.Sort(values)
	at := func(percent int) time.Duration { return values[(len(values)-1)*percent/100] }
	s.P50, s.P90, s.P99, s.Max = at(50), at(90), at(99), at(100)
	return s
}

const faultsShown = 20

// Write writes the report for people.
func (r Report) Write(w io.Writer) error {
	const mib = 1 << 20
	size, seconds := float64(r.Bytes)/mib, r.Took.Seconds()
	fmt.Fprintf(w, "%d files, %.1f MiB, under %s; %d workers with %d runs each\n", r.Files, size, r.Root, r.Workers, perWorker)
	fmt.Fprintf(w, "%d jobs in %.2f s: %.0f jobs/s, %.1f MiB/s, the crash included\n\n",
		r.Files, seconds, float64(r.Files)/seconds, size/seconds)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "ms\tp50\tp90\tp99\tmax\t")
	ms := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }
	for _, s := range r.Spans {
		fmt.Fprintf(t, "%s\t%.1f\t%.1f\t%.1f\t%.1f\t  %s\n", s.Name, ms(s.P50), ms(s.P90), ms(s.P99), ms(s.Max), s.Meaning)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	c := r.Crash
	fmt.Fprintf(w, "\nserver killed with %d jobs finished; ready again after %.2f s, all workers back after %.2f s\n",
		c.Finished, c.Away.Seconds(), c.Back.Seconds())
	fmt.Fprintf(w, "  %d runs were held: %d adopted and finished under the same fence, %d had finished before, %d lost\n",
		c.Held, c.Adopted, c.Answered, c.Held-c.Adopted-c.Answered)
	fmt.Fprintf(w, "  %d jobs were run again; %d submits were sent again and known already\n", c.Again, c.Resent)
	if r.history != "" {
		fmt.Fprintf(w, "\n%s", r.history)
	}
	if r.Kept != "" {
		fmt.Fprintf(w, "\nthe data directory is %s\n", r.Kept)
	}
	return r.writeVerdict(w)
}

func (r Report) writeVerdict(w io.Writer) error {
	for i, fault := range r.Faults {
		if i == faultsShown {
			fmt.Fprintf(w, "  and %d more\n", len(r.Faults)-i)
			break
		}
		fmt.Fprintf(w, "  wrong: %v\n", fault)
	}
	var err error
	switch verdict := r.verdict(); {
	case verdict == nil:
		_, err = fmt.Fprintf(w, "\n%d results are equal to a direct computation: nothing missing, nothing accepted twice\n", r.Files)
	case errors.Is(verdict, ErrNotAdopted):
		_, err = fmt.Fprintf(w, "\n%d results are equal to a direct computation, but no run was adopted\n", r.Files)
	}
	return err
}
