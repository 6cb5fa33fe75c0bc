// Package sidecar runs a program once for each job, so that any program can be a worker without knowing of Stint.
//
// The program gets the job's payload on standard input and its particulars in STINT_* variables. What it writes to file
// descriptor 3, or to the file named by STINT_RESULT_FILE (they are the same file), is the job's result. Its exit status
// decides the outcome. No shell is involved.
//
// A run has a process group of its own. An interrupted run gets SIGTERM, and SIGKILL after a grace; the grace is the
// whole group's, for a shell dies of SIGTERM before the program it started has cleaned up. When a run is over, what is
// left of its group is killed: nothing works on a job whose outcome is reported. A program that shall outlive its run
// starts a session of its own.
package sidecar
