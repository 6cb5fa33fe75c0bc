package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// The exit codes of all commands. A script may rely on them.
const (
	exitOK        = 0
	exitFailed    = 1
	exitUsage     = 2
	exitNotFound  = 3
	exitConflict  = 4
	exitNoServer  = 5
	exitCancelled = 6
	exitParked    = 7
	exitExpired   = 8
	exitStorage   = 10
	exitRefused   = 11
	exitTimeout   = 124
	exitNoCommand = 127
	exitSignalled = 130
)

// exitCodes explains them, in order.
var exitCodes = []struct {
	code  int
	means string
}{
	{exitOK, "done; of a job: SUCCEEDED"},
	{exitFailed, "of a job: FAILED; otherwise an error that no other code names"},
	{exitUsage, "the command line, or a field of a request, is wrong"},
	{exitNotFound, "there is no such job, queue or worker"},
	{exitConflict, "it conflicts with what is there: an id with other content, a state that does not allow it"},
	{exitNoServer, "no server at the address, or it is stopping"},
	{exitCancelled, "of a job: CANCELLED"},
	{exitParked, "of a job: PARKED"},
	{exitExpired, "of a job: EXPIRED"},
	{exitStorage, "serve: the disk failed; nothing acknowledged is lost, start it again"},
	{exitRefused, "serve: the data directory is in use, damaged, or of a newer version; nothing was changed"},
	{exitTimeout, "--timeout passed first"},
	{exitNoCommand, "work: the program to run was not found; nothing was claimed"},
	{exitSignalled, "stopped by a signal"},
}

// newExitCodesTopic returns the help topic: a command that does nothing.
func newExitCodesTopic() *cobra.Command {
	var text strings.Builder
	text.WriteString("Exit codes of stint:\n\n")
	for _, c := range exitCodes {
		fmt.Fprintf(&text, "  %3d  %s\n", c.code, c.means)
	}
	text.WriteString("\nWith several jobs, `job wait` and `submit --lines --wait` end with the worst outcome: FAILED, then PARKED,\n" +
		"CANCELLED, EXPIRED. Other commands with several items end with 1 if their errors differ in kind.")
	return &cobra.Command{Use: "exit-codes", Short: "The exit codes", Long: text.String()}
}

// worstFirst are the outcomes that are no success.
var worstFirst = []struct {
	state stintv1.JobState
	code  int
}{
	{stintv1.JobState_JOB_STATE_FAILED, exitFailed},
	{stintv1.JobState_JOB_STATE_PARKED, exitParked},
	{stintv1.JobState_JOB_STATE_CANCELLED, exitCancelled},
	{stintv1.JobState_JOB_STATE_EXPIRED, exitExpired},
}

// outcomes counts jobs by the state they ended in.
type outcomes map[stintv1.JobState]int

// exit returns what a command ends with that waited for these jobs: the worst outcome.
func (o outcomes) exit() error {
	for _, bad := range worstFirst {
		if o[bad.state] > 0 {
			return exitWith(bad.code)
		}
	}
	return nil
}

// String lists the counts: "3 SUCCEEDED, 1 FAILED".
func (o outcomes) String() string {
	var parts []string
	for _, state := range slices.Sorted(maps.Keys(o)) {
		parts = append(parts, fmt.Sprintf("%d %s", o[state], stateName(state)))
	}
	return strings.Join(parts, ", ")
}
