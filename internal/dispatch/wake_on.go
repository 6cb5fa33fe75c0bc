//go:build !mutant_nowake

package dispatch

// wakeUps is whether what happens wakes the dispatcher and its sessions at once. In a build with the tag mutant_nowake all of that is
// lost, for the tests of the sweep and of the workers' reports, which find what was missed.
const wakeUps = true
