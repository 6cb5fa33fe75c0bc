package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/dispatch"
	"github.com/stintrun/stint/internal/job"
	"github.com/stintrun/stint/internal/store"
)

// errorDomain is the domain of every ErrorInfo.
const errorDomain = "stint"

// internalMessage is all that a caller is told of an internal cause.
const internalMessage = "the server failed inside; its log says why"

// refusal is an error with everything the wire says of it. Handlers make one where the caller is at fault; other
// errors become one by asRefusal.
type refusal struct {
	code       codes.Code
	reason     stintv1.Reason
	field      string // a path; empty if no field is to blame
	message    string
	retryAfter time.Duration // 0: waiting does not help
	metadata   [2]string     // a name and a value; empty: none
}

func (r *refusal) Error() string {
	if r.field == "" {
		return r.message
	}
	return r.field + ": " + r.message
}

// Is makes equal refusals match, so that the ones without details serve as sentinels.
func (r *refusal) Is(target error) bool {
	t, ok := target.(*refusal)
	return ok && *t == *r
}

// Refusals that need no details.
var (
	errJobNotFound    = &refusal{code: codes.NotFound, reason: stintv1.Reason_REASON_JOB_NOT_FOUND, message: "no job has this id, or its record is past retention"}
	errJobEtag        = &refusal{code: codes.Aborted, reason: stintv1.Reason_REASON_ETAG_MISMATCH, field: "etag", message: "the job changed since the etag was read"}
	errUpdateStart    = &refusal{code: codes.FailedPrecondition, reason: stintv1.Reason_REASON_INVALID_STATE, field: "update.run_at", message: "the job is RUNNING or PARKED and waits for no time"}
	errUpdateStartBy  = &refusal{code: codes.FailedPrecondition, reason: stintv1.Reason_REASON_INVALID_STATE, field: "update.start_by", message: "the job has started before"}
	errQueueNotFound  = &refusal{code: codes.NotFound, reason: stintv1.Reason_REASON_QUEUE_NOT_FOUND, message: "no queue has this name"}
	errLimitNotFound  = &refusal{code: codes.NotFound, reason: stintv1.Reason_REASON_LIMIT_NOT_FOUND, message: "no limit has this name"}
	errLimitEtag      = &refusal{code: codes.Aborted, reason: stintv1.Reason_REASON_ETAG_MISMATCH, field: "etag", message: "the limit changed since the etag was read"}
	errTooManyLimits  = &refusal{code: codes.ResourceExhausted, reason: stintv1.Reason_REASON_TOO_MANY_LIMITS, field: "name", message: fmt.Sprintf("the server holds its maximum of %d limits", store.LimitsMax)}
	errIDConflict     = &refusal{code: codes.AlreadyExists, reason: stintv1.Reason_REASON_ID_CONFLICT, field: "id", message: "the id is taken by a job with other content"}
	errIDTooOld       = &refusal{code: codes.FailedPrecondition, reason: stintv1.Reason_REASON_ID_TOO_OLD, field: "id", message: "the id was made before the time up to which ids may be forgotten"}
	errStorageFull    = &refusal{code: codes.ResourceExhausted, reason: stintv1.Reason_REASON_STORAGE_FULL, message: "free space is under the server's reserve", retryAfter: 2 * time.Second}
	errTooManyQueues  = tooManyQueues("queue")
	errRunActive      = &refusal{code: codes.FailedPrecondition, reason: stintv1.Reason_REASON_RUN_ACTIVE, message: "the job is running"}
	errTooLate        = &refusal{code: codes.FailedPrecondition, reason: stintv1.Reason_REASON_INTERRUPT_TOO_LATE, message: "the job is terminal"}
	errDowngrade      = &refusal{code: codes.FailedPrecondition, reason: stintv1.Reason_REASON_LEVEL_DOWNGRADE, field: "level", message: "the run is interrupted at a higher level"}
	errInvalidState   = &refusal{code: codes.FailedPrecondition, reason: stintv1.Reason_REASON_INVALID_STATE, message: "the job's state does not allow this"}
	errOutcomeMissing = &refusal{code: codes.InvalidArgument, reason: stintv1.Reason_REASON_OUTCOME_MISSING, field: "outcome", message: "the finish carries no known outcome"}
	errTokenUnknown   = &refusal{code: codes.NotFound, reason: stintv1.Reason_REASON_TOKEN_UNKNOWN, field: "lease_token", message: "no run of this server has this token, or its job was deleted"}
	errTokenStale     = &refusal{code: codes.FailedPrecondition, reason: stintv1.Reason_REASON_TOKEN_STALE, field: "lease_token", message: "the run no longer owns its job"}
	errPageToken      = &refusal{code: codes.InvalidArgument, reason: stintv1.Reason_REASON_PAGE_TOKEN_INVALID, field: "page_token", message: "the page token is not one of this query's"}
	errContinueToken  = &refusal{code: codes.InvalidArgument, reason: stintv1.Reason_REASON_PAGE_TOKEN_INVALID, field: "continue_token", message: "the continue token is not one of this query's"}
	errEtag           = &refusal{code: codes.Aborted, reason: stintv1.Reason_REASON_ETAG_MISMATCH, field: "etag", message: "the queue changed since the etag was read"}
	errStopping       = &refusal{code: codes.Unavailable, reason: stintv1.Reason_REASON_SERVER_STOPPING, message: "the server is stopping", retryAfter: time.Second}
	errInstanceInUse  = &refusal{code: codes.AlreadyExists, reason: stintv1.Reason_REASON_INSTANCE_IN_USE, field: "hello.instance_id", message: "another session of this instance is alive, and the resume token is not its own"}
	errReplaced       = &refusal{code: codes.Aborted, reason: stintv1.Reason_REASON_SESSION_REPLACED, message: "a newer session of this instance took over"}
	errDelivery       = &refusal{code: codes.Aborted, reason: stintv1.Reason_REASON_DELIVERY_TIMEOUT, message: "an assignment was not acknowledged in time"}
	errSilent         = &refusal{code: codes.Aborted, reason: stintv1.Reason_REASON_SESSION_SILENT, message: "nothing came on the session for longer than its lease"}
	errDraining       = &refusal{code: codes.FailedPrecondition, reason: stintv1.Reason_REASON_DRAINING, message: "the worker is draining and gets no more runs"}
	errWorkerNotFound = &refusal{code: codes.NotFound, reason: stintv1.Reason_REASON_WORKER_NOT_FOUND, message: "no worker has this instance id"}
	errResync         = &refusal{code: codes.OutOfRange, reason: stintv1.Reason_REASON_RESYNC, field: "cursor", message: "events behind the cursor are not kept any more, or it is of another store"}
	errSlowConsumer   = &refusal{code: codes.ResourceExhausted, reason: stintv1.Reason_REASON_SLOW_CONSUMER, message: "what was sent was not taken for ten seconds"}
	errInternal       = &refusal{code: codes.Internal, reason: stintv1.Reason_REASON_INTERNAL, message: internalMessage}
)

// sentinels says how the errors of the packages below are told.
var sentinels = []struct {
	err     error
	refusal *refusal
}{
	{job.ErrRunActive, errRunActive},
	{job.ErrTooLate, errTooLate},
	{job.ErrDowngrade, errDowngrade},
	{job.ErrIllegal, errInvalidState},
	{job.ErrUpdateStart, errUpdateStart},
	{job.ErrUpdateStartBy, errUpdateStartBy},
	{job.ErrNoOutcome, errOutcomeMissing},
	{store.ErrFull, errStorageFull},
	{store.ErrTooManyQueues, tooManyQueues("queues")},
	{store.ErrTooManyLimits, errTooManyLimits},
	{store.ErrClosed, errStopping},
	{dispatch.ErrInstanceInUse, errInstanceInUse},
	{dispatch.ErrReplaced, errReplaced},
	{dispatch.ErrDelivery, errDelivery},
	{dispatch.ErrSilent, errSilent},
	{dispatch.ErrDraining, errDraining},
	{dispatch.ErrOtherRequest, invalid("request_id", "it was that of a claim of other jobs")},
	{dispatch.ErrJobUnknown, errJobNotFound},
	{dispatch.ErrBlocked, errBlocked},
	{dispatch.ErrAnswerFull, errAnswerFull},
	{dispatch.ErrRunOver, errRunOver},
	{dispatch.ErrWorkerUnknown, errWorkerNotFound},
	{dispatch.ErrClosed, errStopping},
	{dispatch.ErrDemandVersion, invalid("version", "must be larger than that of the demand before")},
	{dispatch.ErrNotHeld, invalid("released.throttled", "the run holds no such key")},
	{dispatch.ErrSeen, invalid("seen", "no assignment of this number was sent")},
}

// many is a number of something, as texts say it.
func many(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// invalid blames a field.
func invalid(field, format string, args ...any) *refusal {
	return &refusal{code: codes.InvalidArgument, reason: stintv1.Reason_REASON_INVALID_FIELD, field: field, message: fmt.Sprintf(format, args...)}
}

// tooLarge blames a field for its size.
func tooLarge(field, format string, args ...any) *refusal {
	return &refusal{code: codes.InvalidArgument, reason: stintv1.Reason_REASON_TOO_LARGE, field: field, message: fmt.Sprintf(format, args...)}
}

// tooManyQueues blames the field that names the queue.
func tooManyQueues(field string) *refusal {
	return &refusal{
		code: codes.ResourceExhausted, reason: stintv1.Reason_REASON_TOO_MANY_QUEUES, field: field,
		message: fmt.Sprintf("the server holds its maximum of %d queues", store.QueuesMax),
	}
}

// asRefusal says what a caller is told of err. For an error of the caller's own context, and for one that is not known
// here, it returns nil.
func asRefusal(err error) *refusal {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r
	}
	for _, s := range sentinels {
		if errors.Is(err, s.err) {
			return s.refusal
		}
	}
	return nil
}

// itemError says why item index of a request was refused. err is a refusal or one of the sentinels: everything else is
// about the call and is returned by its handler.
func itemError(index int, err error) *stintv1.ItemError {
	r := asRefusal(err)
	if r == nil {
		r = errInternal
	}
	e := &stintv1.ItemError{
		Index:   uint32(index),
		Code:    int32(r.code),
		Reason:  r.reason,
		Field:   r.field,
		Message: r.message,
	}
	if r.retryAfter > 0 {
		e.RetryAfter = durationpb.New(r.retryAfter)
	}
	return e
}

// callStatus is the status that a call ends with because of err. internal reports that err's cause is hidden from the
// caller and belongs in the log.
func callStatus(err error) (st *status.Status, internal bool) {
	if r := asRefusal(err); r != nil {
		return r.status(), false // a panic, too: it was logged with its stack
	}
	switch {
	case errors.Is(err, context.Canceled):
		return status.New(codes.Canceled, "the call was cancelled"), false
	case errors.Is(err, context.DeadlineExceeded):
		return status.New(codes.DeadlineExceeded, "the call's time is over"), false
	}
	// grpc itself fails Recv and Send, with a status.
	if st, ok := status.FromError(err); ok {
		return st, false
	}
	return errInternal.status(), true
}

// status is r as the end of a call.
func (r *refusal) status() *status.Status {
	info := &errdetails.ErrorInfo{Domain: errorDomain, Reason: strings.TrimPrefix(r.reason.String(), "REASON_")}
	if r.metadata[0] != "" {
		info.Metadata = map[string]string{r.metadata[0]: r.metadata[1]}
	}
	details := []protoadapt.MessageV1{info}
	if r.field != "" {
		details = append(details, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: r.field, Description: r.message, Reason: strings.TrimPrefix(r.reason.String(), "REASON_")},
		}})
	}
	if r.retryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(r.retryAfter)})
	}
	st := status.New(r.code, r.Error())
	detailed, err := st.WithDetails(details...)
	if err != nil {
		return st // only a code OK can fail here
	}
	return detailed
}
