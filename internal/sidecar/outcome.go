package sidecar

import (
	"fmt"
	"slices"
)

// Kind says how a run ended.
type Kind int

const (
	// Succeeded: the command exited with 0.
	Succeeded Kind = iota + 1
	// Failed: the command exited with another code, was killed by a signal that was not ours, or its result is unusable.
	Failed
	// Released: the command exited with a code that asks for another time.
	Released
	// Interrupted: the command ended after our signal.
	Interrupted
	// Lost: the run no longer owned its job and was killed. There is nothing to report.
	Lost
	// NotStarted: the command could not be started here. That is this host's fault, not the job's.
	NotStarted
)

// Outcome is how a run ended.
type Outcome struct {
	Kind Kind
	// Result is what the command wrote as its result; nil if it wrote nothing. Only when Succeeded.
	Result []byte
	// Exit is how the process ended; zero when Lost or NotStarted.
	Exit Exit
	// Final says that the job fails for good. Only when Failed.
	Final bool
	// Park says that the job is set aside for a person. Only when Failed.
	Park bool
	// Reason says what happened, in a few words; empty when Lost.
	Reason string
	// Err is why the command could not be started. Only when NotStarted.
	Err error
}

// Exit is how a process ended.
type Exit struct {
	// Code is the exit code; meaningless if Signal is set.
	Code int
	// Signal is the name, without SIG, of the signal that ended the process ("KILL"); empty if it exited.
	Signal string
	// StderrTail is the last 4 KiB of its standard error, with "?" for what is not valid UTF-8.
	StderrTail string
}

func (e Exit) ok() bool { return e.Code == 0 && e.Signal == "" }

// String says how the process ended: "exit status 3", "killed by signal KILL".
func (e Exit) String() string {
	if e.Signal != "" {
		return "killed by signal " + e.Signal
	}
	return fmt.Sprintf("exit status %d", e.Code)
}

// Codes says what exit codes mean. 0 is a success; a code in no list is a failure by the job's retry policy.
type Codes struct {
	// Fatal ones fail the job for good.
	Fatal []int
	// Park ones set the job aside for a person.
	Park []int
	// Release ones give the job back to be tried later.
	Release []int
}

// Validate reports a code that is out of range or in two lists.
func (c Codes) Validate() error {
	seen := map[int]bool{}
	for _, code := range slices.Concat(c.Fatal, c.Park, c.Release) {
		if code < 1 || code > 255 {
			return fmt.Errorf("exit code %d: want 1 to 255", code)
		}
		if seen[code] {
			return fmt.Errorf("exit code %d is given two meanings", code)
		}
		seen[code] = true
	}
	return nil
}

// outcome reads the meaning of an ended process.
func (c Codes) outcome(p *process, files *files) Outcome {
	exit := p.exit()
	o := Outcome{Kind: Failed, Exit: exit, Reason: exit.String()}
	switch {
	case exit.Signal != "":
	case exit.Code == 0:
		result, err := files.result()
		if err != nil {
			o.Reason = err.Error()
			return o
		}
		o.Kind, o.Result = Succeeded, result
	case slices.Contains(c.Release, exit.Code):
		o.Kind = Released
	default:
		o.Final = slices.Contains(c.Fatal, exit.Code)
		o.Park = slices.Contains(c.Park, exit.Code)
	}
	return o
}
