// Package child runs a real Stint server as a child process, for the commands that need one of their own: the load
// generator and the demo. Client and server are then two processes, as they are in use, and the server can be killed
// the way a crash kills it.
package child
