package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
)

// A page is a generated file of docs. Its write function gets the image of the protos and returns the page's text.
type page struct {
	name  string
	write func(*descriptorpb.FileDescriptorSet) (string, error)
}

// pages come in this order: the last one needs code that compiles, which it does not right after a change of the protos.
var pages = []page{
	{"errors.md", errorsPage},
	{"defaults.md", func(*descriptorpb.FileDescriptorSet) (string, error) { return defaultsPage() }},
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "docgen:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: docgen IMAGE DIRECTORY")
	}
	raw, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	var image descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(raw, &image); err != nil {
		return fmt.Errorf("%s is not a buf image: %w", args[0], err)
	}
	if err := os.MkdirAll(args[1], 0o755); err != nil {
		return err
	}
	for _, p := range pages {
		text, err := p.write(&image)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		if err := os.WriteFile(filepath.Join(args[1], p.name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
