package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/types/descriptorpb"
)

const (
	errorFile    = "stint/v1/error.proto"
	reasonEnum   = "Reason"
	reasonPrefix = "REASON_"
	cureMark     = "Cure:"
)

// errorsPage writes what every reason means and what cures it. The comments of error.proto are the source: the one of
// the file is the introduction, the one of each value is "meaning. Cure: cure."
func errorsPage(image *descriptorpb.FileDescriptorSet) (string, error) {
	i := slices.IndexFunc(image.GetFile(), func(f *descriptorpb.FileDescriptorProto) bool { return f.GetName() == errorFile })
	if i < 0 {
		return "", fmt.Errorf("the image has no %s", errorFile)
	}
	file := image.GetFile()[i]
	enum := slices.IndexFunc(file.GetEnumType(), func(e *descriptorpb.EnumDescriptorProto) bool { return e.GetName() == reasonEnum })
	if enum < 0 {
		return "", fmt.Errorf("%s has no enum %s", errorFile, reasonEnum)
	}
	comments := leadingComments(file)

	var b strings.Builder
	b.WriteString("<!-- Generated from proto/" + errorFile + " by internal/docgen; change it there and run: make gen -->\n\n")
	b.WriteString("# Errors\n\n")
	title, intro, _ := strings.Cut(comments[path(fileSyntax)], "\n\n")
	b.WriteString(title + "\n\n" + intro + "\n")
	var faults []error
	for j, value := range file.GetEnumType()[enum].GetValue() {
		comment := strings.Join(strings.Fields(comments[path(fileEnum, enum, enumValue, j)]), " ")
		meaning, cure, ok := strings.Cut(comment, cureMark)
		meaning, cure = strings.TrimSpace(meaning), strings.TrimSpace(cure)
		if !ok || meaning == "" || cure == "" {
			faults = append(faults, fmt.Errorf("the comment of %s must say what it means, then %q and what to do", value.GetName(), cureMark))
			continue
		}
		fmt.Fprintf(&b, "\n## %s\n\n", strings.TrimPrefix(value.GetName(), reasonPrefix))
		fmt.Fprintf(&b, "`%s = %d`\n\n%s\n\n**Cure:** %s\n", value.GetName(), value.GetNumber(), meaning, capitalized(cure))
	}
	return b.String(), errors.Join(faults...)
}

// capitalized makes the cure, which follows a colon in the proto, a sentence of its own.
func capitalized(s string) string {
	first, size := utf8.DecodeRuneInString(s)
	return string(unicode.ToUpper(first)) + s[size:]
}

// Field numbers of descriptor.proto, which a comment's path is made of.
const (
	fileEnum   = 5
	fileSyntax = 12
	enumValue  = 2
)

// path names an element of a file the way SourceCodeInfo does, as a key.
func path(elements ...int) string {
	return fmt.Sprint(elements)
}

// leadingComments returns the comments that stand before the elements of a file, by path, without the space that
// follows each comment mark.
func leadingComments(file *descriptorpb.FileDescriptorProto) map[string]string {
	comments := make(map[string]string)
	for _, location := range file.GetSourceCodeInfo().GetLocation() {
		if location.LeadingComments == nil {
			continue
		}
		lines := strings.Split(strings.TrimSpace(location.GetLeadingComments()), "\n")
		for i, line := range lines {
			lines[i] = strings.TrimPrefix(line, " ")
		}
		comments[fmt.Sprint(location.GetPath())] = strings.Join(lines, "\n")
	}
	return comments
}
