package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// writeProgram adds the flags of every command of a program, as its help shows them.
func writeProgram(b *strings.Builder, main string) (err error) {
	dir, err := os.MkdirTemp("", "docgen-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	p := program(filepath.Join(dir, "program"))
	build := exec.Command("go", "build", "-o", string(p), main)
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("%v: %w", build, err)
	}
	help, err := p.run("help")
	if err != nil {
		return err
	}
	fmt.Fprintf(b, "\n## Flags\n\nOf every command:\n\n```\n%s```\n", flagBlock(help))
	return p.writeFlags(b)
}

// program is a program whose commands are cobra's.
type program string

// run runs the program, whose defaults are not to be those of this environment, and returns what it prints.
func (p program) run(args ...string) (string, error) {
	cmd := exec.Command(string(p), args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "STINT_") })
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%v: %w", cmd, err)
	}
	return string(out), nil
}

// writeFlags adds the flags of the commands below a command, each with those below it.
func (p program) writeFlags(b *strings.Builder, command ...string) error {
	below, err := p.commands(command)
	if err != nil {
		return err
	}
	for _, name := range below {
		path := append(slices.Clone(command), name)
		help, err := p.run(append([]string{"help"}, path...)...)
		if err != nil {
			return err
		}
		if flags := flagBlock(help); flags != "" {
			fmt.Fprintf(b, "\n### stint %s\n\n```\n%s```\n", strings.Join(path, " "), flags)
		}
		if err := p.writeFlags(b, path...); err != nil {
			return err
		}
	}
	return nil
}

// commands are the names of what can come after a command, as the completion of help knows them. What cobra adds by
// itself is left out.
func (p program) commands(command []string) ([]string, error) {
	args := append([]string{"__complete", "help"}, command...)
	out, err := p.run(append(args, "")...)
	if err != nil {
		return nil, err
	}
	var names []string
	for line := range strings.Lines(out) {
		name, _, isCommand := strings.Cut(line, "\t")
		if isCommand && name != "help" && name != "completion" {
			names = append(names, name)
		}
	}
	return names, nil
}

// flagBlock is what stands below "Flags:" in a help text, up to the next empty line, without the flag --help.
func flagBlock(help string) string {
	_, after, _ := strings.Cut(help, "\nFlags:\n")
	var b strings.Builder
	for line := range strings.Lines(after) {
		if strings.TrimSpace(line) == "" {
			break
		}
		if !strings.HasPrefix(line, "  -h, --help ") {
			b.WriteString(line)
		}
	}
	return b.String()
}
