package client

import (
	"context"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// Job is what a producer asks for. Only Queue is required.
type Job struct {
	// ID is any UUID in canonical form. Empty: a UUIDv7 is chosen before the first send, so that repeats are harmless.
	ID string
	// Queue is the kind of work: 1 to 200 bytes, segments of [a-z0-9._-] joined by "/".
	Queue string
	// Payload is what the worker gets, at most 1 MiB by default. It must not change until the answer came.
	Payload []byte
	// ContentType is the payload's media type; may be empty.
	ContentType string
	// Priority is the band; unset means NORMAL.
	Priority stintv1.Priority
	// RunAt is when it may start. At most one of RunAt and Delay may be set; with neither it may start at once.
	RunAt time.Time
	// Delay is how long after the server's receipt it may start.
	Delay time.Duration
	// StartBy is when it expires if no worker has accepted it; zero means never.
	StartBy time.Time
	// Lease is how long a run may be silent before it is taken for lost; zero means by the queue.
	Lease time.Duration
	// Timeout is how long a run may take, from acceptance, before it is interrupted and counts as a failure of class
	// TIMEOUT unless it still succeeds; zero means as long as it takes.
	Timeout time.Duration
	// Retry is how it is tried again; nil means by the queue.
	Retry *stintv1.RetryPolicy
	// Labels are for finding it again.
	Labels map[string]string
	// Subject is what it is about ("order/4711").
	Subject string
	// Limits are what its runs take, all or nothing; at most 8. The limits are made with QueueService.PutLimit.
	Limits []*stintv1.LimitUse
	// FairnessKey says whose turn it takes (a tenant): the keys of a queue take turns, by the weights of its policy.
	FairnessKey string
	// Unique makes it the only job of its queue with a key, and says what becomes of it if another job holds the key; nil
	// means that it has none.
	Unique *stintv1.Unique
}

// Submitted is the answer to one submitted job.
type Submitted struct {
	// ID is the job's id, given or chosen.
	ID string
	// Existing is true if the job was stored before, by an earlier submit with the same id and content.
	Existing bool
	// Holder is the job that holds the unique key, if the job was not stored for that: then ID names no job. If Err is nil,
	// Holder was left alone or, if Replaced is true, has the content of the job now.
	Holder   string
	Replaced bool
	// State is where the job stands as of the answer; where Holder stands, if that is set.
	State stintv1.JobState
	// Err is why the job was not stored: an *ItemError if the server, or a check before sending, refused it; another
	// error if no answer came, and then the job may be stored: submit it again with this ID to find out.
	Err error
}

// Job is the job that stands for what was submitted: Holder if that is set, else ID.
func (s Submitted) Job() string {
	if s.Holder != "" {
		return s.Holder
	}
	return s.ID
}

// spec converts the job, with its id chosen and ctx's trace. A job that no message can carry is an error of its own, so
// that it does not spoil the message for the others.
func (j Job) spec(ctx context.Context) (*stintv1.JobSpec, *ItemError) {
	if j.ID == "" {
		j.ID = uuid.Must(uuid.NewV7()).String()
	}
	spec := &stintv1.JobSpec{
		Id:           j.ID,
		Queue:        j.Queue,
		Priority:     j.Priority,
		Retry:        j.Retry,
		Labels:       j.Labels,
		Subject:      j.Subject,
		Limits:       j.Limits,
		FairnessKey:  j.FairnessKey,
		Unique:       j.Unique,
		TraceContext: inject(ctx),
	}
	if len(j.Payload) > 0 || j.ContentType != "" {
		spec.Payload = &stintv1.Payload{Content: &stintv1.Payload_Data{Data: j.Payload}, ContentType: j.ContentType}
	}
	switch {
	case !j.RunAt.IsZero() && j.Delay != 0:
		return spec, invalid("start", "RunAt and Delay are both set; at most one may be")
	case !j.RunAt.IsZero():
		spec.Start = &stintv1.JobSpec_RunAt{RunAt: timestamppb.New(j.RunAt)}
	case j.Delay != 0:
		spec.Start = &stintv1.JobSpec_Delay{Delay: durationpb.New(j.Delay)}
	}
	if !j.StartBy.IsZero() {
		spec.StartBy = timestamppb.New(j.StartBy)
	}
	if j.Lease != 0 {
		spec.Lease = durationpb.New(j.Lease)
	}
	if j.Timeout != 0 {
		spec.Timeout = durationpb.New(j.Timeout)
	}
	return spec, j.unsendable(spec)
}

// unsendable checks for what protobuf or gRPC would refuse with the whole message.
func (j Job) unsendable(spec *stintv1.JobSpec) *ItemError {
	for _, text := range [...]struct{ field, value string }{
		{"id", j.ID},
		{"queue", j.Queue},
		{"payload.content_type", j.ContentType},
		{"subject", j.Subject},
		{"fairness_key", j.FairnessKey},
		{"unique.key", j.Unique.GetKey()},
	} {
		if !utf8.ValidString(text.value) {
			return invalid(text.field, "not valid UTF-8")
		}
	}
	for key, value := range j.Labels {
		if !utf8.ValidString(key) || !utf8.ValidString(value) {
			return invalid("labels", "not valid UTF-8")
		}
	}
	for _, u := range j.Limits {
		if !utf8.ValidString(u.GetName()) || !utf8.ValidString(u.GetKey()) {
			return invalid("limits", "not valid UTF-8")
		}
	}
	if size(spec) > maxBatchBytes && proto.Size(spec) > maxSend-1024 {
		return &ItemError{
			Code: codes.InvalidArgument, Reason: stintv1.Reason_REASON_TOO_LARGE, Field: "payload.data",
			Message: "the job is larger than a message may be (4 MiB)",
		}
	}
	return nil
}

func invalid(field, message string) *ItemError {
	return &ItemError{
		Code: codes.InvalidArgument, Reason: stintv1.Reason_REASON_INVALID_FIELD, Field: field, Message: message,
	}
}

// size estimates a spec's bytes on the wire from above, for far less than counting them costs.
func size(spec *stintv1.JobSpec) int {
	n := 256 + len(spec.Id) + len(spec.Queue) + len(spec.Payload.GetData()) + len(spec.Payload.GetContentType()) +
		len(spec.Subject) + len(spec.FairnessKey) + len(spec.TraceContext.GetTracestate()) + len(spec.Unique.GetKey())
	for key, value := range spec.Labels {
		n += 16 + len(key) + len(value)
	}
	for _, u := range spec.Limits {
		n += 24 + len(u.GetName()) + len(u.GetKey())
	}
	return n
}

// submitted converts the answer to the job at index.
func submitted(index int, result *stintv1.SubmitResult) Submitted {
	s := Submitted{
		ID:       result.GetId(),
		Existing: result.GetStatus() == stintv1.SubmitStatus_SUBMIT_STATUS_EXISTING,
		Holder:   result.GetHolderId(),
		Replaced: result.GetStatus() == stintv1.SubmitStatus_SUBMIT_STATUS_REPLACED,
		State:    result.GetState(),
	}
	if e := itemError(result.GetError()); e != nil {
		e.Index = index
		s.Err = e
	}
	return s
}
