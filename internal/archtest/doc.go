// Package archtest holds the house rules that a test can check: which package may import what, where the clock may be
// read, how long a file or a function may grow. It has tests only; each failure says what to do.
//
// A rule that is in the way is changed here, with its reason, in the commit that needs the change.
package archtest
