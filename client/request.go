package client

import (
	"context"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// naming is a connection that gives each request which jobs remember a request_id before it is first sent: gRPC repeats
// what was lost below it, so the repeats have the same one.
type naming struct{ grpc.ClientConnInterface }

// Invoke makes a unary call.
func (n naming) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return n.ClientConnInterface.Invoke(ctx, method, named(args), reply, opts...)
}

// named is the request with a request_id of its own, if it is one that jobs remember and its caller has chosen none. The
// caller's message stays as it is.
func named(request any) any {
	switch request.(type) {
	case *stintv1.InterruptJobsRequest, *stintv1.RetryJobsRequest, *stintv1.ParkJobsRequest, *stintv1.UpdateJobRequest:
	default:
		return request
	}
	m, _ := request.(proto.Message)
	field := m.ProtoReflect().Descriptor().Fields().ByName("request_id")
	if !m.ProtoReflect().IsValid() || m.ProtoReflect().Has(field) {
		return request
	}
	m = proto.Clone(m)
	m.ProtoReflect().Set(field, protoreflect.ValueOfString(uuid.Must(uuid.NewV7()).String()))
	return m
}
