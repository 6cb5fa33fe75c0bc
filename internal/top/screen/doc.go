// Package screen shows a picture of package top: as lines of text, for a pipe, and on a whole terminal, with keys.
package screen
