package bench

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Names of scenarios.
const (
	Submit  = "submit"
	Life    = "life"
	Latency = "latency"
	Single  = "single"
	Unary   = "unary"

	Interrupt = "interrupt"
)

// Scenarios lists the scenarios that run by name, in the order in which they run.
func Scenarios() []string { return []string{Submit, Life, Latency, Interrupt, Single, Unary} }

// Config says what to measure and how.
type Config struct {
	// Scenarios to run; none means all.
	Scenarios []string
	// Data is the directory to keep the servers' stores in, each in a fresh subdirectory that is removed afterwards;
	// empty means the working directory.
	Data string
	// Server is the address of a running server to use; empty means to start one for each scenario.
	Server string
	// Binary is the stint executable to start; empty means the one that is running.
	Binary string
	// Jobs is the number of jobs a run; zero means a number that suits the scenario.
	Jobs int
	// Payload is the size of a job's payload in bytes; zero means 100.
	Payload int
	// Batch is the number of jobs a message; zero means 50.
	Batch int
	// Streams is the number of Submit streams; zero means 4.
	Streams int
	// Workers is the number of Work streams; zero means 8.
	Workers int
	// Runs is how often each scenario runs; results are medians. Zero means 5.
	Runs int
	// Limits is how many limits each job names, at most 8; they are never full. Zero: none.
	Limits int
	// Keys is how many keys each limit has; zero means 1,000.
	Keys int
	// Backlog is the number of waiting jobs to measure with, at least 10,000; zero leaves that scenario out.
	Backlog int
	// Blocked is the number of jobs that wait for a full key of a limit before those that are measured, at least 10,000; zero
	// leaves that scenario out.
	Blocked int
	// Events is the rate of events, at least 1,000 a second, at which followers are measured: a tenth as many follow. Zero
	// leaves that scenario out.
	Events int
	// Watchers is how many follow events while the scenarios run, over a connection each: all events, or the ends of jobs alone.
	Watchers  int
	WatchEnds bool
	// Version is the version of stint to report.
	Version string
	// Note is told what is being done, for people; nil means nobody.
	Note func(text string)
}

func (c Config) withDefaults() Config {
	if len(c.Scenarios) == 0 {
		c.Scenarios = Scenarios()
	}
	if c.Data == "" {
		c.Data = "."
	}
	for value, preset := range map[*int]int{&c.Payload: 100, &c.Batch: 50, &c.Streams: 4, &c.Workers: 8, &c.Runs: 5, &c.Keys: 1000} {
		if *value == 0 {
			*value = preset
		}
	}
	if c.Note == nil {
		c.Note = func(string) {}
	}
	return c
}

// Validate says everything that is wrong with the configuration.
func (c Config) Validate() error {
	c = c.withDefaults()
	var faults []error
	for _, name := range c.Scenarios {
		if !slices.Contains(Scenarios(), name) {
			faults = append(faults, fmt.Errorf("no scenario %q; there are: %s", name, strings.Join(Scenarios(), ", ")))
		}
	}
	for _, bound := range []struct {
		name        string
		value       int
		least, most int
	}{
		{"jobs", c.Jobs, 0, 1 << 30},
		{"payload", c.Payload, 1, 1 << 20},
		{"batch", c.Batch, 1, 1000},
		{"streams", c.Streams, 1, 64},
		{"workers", c.Workers, 1, 64},
		{"runs", c.Runs, 1, 1000},
		{"limits", c.Limits, 0, len(limitNames)},
		{"keys", c.Keys, 1, 1 << 24},
		{"watchers", c.Watchers, 0, 100},
	} {
		if bound.value < bound.least || bound.value > bound.most {
			faults = append(faults, fmt.Errorf("%s is %d, not in %d to %d", bound.name, bound.value, bound.least, bound.most))
		}
	}
	if c.Payload*c.Batch > 3<<20 {
		faults = append(faults, errors.New("payload × batch is over 3 MiB, more than a message may hold"))
	}
	if c.Backlog != 0 && c.Backlog < backlogLeast {
		faults = append(faults, fmt.Errorf("backlog is %d, not at least %d", c.Backlog, backlogLeast))
	}
	if c.Blocked != 0 && c.Blocked < blockedLeast {
		faults = append(faults, fmt.Errorf("blocked is %d, not at least %d", c.Blocked, blockedLeast))
	}
	if c.Blocked != 0 && c.Server != "" {
		faults = append(faults, errors.New("blocked takes a server of its own for each pair, so it cannot use a running one"))
	}
	if c.Events != 0 && (c.Events < eventsLeast || c.Server != "") {
		faults = append(faults, fmt.Errorf("events is %d, not at least %d, or a running server is to be used, which it would kill", c.Events, eventsLeast))
	}
	if c.Watchers != 0 && c.Server != "" {
		faults = append(faults, errors.New("watchers would count the events of others too on a running server"))
	}
	if c.WatchEnds && c.Watchers == 0 {
		faults = append(faults, errors.New("watch-ends says what watchers want, and there are none"))
	}
	if c.Backlog != 0 && c.Server != "" {
		faults = append(faults, errors.New("backlog restarts the server, so it cannot use a running one"))
	}
	return errors.Join(faults...)
}
