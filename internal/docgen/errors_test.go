package main

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/types/descriptorpb"
)

func TestErrorsPage(t *testing.T) {
	got, err := errorsPage(imageOf(" Free space is low. It\n matters.\n Cure: wait.\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"# Errors\n\nHow Stint says no.\n\nA caller\ndecides.\n",
		"\n## FULL\n\n`REASON_FULL = 5`\n\nFree space is low. It matters.\n\n**Cure:** Wait.\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the page lacks %q:\n%s", want, got)
		}
	}
}

func TestErrorsPageRefusesAReasonWithoutMeaningOrCure(t *testing.T) {
	for _, comment := range []string{"", " Free space is low.\n", " Cure: wait.\n", " Free space is low. Cure:\n"} {
		if _, err := errorsPage(imageOf(comment)); err == nil || !strings.Contains(err.Error(), "REASON_FULL") {
			t.Errorf("comment %q: got error %v, want one that names REASON_FULL", comment, err)
		}
	}
}

// imageOf returns an image whose enum Reason has one value with the given comment.
func imageOf(comment string) *descriptorpb.FileDescriptorSet {
	return &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{{
		Name: new(errorFile),
		EnumType: []*descriptorpb.EnumDescriptorProto{{
			Name:  new(reasonEnum),
			Value: []*descriptorpb.EnumValueDescriptorProto{{Name: new("REASON_FULL"), Number: new(int32(5))}},
		}},
		SourceCodeInfo: &descriptorpb.SourceCodeInfo{Location: []*descriptorpb.SourceCodeInfo_Location{
			{Path: []int32{12}, LeadingComments: new(" How Stint says no.\n\n A caller\n decides.\n")},
			{Path: []int32{5, 0, 2, 0}, LeadingComments: new(comment)},
		}},
	}}}
}
