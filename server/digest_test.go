package server

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

func digestOf(t *testing.T, m *stintv1.JobSpec) string {
	t.Helper()
	payload, _, err := payloadContent(m.GetPayload())
	if err != nil {
		t.Fatal(err)
	}
	scratch := []byte("left from another job")
	d := digest(m, payload, usesFrom(m.GetLimits()), &scratch)
	return hex.EncodeToString(d[:])
}

func textPayload(s string) *stintv1.Payload {
	return &stintv1.Payload{Content: &stintv1.Payload_Text{Text: s}}
}

func dataPayload(s string) *stintv1.Payload {
	return &stintv1.Payload{Content: &stintv1.Payload_Data{Data: []byte(s)}}
}

func jsonPayload(v *structpb.Value) *stintv1.Payload {
	return &stintv1.Payload{Content: &stintv1.Payload_Json{Json: v}}
}

// wholeSpec has every field that a job can have at once.
func wholeSpec() *stintv1.JobSpec {
	payload := textPayload("payload")
	payload.ContentType = "text/plain"
	return &stintv1.JobSpec{
		Id: "0188bac7-4afa-78aa-bc3b-bd1eef28d881", Queue: "media/thumbnails", Payload: payload,
		Priority: stintv1.Priority_PRIORITY_HIGH, Start: &stintv1.JobSpec_RunAt{RunAt: &timestamppb.Timestamp{Seconds: 1e9, Nanos: 7}},
		StartBy: &timestamppb.Timestamp{Seconds: 2e9, Nanos: 7}, Lease: &durationpb.Duration{Seconds: 60, Nanos: 7},
		Retry: &stintv1.RetryPolicy{MaxAttempts: 4, Backoff: &stintv1.RetryPolicy_Exponential{Exponential: &stintv1.ExponentialBackoff{
			Initial: &durationpb.Duration{Seconds: 1, Nanos: 7}, Max: &durationpb.Duration{Seconds: 60, Nanos: 7}, Multiplier: 3,
		}}, Deadline: &durationpb.Duration{Seconds: 99, Nanos: 7}, OnFailure: stintv1.OnFailure_ON_FAILURE_PARK, InterruptDelay: &durationpb.Duration{Seconds: 9, Nanos: 7}},
		Labels: map[string]string{"customer": "42", "a": "b"}, Subject: "order/4711", Timeout: &durationpb.Duration{Seconds: 9, Nanos: 7},
		FairnessKey: "acme",
		Limits:      []*stintv1.LimitUse{{Name: "gpu", Key: "a", Units: 2}, {Name: "db"}},
		Unique: &stintv1.Unique{
			Key: "order/4711", Until: stintv1.UniqueUntil_UNIQUE_UNTIL_FINISH, Ttl: &durationpb.Duration{Seconds: 9, Nanos: 7},
			OnConflict: stintv1.OnConflict_ON_CONFLICT_REJECT,
		},
		TraceContext: &stintv1.TraceContext{Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Tracestate: "a=b"},
	}
}

// digests are stored with jobs: these values never change. A field that comes to JobSpec gets a row of its own.
var digests = []struct {
	name, want string
	spec       *stintv1.JobSpec
}{
	{"queue only", "e07598f1bb868560212cf568a7747780", &stintv1.JobSpec{Queue: "q"}},
	{"empty data", "a3792ddf9b0476bc61baf730c5671505", &stintv1.JobSpec{Queue: "q", Payload: dataPayload("")}},
	{"data", "188294621b1f0c1e03c9245b75f1d7ff", &stintv1.JobSpec{Queue: "q", Payload: dataPayload("1")}},
	{"text", "2f796037eee0dd662b981deb9e90dab7", &stintv1.JobSpec{Queue: "q", Payload: textPayload("1")}},
	{"json", "85c5f96dd07be00d0ae5f97a5dd98820", &stintv1.JobSpec{Queue: "q", Payload: jsonPayload(structpb.NewNumberValue(1))}},
	{"json object", "7e66a4414d89558c2812f348bed6b989", &stintv1.JobSpec{Queue: "q", Payload: jsonPayload(structpb.NewStructValue(&structpb.Struct{
		Fields: map[string]*structpb.Value{
			"b": structpb.NewNullValue(), "a": structpb.NewStringValue("<é\u2028>"), "c": structpb.NewBoolValue(true),
			"d": structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{structpb.NewNumberValue(1e21), structpb.NewNumberValue(-0.5)}}),
		},
	}))}},
	{"content type", "64dd0e8409ecbd1d6c634df0ab3d635e", &stintv1.JobSpec{Queue: "q", Payload: &stintv1.Payload{Content: &stintv1.Payload_Data{}, ContentType: "a"}}},
	{"4096 bytes", "1afe9c3c982aee50a53a1b918634fb26", &stintv1.JobSpec{Queue: "q", Payload: dataPayload(strings.Repeat("x", 4096))}},
	{"4097 bytes", "ea59fb961afb5e372f0fc0183158c647", &stintv1.JobSpec{Queue: "q", Payload: dataPayload(strings.Repeat("x", 4097))}},
	{"priority", "5613fb3c344e931adbc05676e8c8ec1a", &stintv1.JobSpec{Queue: "q", Priority: stintv1.Priority_PRIORITY_NORMAL}},
	{"run_at", "4d9c3241a2487ea6d6595b414b0db90b", &stintv1.JobSpec{Queue: "q", Start: &stintv1.JobSpec_RunAt{RunAt: timestamppb.New(time.Unix(1, 0))}}},
	{"delay", "ab11d877fbf5f658801b4b756277a0a1", &stintv1.JobSpec{Queue: "q", Start: &stintv1.JobSpec_Delay{Delay: durationpb.New(time.Second)}}},
	{"no delay", "51bbab63f56385d72f9dd983a7585c9f", &stintv1.JobSpec{Queue: "q", Start: &stintv1.JobSpec_Delay{Delay: &durationpb.Duration{}}}},
	{"start_by", "2e37aeb7ee15260dd8bd933d1d8b6770", &stintv1.JobSpec{Queue: "q", StartBy: timestamppb.New(time.Unix(1, 0))}},
	{"lease", "3e6ecae7d7b4555ceab2f42af8ebb922", &stintv1.JobSpec{Queue: "q", Lease: durationpb.New(time.Second)}},
	{"timeout", "47b6296be66ee60a67be3fde79b2bcb8", &stintv1.JobSpec{Queue: "q", Timeout: durationpb.New(time.Second)}},
	{"max_attempts", "c8e241ec57c9788ccbc58e051379b50d", &stintv1.JobSpec{Queue: "q", Retry: &stintv1.RetryPolicy{MaxAttempts: 1}}},
	{"initial", "43659ac08a4c1c2766946f5c2262f376", &stintv1.JobSpec{Queue: "q", Retry: curve(&stintv1.ExponentialBackoff{Initial: durationpb.New(time.Second)})}},
	{"max", "f38c03ec06c54721abb7ba816b5a0abd", &stintv1.JobSpec{Queue: "q", Retry: curve(&stintv1.ExponentialBackoff{Max: durationpb.New(time.Second)})}},
	{"multiplier", "a20b042699526a68e69f948a48ba72c6", &stintv1.JobSpec{Queue: "q", Retry: curve(&stintv1.ExponentialBackoff{Multiplier: 1})}},
	{"a label", "5bd91ca7ddbe2f08f06a319cc8eaf0fc", &stintv1.JobSpec{Queue: "q", Labels: map[string]string{"a": ""}}},
	{"two labels", "5f469e16959bcbb12506a8f7a88a8106", &stintv1.JobSpec{Queue: "q", Labels: map[string]string{"b": "2", "a": "1"}}},
	{"subject", "b586231abe74ecf97edbcc5a35fc32dc", &stintv1.JobSpec{Queue: "q", Subject: "a"}},
	{"exponential", "bbf568eed10b668fbcaa795671c63c10", &stintv1.JobSpec{Queue: "q", Retry: curve(&stintv1.ExponentialBackoff{})}},
	{"linear", "31a86851794b42db9b2c2be9aafb8a3d", &stintv1.JobSpec{Queue: "q", Retry: linear(&stintv1.LinearBackoff{})}},
	{"linear initial", "992746b2b56f8bb9f55e8a2007a65b14", &stintv1.JobSpec{Queue: "q", Retry: linear(&stintv1.LinearBackoff{Initial: durationpb.New(time.Second)})}},
	{"linear increment", "dda9c08afff0081faa587e0cf8081af6", &stintv1.JobSpec{Queue: "q", Retry: linear(&stintv1.LinearBackoff{Increment: durationpb.New(time.Second)})}},
	{"linear max", "4789a0086237dcdac9bc75bf24f89005", &stintv1.JobSpec{Queue: "q", Retry: linear(&stintv1.LinearBackoff{Max: durationpb.New(time.Second)})}},
	{"constant", "e53ccbe17702d1da96eab3aa9e0839dc", &stintv1.JobSpec{Queue: "q", Retry: always(&stintv1.ConstantBackoff{})}},
	{"constant delay", "7874b769ec796c52a7effde5d0a89b49", &stintv1.JobSpec{Queue: "q", Retry: always(&stintv1.ConstantBackoff{Delay: durationpb.New(time.Second)})}},
	{"deadline", "1e0307330a9eb3a9e0b635c7d902547b", &stintv1.JobSpec{Queue: "q", Retry: &stintv1.RetryPolicy{Deadline: durationpb.New(time.Second)}}},
	{"no deadline", "2d4e69ba3ae03811122c363e0bc9fded", &stintv1.JobSpec{Queue: "q", Retry: &stintv1.RetryPolicy{Deadline: &durationpb.Duration{}}}},
	{"on_failure", "3e2defa6d19c9eaeae45d584d820d4b3", &stintv1.JobSpec{Queue: "q", Retry: &stintv1.RetryPolicy{OnFailure: stintv1.OnFailure_ON_FAILURE_RETRY}}},
	{"interrupt_delay", "8f513cc1c8c4ff6420a0766c02251fda", &stintv1.JobSpec{Queue: "q", Retry: &stintv1.RetryPolicy{InterruptDelay: durationpb.New(time.Second)}}},
	{"all that there was at first", "e94bea3a29333b1b1c9d70086c87527e", firstSpec()},
	{"a limit", "daa3f172030abaaaab360bc358b90864", &stintv1.JobSpec{Queue: "q", Limits: []*stintv1.LimitUse{{Name: "a"}}}},
	{"a limit with a key", "b4be79ed6f9a56baf6eb054facd14dcc", &stintv1.JobSpec{Queue: "q", Limits: []*stintv1.LimitUse{{Name: "a", Key: "b"}}}},
	{"a limit with units", "03ff0d1318d4ffdc9d57dc06bbfa78dd", &stintv1.JobSpec{Queue: "q", Limits: []*stintv1.LimitUse{{Name: "a", Units: 2}}}},
	{"two limits", "1abb2090f3ff779525c23fcfdd40215b", &stintv1.JobSpec{Queue: "q", Limits: []*stintv1.LimitUse{{Name: "a"}, {Name: "b"}}}},
	{"all that there was before limits", "49c5fbf0f00ae81bdd2bbe41469e9b13", secondSpec()},
	{"all that there was before fairness keys", "e38809bed08ffe67f4019b134649a28b", thirdSpec()},
	{"a fairness key", "d15a0f2347393f894b0a0642b0a5e11b", &stintv1.JobSpec{Queue: "q", FairnessKey: "a"}},
	{"all that there was before unique keys", "110269770c3aaae0c59ce97ecb755748", fourthSpec()},
	{"a unique key", "eb6faf5f7853807bc5c4508ca4097814", &stintv1.JobSpec{Queue: "q", Unique: &stintv1.Unique{Key: "a"}}},
	{"a unique key until", "17659b3c39182fc4f709ce7559b11e0d", &stintv1.JobSpec{Queue: "q", Unique: &stintv1.Unique{Key: "a", Until: stintv1.UniqueUntil_UNIQUE_UNTIL_START}}},
	{"a unique key with a ttl", "1f0097e03404abc94d5abf7e0c4fab79", &stintv1.JobSpec{Queue: "q", Unique: &stintv1.Unique{Key: "a", Ttl: durationpb.New(time.Second)}}},
	{"a unique key with a policy", "01258d0993dd13ea26783254b35093a2", &stintv1.JobSpec{Queue: "q", Unique: &stintv1.Unique{Key: "a", OnConflict: stintv1.OnConflict_ON_CONFLICT_REJECT}}},
	{"all", "b5e03fdb73aa3a196bbb412565ad8f6d", wholeSpec()},
}

// firstSpec is wholeSpec without what came later.
func firstSpec() *stintv1.JobSpec {
	m := wholeSpec()
	m.Retry.Deadline, m.Retry.OnFailure, m.Retry.InterruptDelay = nil, 0, nil
	m.Timeout, m.Limits, m.FairnessKey, m.Unique = nil, nil, "", nil
	return m
}

// secondSpec is the same without limits, which came after the rest, thirdSpec without fairness keys and fourthSpec without unique
// keys, which came then.
func secondSpec() *stintv1.JobSpec {
	m := thirdSpec()
	m.Limits = nil
	return m
}

func thirdSpec() *stintv1.JobSpec {
	m := fourthSpec()
	m.FairnessKey = ""
	return m
}

func fourthSpec() *stintv1.JobSpec {
	m := wholeSpec()
	m.Unique = nil
	return m
}

func linear(l *stintv1.LinearBackoff) *stintv1.RetryPolicy {
	return &stintv1.RetryPolicy{Backoff: &stintv1.RetryPolicy_Linear{Linear: l}}
}

func always(c *stintv1.ConstantBackoff) *stintv1.RetryPolicy {
	return &stintv1.RetryPolicy{Backoff: &stintv1.RetryPolicy_Constant{Constant: c}}
}

func curve(e *stintv1.ExponentialBackoff) *stintv1.RetryPolicy {
	return &stintv1.RetryPolicy{Backoff: &stintv1.RetryPolicy_Exponential{Exponential: e}}
}

// TestDigestGolden: what is stored stays comparable.
func TestDigestGolden(t *testing.T) {
	seen := map[string]string{}
	for _, row := range digests {
		got := digestOf(t, row.spec)
		if got != row.want {
			t.Errorf("%s: %s, want %s", row.name, got, row.want)
		}
		if other, same := seen[got]; same {
			t.Errorf("%s and %s have the same digest", row.name, other)
		}
		seen[got] = row.name
	}
}

// TestDigestFields: every field but the id and the trace counts, so that a repeat with anything changed is a conflict.
func TestDigestFields(t *testing.T) {
	base := wholeSpec()
	want := digestOf(t, base)
	changed := 0
	eachLeaf(base.ProtoReflect(), "", func(path string, set func()) {
		set()
		got := digestOf(t, base)
		if outside := path == "id" || strings.HasPrefix(path, "trace_context."); (got == want) != outside {
			t.Errorf("%s: the digest changed: %t", path, got != want)
		}
		changed++
		base = wholeSpec()
	}, func() protoreflect.Message { return base.ProtoReflect() })
	if changed < 20 {
		t.Errorf("%d fields were changed", changed)
	}
	for _, labels := range []map[string]string{
		{"customer": "42"}, {"customer": "42", "a": "b", "c": ""}, {"customer": "b", "a": "42"}, {"customer": "42", "a": "c"}, {"customera": "42", "": "b"},
	} {
		m := wholeSpec()
		m.Labels = labels
		if digestOf(t, m) == want {
			t.Errorf("labels %v: the digest did not change", labels)
		}
	}
	for _, limits := range [][]*stintv1.LimitUse{
		{{Name: "gpu", Key: "a", Units: 2}},
		{{Name: "gpu", Key: "b", Units: 2}, {Name: "db"}},
		{{Name: "gpu", Key: "a", Units: 3}, {Name: "db"}},
		{{Name: "gpu", Key: "a", Units: 2}, {Name: "db", Key: "a"}},
		{{Name: "gpu", Key: "a"}, {Name: "db", Units: 2}},
	} {
		m := wholeSpec()
		m.Limits = limits
		if digestOf(t, m) == want {
			t.Errorf("limits %v: the digest did not change", limits)
		}
	}
	same := wholeSpec()
	same.Limits = []*stintv1.LimitUse{{Name: "db", Units: 1}, {Name: "gpu", Key: "a", Units: 2}}
	same.Id, same.TraceContext, same.Labels = "", nil, map[string]string{"a": "b", "customer": "42"}
	if digestOf(t, same) != want {
		t.Error("another id, no trace, the labels and limits in another order, one unit by its number: the digest changed")
	}
}

// eachLeaf calls fn for every scalar below m, with what sets it to another value. m must have every field that is not
// an alternative to one it has.
func eachLeaf(m protoreflect.Message, path string, fn func(string, func()), again func() protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		here := path + string(f.Name())
		set := m.Has(f)
		if of := f.ContainingOneof(); of != nil && !set && m.WhichOneof(of) != nil {
			continue
		}
		switch {
		case !set:
			fn(here+" (which the test does not set)", func() {})
		case f.IsMap(), f.IsList():
		case f.Kind() == protoreflect.MessageKind:
			eachLeaf(m.Get(f).Message(), here+".", fn, func() protoreflect.Message { return again().Get(f).Message() })
		default:
			fn(here, func() { m := again(); m.Set(f, another(m.Get(f))) })
		}
	}
}

// another is a value other than v.
func another(v protoreflect.Value) protoreflect.Value {
	switch v := v.Interface().(type) {
	case string:
		return protoreflect.ValueOf(v + "x")
	case int32:
		return protoreflect.ValueOf(v + 1)
	case int64:
		return protoreflect.ValueOf(v + 1)
	case uint32:
		return protoreflect.ValueOf(v + 1)
	case float64:
		return protoreflect.ValueOf(v + 1)
	case protoreflect.EnumNumber:
		return protoreflect.ValueOf(v + 10)
	default:
		panic(fmt.Sprintf("a field of type %T", v))
	}
}
