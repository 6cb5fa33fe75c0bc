//go:build mutant_nosweep

package dispatch

// sweeps is whether the sweep looks for what may start. In a build with the tag mutant_nosweep it does not, to show that the tests of
// what it finds can fail.
const sweeps = false
