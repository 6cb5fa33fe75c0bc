package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
)

// Report is what a run of the load generator found.
type Report struct {
	// Environment says where and with what load.
	Environment Environment `json:"environment"`
	// Results are the scenarios' results, in the order in which they ran.
	Results []Result `json:"results"`
	// Backlog says what many waiting jobs cost; nil if it was not asked for.
	Backlog *Backlog `json:"backlog,omitempty"`
	// Blocked says what jobs that wait for a full key cost others; nil if it was not asked for.
	Blocked *Blocked `json:"blocked,omitempty"`
	// Events says how far behind followers of events are; nil if it was not asked for.
	Events *Events `json:"events,omitempty"`
}

// Result is the median of the runs of one scenario.
type Result struct {
	// Name is the scenario, or a part of it.
	Name string `json:"name"`
	// Runs is how many runs the medians are of.
	Runs int `json:"runs"`
	// Jobs is how many jobs each run had.
	Jobs int `json:"jobs"`
	// Rate is the number of jobs a second whose acknowledgement the client received.
	Rate float64 `json:"jobs_per_s"`
	// LeastRate and MostRate are the extremes of the runs.
	LeastRate float64 `json:"jobs_per_s_min"`
	MostRate  float64 `json:"jobs_per_s_max"`
	// ServerMicros is the processor time of the server's process for a job, in µs; nil if it is not known.
	ServerMicros *float64 `json:"server_cpu_us_per_job,omitempty"`
	// ClientMicros is that of the load generator.
	ClientMicros *float64 `json:"client_cpu_us_per_job,omitempty"`
	// WallSeconds is how long a run took.
	WallSeconds float64 `json:"wall_s"`
	// Latency is the time from when a job was due to be sent until a worker had it, in ms; nil if it was not measured.
	Latency *Quantiles `json:"latency_ms,omitempty"`
	// Watched is what followers had; nil if nobody followed.
	Watched *Watched `json:"watched,omitempty"`
	// Faults is how many jobs of all runs did not go as they must.
	Faults int `json:"errors"`

	first error // the first few of them
}

// verdict is an error if there were faults; it names the first few of each scenario.
func (r Report) verdict() error {
	n, first := 0, []error(nil)
	for _, result := range r.Results {
		n += result.Faults
		first = append(first, result.first)
	}
	if r.Backlog != nil {
		n += r.Backlog.Faults
		first = append(first, r.Backlog.first)
	}
	if r.Blocked != nil {
		n += r.Blocked.Faults
		first = append(first, r.Blocked.first)
	}
	if r.Events != nil {
		if err := r.Events.fault(); err != nil {
			n++
			first = append(first, err)
		}
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%w: %d faults, the first of them:\n%w", ErrFaults, n, errors.Join(first...))
}

// WriteJSON writes the report as one JSON document.
func (r Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// WriteTable writes the report for people.
func (r Report) WriteTable(w io.Writer) error {
	e := r.Environment
	fmt.Fprintf(w, "stint %s, %s %s, %d CPUs, %s\n", e.Version, e.Go, e.OS, e.CPUs, e.Date.Format("2006-01-02 15:04 MST"))
	if e.FsyncMicros > 0 {
		fmt.Fprintf(w, "store on %s, one fdatasync %.0f µs (median of %d appends of 4 KiB)\n", e.FS, e.FsyncMicros, syncAppends)
	}
	fmt.Fprintf(w, "payload %d B, batch %d, %d submit streams, %d workers", e.Payload, e.Batch, e.Streams, e.Workers)
	if e.Limits > 0 {
		fmt.Fprintf(w, ", %d limits a job of %d keys each", e.Limits, e.Keys)
	}
	fmt.Fprint(w, "\n\n")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "scenario\truns\tjobs\tjobs/s\tmin\tmax\tserver µs/job\tclient µs/job\twall s\terrors\t")
	for _, s := range r.Results {
		fmt.Fprintf(t, "%s\t%d\t%d\t%.0f\t%.0f\t%.0f\t%s\t%s\t%.2f\t%d\t\n", s.Name, s.Runs, s.Jobs,
			s.Rate, s.LeastRate, s.MostRate, micros(s.ServerMicros), micros(s.ClientMicros), s.WallSeconds, s.Faults)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, s := range r.Results {
		if q := s.Latency; q != nil {
			what := "submit to start"
			if s.Name == Interrupt {
				what = "interrupt to the worker's receipt"
			}
			fmt.Fprintf(w, "\n%s at %d jobs/s, ms: p50 %.2f, p90 %.2f, p99 %.2f, p99.9 %.2f, max %.2f\n",
				what, latencyRate, q.P50, q.P90, q.P99, q.P999, q.Max)
		}
	}
	for _, s := range r.Results {
		if f := s.Watched; f != nil {
			fmt.Fprintf(w, "\n%s: %d followers had %.1f events a job each, the last of them %.2f s behind\n",
				s.Name, f.Followers, f.EventsPerJob, f.BehindSeconds)
		}
	}
	if r.Backlog != nil {
		r.Backlog.write(w)
	}
	if r.Blocked != nil {
		r.Blocked.write(w)
	}
	if r.Events != nil {
		r.Events.write(w)
	}
	return nil
}

func micros(value *float64) string {
	if value == nil {
		return "-"
	}
	return strconv.FormatFloat(*value, 'f', 2, 64)
}

func (b Backlog) write(w io.Writer) {
	const mib = 1 << 20
	fmt.Fprintf(w, "\nwith %d jobs waiting\n", b.Jobs)
	fmt.Fprintf(w, "  server memory  %.1f MiB, %.1f MiB more than with %d\n",
		float64(b.RSS)/mib, float64(b.RSS-b.LowRSS)/mib, b.LowJobs)
	fmt.Fprintf(w, "  drain          %.0f jobs/s, %.2f of the %.0f with at most %d waiting (%d jobs each)\n",
		b.Rate, b.Rate/b.SmallRate, b.SmallRate, min(b.LowJobs, b.Drained), b.Drained)
	fmt.Fprintf(w, "  start          ready %.2f s after a kill and restart\n", b.ReadySeconds)
	if b.Faults > 0 {
		fmt.Fprintf(w, "  errors         %d\n", b.Faults)
	}
}
