// Package server speaks stint.v1: it turns messages into calls of the store and the dispatcher, and what comes back
// into answers.
//
// One [Server] implements the three services. The files follow the services and their nouns: jobs.go, change.go,
// submit.go, wait.go and queues.go answer producers and operators, worker.go and session.go answer workers. Wire and
// domain meet in the convert files only; the limits of every request stand in the validate files; errors.go maps what
// went wrong to what a caller is told.
//
// # A call's way in
//
// Interceptors run in this order, outermost first:
//
//  1. log: writes the end of each call at debug level, when that level is on. Never payloads, never tokens.
//  2. answer: maps errors to statuses with details and counts calls. Internal causes are logged here, once, and never
//     sent.
//  3. recover: a handler's panic is logged with its stack and becomes REASON_INTERNAL with a fixed message.
//  4. deadline: a unary call lasts at most 30 s, whatever its caller asked for; ClaimJobs, a long poll, is exempt.
//
// Handlers return domain errors or a [refusal]; they do not make statuses.
//
// # Strings
//
// The codec lets strings that are not valid UTF-8 through to the handlers, so that such a string is the error of its
// item and does not end the stream (see [codec]). Whoever stores or compares a string of a request validates it first.
//
// # Stopping
//
// [Server.Shutdown] turns health to NOT_SERVING, closes the stopping channel, which every stream watches, and lets
// handlers end until its context does; then it cuts them off. It returns when no handler runs any more, so that the
// dispatcher and the store can be closed after it.
package server
