// Package bench is the load generator behind `stint bench`. It starts a server as a process of its own, drives it over
// the generated stubs, and reports what it saw.
//
// Every figure is measured in the run that prints it. A rate counts acknowledgements that the client has received: a
// submit counts when its answer says CREATED, a finish when its answer says RECORDED. Every job is followed by its id;
// a job that is refused, lost, handed out twice, or finished twice is a fault, and a report with faults is a failure
// whatever its rates are.
//
// The workers do nothing: they finish what they are given at once, in messages of at most the batch size. What is
// measured is the service, with the client on the same machine.
//
// # Scenarios
//
//   - submit: a durable submit over streams; then, as a result of its own, the drain of what was submitted.
//   - life: submit, dispatch and finish of all jobs at once, from the first submit to the last acknowledged finish.
//   - interrupt: from when a running job should be interrupted, at the same fixed rate, to when its worker is told.
//   - latency: submit to start at a fixed rate. Times count from when a job was due to be sent, so that a stall counts
//     against every job that it held up.
//   - single: submit and drain, then life, with one job a message.
//   - unary: submit and drain by unary calls, one job a call.
//   - blocked: the drain of jobs that come after very many that wait for a full key of a limit, and memory.
//   - backlog: memory, drain rate and time to readiness with very many jobs waiting.
package bench
