// Package dispatch brings ready jobs and workers with room together, and ends the runs whose workers are gone.
//
// # Two kinds of memory
//
// What is durable (which runs are live, what is ready) the [Dispatcher] learns from the store alone: it is the store's
// observer and changes its memory when a commit is applied, in commit order. What only the moment knows (who is
// connected, how much room they have, when they were last heard) comes from sessions and calls. Both sit under one
// short mutex that is never held across I/O or a wait.
//
// # Handing out
//
// Before the store seals a batch it calls [Dispatcher.Match]. The best head of all lanes with room goes to the pool
// that has been idle longest, until heads or room run out. A stream's demand and a unary claim wait in the same lines.
// An assignment is taken to its worker when its batch is on disk, never before.
//
// # What workers say
//
// A session's messages are transactions, posted in order: a report is judged after every finish that came before it,
// and each answer leaves after its sync. What a message renews (leases, the session itself) it renews at receipt, so
// that a slow disk costs nobody a lease.
//
// # Time
//
// All deadlines run on the monotonic clock, on one heap, served by one goroutine. A deadline that comes due is checked
// again inside the transaction that acts on it, which runs after everything received before. A goroutine that wakes
// more than a cadence late takes this for a stall of the whole process and grants every run a full lease first.
package dispatch
