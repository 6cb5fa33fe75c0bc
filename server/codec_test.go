package server_test

import (
	"testing"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// rawMessage is a message that may hold strings which are not UTF-8: protobuf refuses to marshal those.
type rawMessage struct {
	t *testing.T
	m proto.Message
}

// bytes is the message on the wire. It knows strings, bytes, enums, messages, lists and maps of strings: what the tests
// send.
func (r rawMessage) bytes() []byte { return appendMessage(r.t, nil, r.m.ProtoReflect()) }

func appendMessage(t *testing.T, b []byte, m protoreflect.Message) []byte {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
			v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				entry := appendValue(t, appendValue(t, nil, f.MapKey(), k.Value()), f.MapValue(), v)
				b = protowire.AppendBytes(protowire.AppendTag(b, f.Number(), protowire.BytesType), entry)
				return true
			})
		case f.IsList():
			for i := range v.List().Len() {
				b = appendValue(t, b, f, v.List().Get(i))
			}
		default:
			b = appendValue(t, b, f, v)
		}
		return true
	})
	return b
}

func appendValue(t *testing.T, b []byte, f protoreflect.FieldDescriptor, v protoreflect.Value) []byte {
	if f.Kind() == protoreflect.EnumKind {
		return protowire.AppendVarint(protowire.AppendTag(b, f.Number(), protowire.VarintType), uint64(v.Enum()))
	}
	b = protowire.AppendTag(b, f.Number(), protowire.BytesType)
	switch f.Kind() {
	case protoreflect.StringKind:
		return protowire.AppendString(b, v.String())
	case protoreflect.BytesKind:
		return protowire.AppendBytes(b, v.Bytes())
	case protoreflect.MessageKind:
		return protowire.AppendBytes(b, appendMessage(t, nil, v.Message()))
	default:
		t.Fatalf("a field of kind %s", f.Kind())
		return nil
	}
}

// rawCodec sends raw messages as they are, and everything else as usual.
type rawCodec struct{ encoding.CodecV2 }

func newRawCodec() rawCodec { return rawCodec{encoding.GetCodecV2("proto")} }

func (c rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	if raw, ok := v.(rawMessage); ok {
		return mem.BufferSlice{mem.SliceBuffer(raw.bytes())}, nil
	}
	return c.CodecV2.Marshal(v)
}
