// Package blackbox drives the real binary from outside: processes, pipes, signals, kill -9, full disks. Its tests need
// the build tag blackbox and two programs, which `make blackbox` builds and names: STINT_BIN and GRPCURL. What can be
// tested inside one process is tested there, in virtual time; here is what only a process can show.
//
// STINT_SOAK=1 asks for long settings. STINT_SEED repeats the run whose seed a failure named.
package blackbox
