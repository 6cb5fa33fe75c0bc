package server

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that this one wraps
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"
)

// codec is gRPC's protobuf codec with one difference: a string that is not valid UTF-8 does not fail its message.
//
// The plain codec refuses such a message as a whole, which ends its stream: one bad label would take down a batch and
// everything else the stream carries. Here the message arrives with the bytes as they are, and the validation of the
// item refuses them by the field's name. A message that is sent gets U+FFFD in place of what is not valid, so that an
// answer can quote a bad id. Valid messages take the plain codec's path and pay nothing.
type codec struct {
	encoding.CodecV2
}

func newCodec() codec { return codec{encoding.GetCodecV2("proto")} }

// sized is a message that is to be received, and then has the size that it had on the wire.
type sized struct {
	m    proto.Message
	size int
}

// receive receives m, and returns its size on the wire.
func receive(stream grpc.ServerStream, m proto.Message) (int, error) {
	in := sized{m: m}
	err := stream.RecvMsg(&in)
	return in.size, err
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if in, ok := v.(*sized); ok {
		in.size = data.Len()
		return c.Unmarshal(data, in.m)
	}
	err := c.CodecV2.Unmarshal(data, v)
	if err == nil {
		return nil
	}
	m, ok := v.(proto.Message)
	if !ok {
		return err
	}
	proto.Reset(m)
	if unmarshalAnyText(data.Materialize(), m.ProtoReflect(), 0) != nil {
		return err
	}
	return nil
}

// encoded is a message whose fields, or some of them, are encoded already, in parts that may be shared.
type encoded struct {
	parts [][]byte
	rest  proto.Message // its other fields; nil: none
}

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if m, ok := v.(encoded); ok {
		return c.marshalEncoded(m)
	}
	data, err := c.CodecV2.Marshal(v)
	if err == nil {
		return data, nil
	}
	m, ok := v.(proto.Message)
	if !ok {
		return nil, err
	}
	m = proto.Clone(m) // it may share parts with other answers
	replaceInvalidText(m.ProtoReflect())
	return c.CodecV2.Marshal(m)
}

func (c codec) marshalEncoded(m encoded) (data mem.BufferSlice, err error) {
	if m.rest != nil {
		if data, err = c.Marshal(m.rest); err != nil {
			return nil, err
		}
	}
	for _, part := range m.parts {
		data = append(data, mem.SliceBuffer(part))
	}
	return data, nil
}

// depthMax bounds the nesting of messages, as protobuf's own decoder does.
const depthMax = 10_000

var errWire = errors.New("server: malformed protobuf")

// unmarshalAnyText merges b into m without asking whether strings are valid UTF-8. What holds no string is left to
// protobuf's decoder.
func unmarshalAnyText(b []byte, m protoreflect.Message, depth int) error {
	if depth > depthMax {
		return fmt.Errorf("%w: nested too deeply", errWire)
	}
	fields := m.Descriptor().Fields()
	for len(b) > 0 {
		number, wireType, tag := protowire.ConsumeTag(b)
		if tag < 0 {
			return errWire
		}
		size := protowire.ConsumeFieldValue(number, wireType, b[tag:])
		if size < 0 {
			return errWire
		}
		whole, value := b[:tag+size], b[tag:tag+size]
		b = b[tag+size:]
		field := fields.ByNumber(number)
		if field == nil || wireType != protowire.BytesType || !holdsText(field) {
			if err := (proto.UnmarshalOptions{Merge: true}).Unmarshal(whole, m.Interface()); err != nil {
				return err
			}
			continue
		}
		content, n := protowire.ConsumeBytes(value)
		if n < 0 {
			return errWire
		}
		if err := mergeText(content, m, field, depth); err != nil {
			return err
		}
	}
	return nil
}

// holdsText reports whether a field is a string or a message, which may hold strings.
func holdsText(field protoreflect.FieldDescriptor) bool {
	return field.Kind() == protoreflect.StringKind || field.Kind() == protoreflect.MessageKind
}

// mergeText puts one occurrence of a field into m: a string, a message, or an entry of a map.
func mergeText(content []byte, m protoreflect.Message, field protoreflect.FieldDescriptor, depth int) error {
	switch {
	case field.IsMap():
		return mergeEntry(content, m.Mutable(field).Map(), field, depth)
	case field.Kind() == protoreflect.StringKind:
		text := protoreflect.ValueOfString(string(content))
		if field.IsList() {
			m.Mutable(field).List().Append(text)
		} else {
			m.Set(field, text)
		}
		return nil
	case field.IsList():
		element := m.Mutable(field).List().AppendMutable()
		return unmarshalAnyText(content, element.Message(), depth+1)
	default:
		return unmarshalAnyText(content, m.Mutable(field).Message(), depth+1)
	}
}

// mergeEntry puts an entry of a map into entries. Its keys are strings, its values strings, messages or uint32; stint.v1
// and what it imports have no other maps.
func mergeEntry(content []byte, entries protoreflect.Map, field protoreflect.FieldDescriptor, depth int) error {
	kind := field.MapValue().Kind()
	if field.MapKey().Kind() != protoreflect.StringKind || !holdsText(field.MapValue()) && kind != protoreflect.Uint32Kind {
		return fmt.Errorf("%w: a map of a kind that is not supported", errWire)
	}
	key, value := "", entries.NewValue()
	for len(content) > 0 {
		number, wireType, tag := protowire.ConsumeTag(content)
		if tag < 0 {
			return errWire
		}
		size := protowire.ConsumeFieldValue(number, wireType, content[tag:])
		if size < 0 {
			return errWire
		}
		bytes, _ := protowire.ConsumeBytes(content[tag : tag+size])
		number32, _ := protowire.ConsumeVarint(content[tag : tag+size])
		text := wireType == protowire.BytesType
		var err error
		switch {
		case number == 1 && text:
			key = string(bytes)
		case number == 2 && text && kind == protoreflect.StringKind:
			value = protoreflect.ValueOfString(string(bytes))
		case number == 2 && text && kind == protoreflect.MessageKind:
			err = unmarshalAnyText(bytes, value.Message(), depth+1) // one that comes in parts is merged
		case number == 2 && wireType == protowire.VarintType && kind == protoreflect.Uint32Kind:
			value = protoreflect.ValueOfUint32(uint32(number32)) //nolint:gosec // as protobuf's decoder takes what is too large
		default: // nobody knows it, but it has to be well-formed all the same
			err = proto.Unmarshal(content[:tag+size], &emptypb.Empty{})
		}
		if err != nil {
			return err
		}
		content = content[tag+size:]
	}
	entries.Set(protoreflect.ValueOfString(key).MapKey(), value)
	return nil
}

// replaceInvalidText puts U+FFFD in place of what is not valid UTF-8, in all strings of m.
func replaceInvalidText(m protoreflect.Message) {
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case field.IsMap():
			replaceInMap(v.Map(), field.MapValue().Kind())
		case field.IsList():
			list := v.List()
			for i := range list.Len() {
				if text, ok := replaceInValue(list.Get(i), field.Kind()); ok {
					list.Set(i, text)
				}
			}
		default:
			if text, ok := replaceInValue(v, field.Kind()); ok {
				m.Set(field, text)
			}
		}
		return true
	})
}

func replaceInMap(entries protoreflect.Map, kind protoreflect.Kind) {
	clean := map[string]protoreflect.Value{}
	entries.Range(func(key protoreflect.MapKey, v protoreflect.Value) bool {
		if text, ok := replaceInValue(v, kind); ok {
			v = text
		}
		name, isText := key.Interface().(string)
		if isText && !utf8.ValidString(name) {
			entries.Clear(key)
		}
		if isText {
			clean[strings.ToValidUTF8(name, "�")] = v
		}
		return true
	})
	for name, v := range clean {
		entries.Set(protoreflect.ValueOfString(name).MapKey(), v)
	}
}

// replaceInValue returns the string to put in place of v, if there is one; messages are changed in place.
func replaceInValue(v protoreflect.Value, kind protoreflect.Kind) (protoreflect.Value, bool) {
	switch kind {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(strings.ToValidUTF8(v.String(), "�")), !utf8.ValidString(v.String())
	case protoreflect.MessageKind:
		replaceInvalidText(v.Message())
	}
	return protoreflect.Value{}, false
}
