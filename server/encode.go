package server

import (
	"context"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
	"github.com/stintrun/stint/internal/dispatch"
)

// appendAssignments is the field of a WorkResponse that wireAssignments would be, encoded. It fails if a payload is gone:
// the worker would never name that run, and its slot would stay taken.
func (s *Server) appendAssignments(ctx context.Context, runs []dispatch.Assignment) ([]byte, error) {
	if len(runs) == 0 {
		return nil, nil
	}
	apart, err := s.loadPayloads(ctx, runs)
	if err != nil {
		return nil, err
	}
	const assignmentRoom = 256 // without its payload, mostly
	size := 0
	for i := range runs {
		size += assignmentRoom + runs[i].Job.Spec.PayloadSize
	}
	to := make([]byte, 0, size)
	for i := range runs {
		payload, ok := payloadOf(runs, i, apart)
		if !ok {
			return nil, errPayloadGone
		}
		to = openMessage(to, 3)
		at := len(to)
		to = closeMessage(appendAssignment(to, &runs[i], payload), at)
	}
	return to, nil
}

// appendAssignment appends the fields of wireAssignment.
func appendAssignment(to []byte, a *dispatch.Assignment, payload []byte) []byte {
	j, spec := a.Job, a.Job.Spec
	to = appendVarint(to, 1, a.Number)
	to = appendText(to, 2, a.Token)
	to = appendID(to, 3, spec.ID)
	to = appendText(to, 4, spec.Queue)
	to = appendVarint(to, 5, uint64(a.Pool))
	to = appendVarint(to, 6, uint64(j.Run.Number))
	to = appendVarint(to, 7, j.Run.Fence)
	if len(payload) > 0 || spec.ContentType != "" {
		to = openMessage(to, 8)
		at := len(to)
		to = protowire.AppendBytes(appendTag(to, 1, protowire.BytesType), payload)
		to = closeMessage(appendText(to, 4, spec.ContentType), at)
	}
	to = appendVarint(to, 9, uint64(spec.Priority))
	for key, value := range spec.Labels {
		to = openMessage(to, 10)
		at := len(to)
		to = protowire.AppendString(appendTag(to, 1, protowire.BytesType), key)
		to = closeMessage(protowire.AppendString(appendTag(to, 2, protowire.BytesType), value), at)
	}
	to = appendText(to, 11, spec.Subject)
	to = appendSpan(to, 12, j.Run.Lease)
	to = openMessage(to, 13)
	at := len(to)
	for i, n := range [...]uint32{j.Counters.Attempts, j.Counters.Crashes, j.Counters.Interrupts, j.Counters.Snoozes, j.Counters.Deliveries} {
		to = appendVarint(to, protowire.Number(i+1), uint64(n))
	}
	to = closeMessage(to, at)
	if spec.Traceparent != "" {
		to = openMessage(to, 14)
		at := len(to)
		to = appendText(to, 1, spec.Traceparent)
		to = closeMessage(appendText(to, 2, spec.Tracestate), at)
	}
	to = appendTime(to, 15, j.SubmitTime)
	if timeout := j.RunTimeout(); timeout != 0 {
		to = appendSpan(to, 16, timeout)
	}
	to = appendVarint(to, 17, uint64(j.Run.LostContact))
	for i := range spec.Limits {
		to = openMessage(to, 18)
		at := len(to)
		to = appendText(to, 1, spec.Limits[i].Limit)
		to = appendText(to, 2, spec.Limits[i].Key)
		to = closeMessage(appendVarint(to, 3, uint64(spec.Limits[i].Units)), at)
	}
	return appendText(to, 19, spec.FairnessKey)
}

// appendAcks appends acknowledgements as fields of a WorkResponse, and returns those that are left to protobuf: all, if
// one of them has an error.
func appendAcks(to []byte, acks []*stintv1.FinishAck) ([]byte, []*stintv1.FinishAck) {
	for _, a := range acks {
		if a.GetError() != nil {
			return to, acks
		}
	}
	for _, a := range acks {
		to = openMessage(to, 4)
		at := len(to)
		to = appendText(to, 1, a.GetLeaseToken())
		to = appendVarint(to, 2, uint64(a.GetStatus()))
		to = closeMessage(appendVarint(to, 4, uint64(a.GetJobState())), at)
	}
	return to, nil
}

// encodeResults is the SubmitResponse of the results; it is left to protobuf if one of them has an error.
func encodeResults(results []*stintv1.SubmitResult) any {
	const resultRoom = 52 // without its policy, mostly
	var to, policy []byte
	var of *stintv1.JobPolicy // the policy that is encoded: most jobs of a message share it
	for _, r := range results {
		if r.GetPolicy() != of {
			var err error
			if policy, err = proto.Marshal(r.GetPolicy()); err != nil {
				return &stintv1.SubmitResponse{Results: results}
			}
			of = r.GetPolicy()
		}
		if r.GetError() != nil {
			return &stintv1.SubmitResponse{Results: results}
		}
		if to == nil {
			to = make([]byte, 0, len(results)*(resultRoom+len(policy)))
		}
		to = openMessage(to, 1)
		at := len(to)
		to = appendText(to, 1, r.GetId())
		to = appendVarint(to, 2, uint64(r.GetStatus()))
		to = appendVarint(to, 3, uint64(r.GetState()))
		if of != nil {
			to = protowire.AppendBytes(appendTag(to, 5, protowire.BytesType), policy)
		}
		to = closeMessage(appendText(to, 6, r.GetHolderId()), at)
	}
	return encoded{parts: [][]byte{to}}
}
