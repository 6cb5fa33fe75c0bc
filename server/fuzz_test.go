package server

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	stintv1 "github.com/stintrun/stint/gen/go/stint/v1"
)

// decoded are the messages that clients send, by the first byte of a fuzz input.
var decoded = []proto.Message{
	&stintv1.SubmitRequest{}, &stintv1.WorkRequest{}, &stintv1.ListJobsRequest{}, &stintv1.FinishRunsRequest{},
	&stintv1.InterruptJobsRequest{}, &stintv1.UpdateQueueRequest{}, &structpb.Value{},
	&stintv1.PutLimitRequest{}, &stintv1.GetLimitUsageRequest{},
}

// FuzzCodec: bytes that protobuf's decoder takes, the tolerant one takes with the same result. What the tolerant one takes
// besides holds text that is not UTF-8, and once that is replaced it is a message like any other.
func FuzzCodec(f *testing.F) {
	add := func(kind byte, m proto.Message) {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(kind, b)
		f.Add(kind, bytes.ReplaceAll(b, []byte("text"), []byte("te\xfft")))
	}
	add(0, &stintv1.SubmitRequest{Jobs: []*stintv1.JobSpec{wholeSpec(), {Payload: textPayload("text"), Labels: map[string]string{"text": "text"}}}})
	add(1, &stintv1.WorkRequest{
		Seq: 1, Hello: &stintv1.Hello{Worker: "text", Labels: map[string]string{"a": "text"}, Held: []string{"text", "b"}},
		Demand: &stintv1.Demand{Pools: []*stintv1.Pool{{Queues: []string{"text"}, MaxRuns: 7}}}, Report: &stintv1.Report{},
	})
	add(2, &stintv1.ListJobsRequest{Filter: &stintv1.JobFilter{States: []stintv1.JobState{1, 2}, Subject: "text"}})
	add(3, &stintv1.FinishRunsRequest{Finishes: []*stintv1.Finish{{LeaseToken: "text", Outcome: &stintv1.Finish_Success{
		Success: &stintv1.Success{Result: textPayload("text")},
	}}}})
	add(7, &stintv1.PutLimitRequest{Name: "text", Policy: &stintv1.LimitPolicy{MaxUnits: 1, MaxUnitsOf: map[string]uint32{"text": 7, "a": 1 << 31}}})
	add(6, structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{"text": structpb.NewStringValue("text")}}))
	// A value of a map in two parts, which are merged, and a group, which nobody knows.
	entry := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "k")
	for range 2 {
		b, err := proto.Marshal(structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{{}}}))
		if err != nil {
			f.Fatal(err)
		}
		entry = protowire.AppendBytes(protowire.AppendTag(entry, 2, protowire.BytesType), b)
	}
	object := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), entry)
	f.Add(byte(6), protowire.AppendBytes(protowire.AppendTag(nil, 5, protowire.BytesType), object))
	// An entry of a map with a field whose number is too large.
	f.Add(byte(6), []byte("*\x10\n\x0e\xd0\xd0\xd0\xd00000000000"))
	// A value of a map in two parts, of which the first is cut short.
	f.Add(byte(6), []byte("*\x11\n\x0f2\x010\x12\x0400B\x04\x12\x040000"))
	f.Add(byte(1), protowire.AppendTag(protowire.AppendTag(nil, 900, protowire.StartGroupType), 900, protowire.EndGroupType))

	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		plain := decoded[int(kind)%len(decoded)].ProtoReflect().New()
		tolerant := plain.New()
		plainErr, err := proto.Unmarshal(b, plain.Interface()), unmarshalAnyText(b, tolerant, 0)
		if plainErr == nil {
			if err != nil {
				t.Fatalf("refused: %v", err)
			}
			if !proto.Equal(plain.Interface(), tolerant.Interface()) {
				t.Fatalf("decoded as %v, want %v", tolerant, plain)
			}
			return
		}
		if err != nil {
			return
		}
		if !strings.Contains(plainErr.Error(), "UTF-8") {
			t.Fatalf("taken, though something else is wrong: %v", plainErr)
		}
		replaceInvalidText(tolerant)
		clean, err := proto.Marshal(tolerant.Interface())
		if err != nil {
			t.Fatalf("with its text replaced: %v", err)
		}
		if err := proto.Unmarshal(clean, plain.New().Interface()); err != nil {
			t.Fatalf("read again: %v", err)
		}
	})
}

// FuzzQueueName compares the check of names and patterns with their grammar.
func FuzzQueueName(f *testing.F) {
	for _, name := range []string{"", "a", "media/thumbnails", "a//b", "/a", "a/", "_stint", "_stint/x", "_stint2", "*", "media/*", "a*", "A", "ä", strings.Repeat("a", 201)} {
		f.Add(name, "media/a")
	}
	grammar := regexp.MustCompile(`\A[a-z0-9._-]+(/[a-z0-9._-]+)*\z`)
	valid := func(name string) bool {
		return len(name) <= 200 && grammar.MatchString(name) && name != "_stint" && !strings.HasPrefix(name, "_stint/")
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		if err := checkQueueName("queue", text); (err == nil) != valid(text) {
			t.Fatalf("the name %q: %v", text, err)
		}
		below, isPattern := strings.CutSuffix(text, "/*")
		good := text == "" || text == "*" || valid(text) || isPattern && valid(below)
		if err := checkQueuePattern("queue", text); (err == nil) != good {
			t.Fatalf("the pattern %q: %v", text, err)
		}
		if !good || !valid(name) {
			return
		}
		want := text == "" || text == "*" || name == text || isPattern && strings.HasPrefix(name, below+"/")
		if got := parsePattern(text).matches(name); got != want {
			t.Fatalf("%q matches %q: %t", text, name, got)
		}
	})
}

// FuzzPageToken: a sealed token opens to its position for its query only, and no other text opens at all.
func FuzzPageToken(f *testing.F) {
	f.Add("q", []byte{0, 1, 2}, "AAAA")
	f.Add("", []byte(nil), "")
	tokens := newPageTokens([32]byte{1})
	f.Fuzz(func(t *testing.T, queue string, position []byte, text string) {
		query := &stintv1.ListQueuesRequest{Queue: strings.ToValidUTF8(queue, "")}
		token, err := tokens.seal(query, position)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := tokens.open(query, token); err != nil || !bytes.Equal(got, position) {
			t.Fatalf("%x came back as %x, %v", position, got, err)
		}
		other := &stintv1.ListQueuesRequest{Queue: query.GetQueue() + "x"}
		jobs := &stintv1.ListJobsRequest{Filter: &stintv1.JobFilter{Queue: query.GetQueue()}}
		for _, query := range []proto.Message{other, jobs} {
			if _, err := tokens.open(query, token); !errors.Is(err, errPageToken) {
				t.Fatalf("another query: %v", err)
			}
		}
		if _, err := newPageTokens([32]byte{2}).open(query, token); !errors.Is(err, errPageToken) {
			t.Fatalf("another store: %v", err)
		}
		if _, err := tokens.open(query, text); text != "" && text != token && !errors.Is(err, errPageToken) {
			t.Fatalf("%q: %v", text, err)
		}
	})
}

// TestCodecKeepsMessage: what is sent with its text replaced stays as it was, because it may be sent elsewhere too.
func TestCodecKeepsMessage(t *testing.T) {
	m := &stintv1.SubmitResult{Id: "a\xffb"}
	sent, err := newCodec().Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	got := &stintv1.SubmitResult{}
	if err := proto.Unmarshal(sent.Materialize(), got); err != nil || got.GetId() != "a\ufffdb" || m.GetId() != "a\xffb" {
		t.Errorf("%q was sent as %q and is %q, %v", "a\xffb", got.GetId(), m.GetId(), err)
	}
}

// TestCodecDepth: a message that is nested without end is refused, also by the tolerant decoder.
func TestCodecDepth(t *testing.T) {
	nested := func(depth int) []byte {
		inner := protowire.AppendString(protowire.AppendTag(nil, 3, protowire.BytesType), "\xff") // a string_value
		sizes := []int{len(inner)}
		for range depth {
			sizes = append(sizes, 1+protowire.SizeBytes(sizes[len(sizes)-1]))
		}
		var b []byte
		for i := depth - 1; i >= 0; i-- {
			field := protowire.Number(6) // a list_value
			if i%2 == 0 {
				field = 1 // a value of that list
			}
			b = protowire.AppendVarint(protowire.AppendTag(b, field, protowire.BytesType), uint64(sizes[i]))
		}
		return append(b, inner...)
	}
	for depth, taken := range map[int]bool{9_000: true, 11_000: false} {
		if err := unmarshalAnyText(nested(depth), new(structpb.Value).ProtoReflect(), 0); (err == nil) != taken {
			t.Errorf("%d deep: %v", depth, err)
		}
	}
}
