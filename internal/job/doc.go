// Package job is the life of a job: its states, what may follow what, and what it costs.
//
// The package is pure. It has no clock (now is an argument, a wall time in UTC), no randomness (rnd, in [0,1), is an
// argument), no storage and no log, so that every rule can be tested and stores never decide. A [Job] is one immutable
// version; each function takes one and returns the next, a copy, or the same pointer when nothing changes. A function
// that refuses returns an error and leaves the job as it was.
//
// # States
//
// SCHEDULED waits for a time that somebody chose (run_at, the delay of a release or interrupt), READY for room, BLOCKED
// for other jobs, BACKOFF for the time after a failure or crash, PARKED for a person. RUNNING has exactly one live run:
// DISPATCHED until its worker has named it, RUNNING from then on. SUCCEEDED, FAILED, CANCELLED and EXPIRED are terminal;
// [Job.Retry] reopens all but the first in a new epoch, in which counters, interrupt, failure, result and start_by start
// anew while run numbers, fences and the history go on.
//
// [Job.Update] changes what was asked for while a job has not ended. A live run goes on as it began, so that what it took
// is what it gives back; the job's next run is under the new words.
//
// # Counters
//
// Whatever puts a job back after a run counts exactly one of five: attempts (failures of the work), crashes (silent
// workers), interrupts (stopped runs), snoozes (runs given back, failures of what the work needs), deliveries (runs that
// never arrived). At a counter's bound the job is PARKED with that reason, or FAILED if it was the attempts. A failure or
// crash after the policy's deadline is FAILED too, whatever is left. A run remembers what it was charged; a late success or failure of a run that was taken for lost or undelivered takes it back.
//
// # Levels
//
// What a run's end means depends on the interrupt it stands under. A success counts under every level.
//
//	              no level                RETRY                   RETRY by TIMEOUT      CANCEL
//	failure       BACKOFF, FAILED,        SCHEDULED (interrupts)  as a failure of       CANCELLED
//	              PARKED (attempts)       unless final, park      class TIMEOUT
//	                                      or MALFORMED            (attempts)
//	interrupted   SCHEDULED (interrupts)  SCHEDULED (interrupts)  the same              CANCELLED
//	released      SCHEDULED, READY for    SCHEDULED, READY for    the same              CANCELLED
//	              NOT_ME (snoozes)        NOT_ME (snoozes)
//	lost          BACKOFF (crashes)       SCHEDULED (interrupts)  the same              CANCELLED
//	hard deadline                         SCHEDULED (interrupts)  the same              CANCELLED
//
// RETRY belongs to the run and ends with it, CANCEL to the job. A failure of class INFRASTRUCTURE counts a snooze in
// place of an attempt. A policy may have failures of class APPLICATION and TIMEOUT end PARKED or FAILED at once, but not
// under RETRY, and the worker's own word goes first. If an operator has asked to park the job, it is PARKED wherever it would not be terminal.
//
// # Unique keys
//
// A job may hold a key that no other job of its queue holds: until a worker has accepted its first run, and then never
// again, or until it is terminal, or for a time after that. [Job.KeyTerm] says so of one job by itself; that two jobs do not
// hold the same key is for those to see to who submit and reopen. [Job.Replace] gives a job that no worker has begun what
// another submit asks for.
//
// The two sections that follow are printed from the table of transitions: go test -run TestDoc -update.
//
// # Steps
//
// Events that lead back to where they came from are left out here.
//
//	(new)      ---> SCHEDULED   submit
//	           `--> READY       submit
//	SCHEDULED  ---> (deleted)   delete
//	           `--> READY       due, retry, replace, update
//	           `--> BACKOFF     late failure
//	           `--> PARKED      late failure, park
//	           `--> SUCCEEDED   late success
//	           `--> FAILED      late failure
//	           `--> CANCELLED   interrupt CANCEL
//	           `--> EXPIRED     start_by
//	READY      ---> (deleted)   delete
//	           `--> SCHEDULED   late failure, replace, update
//	           `--> DISPATCHED  dispatch
//	           `--> BACKOFF     late failure
//	           `--> PARKED      late failure, park
//	           `--> SUCCEEDED   late success
//	           `--> FAILED      late failure
//	           `--> CANCELLED   interrupt CANCEL
//	           `--> EXPIRED     start_by
//	BLOCKED    ---> (deleted)   delete
//	           `--> SCHEDULED   unblock
//	           `--> READY       unblock
//	           `--> CANCELLED   interrupt CANCEL
//	           `--> EXPIRED     start_by
//	DISPATCHED ---> SCHEDULED   interrupted, released, interrupt RETRY
//	           `--> READY       undeliver, released
//	           `--> RUNNING     accept
//	           `--> BACKOFF     failure
//	           `--> PARKED      undeliver, failure, interrupted, released, interrupt RETRY, park
//	           `--> SUCCEEDED   success
//	           `--> FAILED      failure
//	           `--> CANCELLED   interrupt CANCEL
//	           `--> EXPIRED     undeliver
//	RUNNING    ---> SCHEDULED   failure, interrupted, released, lose, hard deadline
//	           `--> READY       released
//	           `--> BACKOFF     failure, interrupted, released, lose, hard deadline
//	           `--> PARKED      failure, interrupted, released, lose, hard deadline
//	           `--> SUCCEEDED   success
//	           `--> FAILED      failure, interrupted, released, lose, hard deadline
//	           `--> CANCELLED   failure, interrupted, released, lose, hard deadline
//	BACKOFF    ---> (deleted)   delete
//	           `--> SCHEDULED   update
//	           `--> READY       due, retry, update
//	           `--> PARKED      late failure, park
//	           `--> SUCCEEDED   late success
//	           `--> FAILED      late failure
//	           `--> CANCELLED   interrupt CANCEL
//	PARKED     ---> (deleted)   delete
//	           `--> READY       retry, new build
//	           `--> BACKOFF     late failure
//	           `--> SUCCEEDED   late success
//	           `--> FAILED      late failure
//	           `--> CANCELLED   interrupt CANCEL
//	SUCCEEDED  ---> (deleted)   delete
//	FAILED     ---> (deleted)   delete
//	           `--> READY       retry
//	CANCELLED  ---> (deleted)   delete
//	           `--> READY       retry
//	EXPIRED    ---> (deleted)   delete
//	           `--> READY       retry
//
// # Table
//
// A cell names the phases that an event may lead to; a dot means that it is illegal there.
//
//	S SCHEDULED  R READY  K BLOCKED  D DISPATCHED  N RUNNING
//	B BACKOFF  P PARKED  s SUCCEEDED  f FAILED  c CANCELLED  e EXPIRED  - (deleted)
//
//	                  S       R       K       D       N       B       P       s       f       c       e
//	due               R       .       .       .       .       R       .       .       .       .       .
//	start_by          e       e       e       .       .       .       .       .       .       .       .
//	unblock           .       .       SR      .       .       .       .       .       .       .       .
//	dispatch          .       D       .       .       .       .       .       .       .       .       .
//	accept            .       .       .       N       N       .       .       .       .       .       .
//	undeliver         .       .       .       RPe     .       .       .       .       .       .       .
//	success           .       .       .       s       s       .       .       .       .       .       .
//	failure           .       .       .       BPf     SBPfc   .       .       .       .       .       .
//	interrupted       .       .       .       SP      SBPfc   .       .       .       .       .       .
//	released          .       .       .       SRP     SRBPfc  .       .       .       .       .       .
//	lose              .       .       .       .       SBPfc   .       .       .       .       .       .
//	timeout           .       .       .       .       N       .       .       .       .       .       .
//	hard deadline     .       .       .       .       SBPfc   .       .       .       .       .       .
//	late success      s       s       .       .       .       s       s       .       .       .       .
//	late failure      SBPf    SBPf    .       .       .       BPf     BPf     .       .       .       .
//	interrupt RETRY   S       R       K       SP      N       B       P       .       .       .       .
//	interrupt CANCEL  c       c       c       c       N       c       c       .       .       .       .
//	deliver           .       .       .       .       N       .       .       .       .       .       .
//	acknowledge       .       .       .       .       N       .       .       .       .       .       .
//	park              P       P       .       P       N       P       P       .       .       .       .
//	retry             R       .       .       .       .       R       R       .       R       R       R
//	new build         .       .       .       .       .       .       RP      .       .       .       .
//	replace           SR      SR      K       .       .       .       P       .       .       .       .
//	update            SR      SR      K       D       N       SRB     P       .       .       .       .
//	delete            -       -       -       .       .       -       -       -       -       -       -
//
// A new job, by submit, is one of SR.
package job
