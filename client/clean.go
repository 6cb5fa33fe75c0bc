package client

import (
	"strings"
	"unicode/utf8"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// Protobuf refuses a whole message for one string that is not UTF-8, and a handler's error may hold anything. So every
// text that comes from a handler is cleaned before it meets others in a message.

// clean returns text as valid UTF-8 of at most limit bytes.
func clean(text string, limit int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit]
}

// cleanFinish cleans the texts of a release or interruption, in place.
func cleanFinish(f *stintv1.Finish) *stintv1.Finish {
	if r := f.GetReleased(); r != nil {
		r.Reason = clean(r.Reason, maxReason)
	}
	if i := f.GetInterrupted(); i != nil {
		i.Reason = clean(i.Reason, maxReason)
	}
	return f
}

// cleanFailure cleans the texts of a failure, in place, and cuts what would crowd a message; the server cuts further.
func cleanFailure(f *stintv1.Failure) *stintv1.Failure {
	f.Type = clean(f.Type, 256)
	f.Message = clean(f.Message, maxText)
	f.Stack = f.Stack[:min(len(f.Stack), 256)]
	for _, frame := range f.Stack {
		frame.Function = clean(frame.Function, 512)
		frame.File = clean(frame.File, 512)
	}
	f.Causes = f.Causes[:min(len(f.Causes), 64)]
	for _, cause := range f.Causes {
		cause.Type = clean(cause.Type, 256)
		cause.Message = clean(cause.Message, 2048)
	}
	if p := f.Process; p != nil {
		p.Signal = clean(p.Signal, 64)
		p.StderrTail = clean(p.StderrTail, 8192)
	}
	return f
}
