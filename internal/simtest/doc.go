// Package simtest puts whole systems into one bubble of virtual time: a server over a crashable disk in memory, clients
// and workers over a network in memory, and everything that may happen to them. It has tests only.
//
// A world holds the disk, the network and the server that runs at the moment, and can crash it, stop it, let it stand
// still and cut its connections. A witness sits in every client and judges each message as it comes, by what anybody
// was told before. A seeded plan does harm at random times; then all heals, everything settles, and what the server
// says at the end is compared with what the witness saw.
//
// A test that fails prints its seed; STINT_SIM_SEED runs that one alone. A seed fixes the plan, not how goroutines take
// turns, so that a rare failure may need -count. STINT_SOAK=1 runs many seeds.
package simtest
