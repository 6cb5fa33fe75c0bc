// Package demo is the show behind `stint demo`: a real server as a child process, real work, and a crash in the middle.
//
// Every regular file under a directory, by default the source tree of the Go installation, becomes one job. Workers of
// the Go SDK compute each file's SHA-256 and its size under gzip. When half of the jobs are done the server is killed
// with SIGKILL, while workers hold runs and submits are under way, and is started again on the same store and port. At
// the end every result is fetched back and compared with a direct computation, and what the server's history says with
// what the workers were told: nothing may be missing, and nothing may have been accepted twice.
//
// The ledger writes down what the client side saw; every figure of the report is computed from it and from what the
// server answered at the end.
package demo
