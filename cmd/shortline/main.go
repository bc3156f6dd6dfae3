// Command shortline runs and uses Shortline: one binary with a node, and with everything that talks to one.
//
// It promises that settings come from flags, the environment, a file and the defaults in this order for every command,
// that errors are one line saying what failed, why, and what to do, and that the exit code is 0 for done, 1 for failed
// and 2 for wrong usage. It wires packages together and knows no rule of theirs.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	_ "time/tzdata" // stores are checked against it where the system has no time zones

	"github.com/spf13/cobra"

	"github.com/shortline/shortline/replication"
)

// version is set by the linker in release builds; without it the build information of Go tells.
var version string

func main() {
	os.Exit(mainExit())
}

func mainExit() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	return report(os.Stderr, run(ctx, os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr))
}

// app is what every command gets from outside.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	version        string
	environ        func() []string // nil: os.Environ
	// target changes what the feed keeps up to date; tests switch safeguards off with it. It is nil in service.
	target func(replication.Target) replication.Target
	// gate changes what tells whether writes may be acknowledged; tests switch the lease's fence off with it. It is nil in service.
	gate func(replication.Gate) replication.Gate
	// detailsBytes stands in for --details-cache; tests make it so small that details are forgotten all the time. It is 0 in service.
	detailsBytes int
}

// run executes one command line. It returns a *usageError where the command line or a setting is wrong, and whatever
// else went wrong as an error that reads well in one line.
func run(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) error {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, getenv: getenv, version: cmp.Or(version, builtVersion())}
	return a.run(ctx, args)
}

func (a *app) run(ctx context.Context, args []string) error {
	root := newRootCommand(a)
	started := false
	finish(root, &started)
	root.SetArgs(shieldNegatives(root, args))
	cmd, err := root.ExecuteContextC(ctx)
	var usage *usageError
	if err != nil && !started && !errors.As(err, &usage) {
		err = &usageError{err: err, command: cmd.CommandPath()}
	}
	return err
}

// finish completes the tree: every command tells when its own work begins, for what fails before is wrong usage, and a
// command that only groups others refuses what it does not know.
func finish(cmd *cobra.Command, started *bool) {
	for _, sub := range cmd.Commands() {
		finish(sub, started)
	}
	if work := cmd.RunE; work != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			*started = true
			return work(cmd, args)
		}
		return
	}
	if cmd.Run == nil {
		cmd.Args, cmd.RunE = cobra.ArbitraryArgs, runGroup
	}
}

// runGroup is what a command does that only groups others.
func runGroup(cmd *cobra.Command, args []string) error {
	var names []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	switch {
	case len(args) == 0 && !cmd.HasParent():
		return cmd.Help()
	case len(args) == 0:
		return usagef(cmd, "say what to do: %s", strings.Join(names, ", "))
	}
	if near := nearest(args[0], names); near != "" {
		return usagef(cmd, "there is no command %q; did you mean %q?", args[0], near)
	}
	return usagef(cmd, "there is no command %q; there are %s", args[0], strings.Join(names, ", "))
}

// usageError is about the command line or a setting; the exit code is 2.
type usageError struct {
	err     error
	command string // whose help to read; empty where that would not help
}

func (e *usageError) Error() string {
	if e.command == "" {
		return e.err.Error()
	}
	return fmt.Sprintf("%v (see %s --help)", e.err, e.command)
}

func (e *usageError) Unwrap() error { return e.err }

func usagef(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{err: fmt.Errorf(format, args...), command: cmd.CommandPath()}
}

// report prints the error, if there is one, in one line and returns the exit code.
func report(stderr io.Writer, err error) int {
	if err == nil {
		return 0
	}
	_, _ = fmt.Fprintln(stderr, "shortline: "+printable(err.Error()))
	var usage *usageError
	if errors.As(err, &usage) {
		return 2
	}
	return 1
}

// builtVersion tells the version from the build information.
func builtVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "devel"
	}
	return info.Main.Version
}
