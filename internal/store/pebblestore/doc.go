// Package pebblestore keeps jobs on one disk, in Pebble.
//
// # What is where
//
// A job's record is written twice in an undisturbed life: at submit, and in its final form at its end, in place, under
// its sequence number. While it runs, its state lives in memory and in the log; a job that goes back to waiting is
// rewritten. Ids point to sequence numbers, in buckets of 2^18, so that ids and finished jobs leave by range.
// Unique keys point to the job that holds them.
//
// Each batch of transactions writes one commit record with all its transitions. The state in memory changes only by
// these transitions, with the same code when they happen and when a start replays them: which jobs are live, where each
// lane's front is, counts, buckets. A snapshot now and then bounds the replay. Neither the backlog nor the finished jobs
// are read at a start.
//
// The order of waiting jobs is in segments: one record a lane and batch, a few bytes for a run of fresh jobs. Memory
// holds a window of each lane's front; a refill reads the next page of segments and the records they name, and skips the
// ones whose job moved on.
//
// # Group commit
//
// One goroutine runs transactions one after the other and applies their writes to memory; before a batch is sealed, the
// observer may match what it made ready with room, so that a submit and its claim share one sync. Another goroutine
// waits for the sync and answers. While it waits the next batch is built. Nothing is answered, not even a read, before
// every batch it could have seen is on disk.
package pebblestore
