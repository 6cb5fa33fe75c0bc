// Package source brings a server's lists and events to the picture of package top, for as long as somebody looks: it lists,
// then watches from there, lists again and again, and begins anew when events were missed. It outlasts a server that goes
// away.
package source
