package client

import (
	"context"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

var traceContext propagation.TraceContext

// inject returns the span context of ctx for the wire; nil if ctx has none.
func inject(ctx context.Context) *stintv1.TraceContext {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return nil
	}
	carrier := propagation.MapCarrier{}
	traceContext.Inject(ctx, carrier)
	return &stintv1.TraceContext{Traceparent: carrier.Get("traceparent"), Tracestate: carrier.Get("tracestate")}
}

// extract returns ctx with the remote span context that tc names; a missing or malformed one is ignored.
func extract(ctx context.Context, tc *stintv1.TraceContext) context.Context {
	if tc.GetTraceparent() == "" {
		return ctx
	}
	return traceContext.Extract(ctx, propagation.MapCarrier{
		"traceparent": tc.GetTraceparent(), "tracestate": tc.GetTracestate(),
	})
}
