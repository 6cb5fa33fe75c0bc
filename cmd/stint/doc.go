// Command stint is the server and the whole command line: producers submit and wait, workers work, operators look and
// act. Data goes to standard output, talk to standard error. `stint help exit-codes` lists the exit codes.
package main
