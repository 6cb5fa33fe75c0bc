// Package top is what `stint top` knows: a picture of a server, put together from what it lists and from the events that it
// sends, and what an operator should see of it first. Lists are the truth, events give rates and tell of changes before the
// next list does.
//
// It does no I/O, has no goroutine and reads no clock: source brings what it is made of, screen draws it.
package top
