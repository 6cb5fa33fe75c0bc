package sidecar

import "time"

// Interrupt asks a run to stop.
type Interrupt struct {
	// Level is what the program reads in the first line of its interrupt file: "RETRY" or "CANCEL".
	Level string
	// Reason is why, for people; the rest of the file.
	Reason string
	// Grace is how long the program has to end from now on. 0: the command's own.
	Grace time.Duration
}
