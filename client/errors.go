package client

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// errorDomain is the domain of the ErrorInfo in the server's errors.
const errorDomain = "stint"

// ItemError says why one item of a request was refused; the other items were not touched by it.
type ItemError struct {
	// Index is the item's position in the request's list, from 0.
	Index int
	// Code is the gRPC code that a call with only this item would have ended with.
	Code codes.Code
	// Reason is why, for programs.
	Reason stintv1.Reason
	// Field is the field to blame, as a path below the item ("payload.data"); empty if none is.
	Field string
	// Message is why, for people.
	Message string
	// RetryAfter is how long to wait before sending the item again; zero if waiting does not help.
	RetryAfter time.Duration
}

// Error returns the reason, the field and the message.
func (e *ItemError) Error() string {
	reason := strings.TrimPrefix(e.Reason.String(), "REASON_")
	if e.Field == "" {
		return fmt.Sprintf("%s: %s", reason, e.Message)
	}
	return fmt.Sprintf("%s: %s: %s", reason, e.Field, e.Message)
}

// itemError converts the wire form; nil stays nil.
func itemError(e *stintv1.ItemError) *ItemError {
	if e == nil {
		return nil
	}
	return &ItemError{
		Index:      int(e.GetIndex()),
		Code:       codes.Code(e.GetCode()), //nolint:gosec // a gRPC code, small by contract
		Reason:     e.GetReason(),
		Field:      e.GetField(),
		Message:    e.GetMessage(),
		RetryAfter: e.GetRetryAfter().AsDuration(),
	}
}

// ReasonOf returns why err was answered: the reason of an *ItemError, or that of the server's ErrorInfo in a gRPC
// status. It is REASON_UNSPECIFIED for nil, for other errors, and for reasons newer than this SDK.
func ReasonOf(err error) stintv1.Reason {
	if item, ok := errors.AsType[*ItemError](err); ok {
		return item.Reason
	}
	if err == nil {
		return stintv1.Reason_REASON_UNSPECIFIED
	}
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == errorDomain {
			return stintv1.Reason(stintv1.Reason_value["REASON_"+info.GetReason()])
		}
	}
	return stintv1.Reason_REASON_UNSPECIFIED
}
