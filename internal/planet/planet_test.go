package planet

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fakeTB notes what became of a test.
type fakeTB struct{ skipped, failed bool }

func (f *fakeTB) Helper()      {}
func (f *fakeTB) Name() string { return "TestX" }
func (f *fakeTB) Skip(...any)  { f.skipped = true }
func (f *fakeTB) Fatal(...any) { f.failed = true }

func TestNeed(t *testing.T) {
	missing := errors.New("no Redis: get one")
	for _, tc := range []struct {
		name            string
		missing         error
		required        bool
		skipped, failed bool
		loud            string
	}{
		{"there", nil, false, false, false, ""},
		{"there and required", nil, true, false, false, ""},
		{"missing", missing, false, true, false, "SKIPPED TestX: no Redis: get one\n"},
		{"missing and required", missing, true, false, true, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var tb fakeTB
			var loud bytes.Buffer
			need(&tb, tc.missing, tc.required, &loud)
			if tb.skipped != tc.skipped || tb.failed != tc.failed || loud.String() != tc.loud {
				t.Errorf("skipped %v, failed %v, said %q", tb.skipped, tb.failed, loud.String())
			}
		})
	}
}

// script writes an executable that prints a version.
func script(t *testing.T, dir, name, says string) {
	t.Helper()
	check(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho '"+says+"'\n"), 0o755))
}

func TestFind(t *testing.T) {
	t.Run("in PATH", func(t *testing.T) {
		dir := t.TempDir()
		script(t, dir, "initdb", "")
		script(t, dir, "pg_basebackup", "")
		script(t, dir, "postgres", "postgres (PostgreSQL) 99.1 (Debian 99.1-1)")
		script(t, dir, "redis-server", "Redis server v=99.0.15 sha=00000000:0")
		t.Setenv("PATH", dir)
		if got, err := findPostgres(); err != nil || got != realFolder(filepath.Join(dir, "postgres")) {
			t.Errorf("PostgreSQL: %s, %v", got, err)
		}
		if got, err := findRedis(); err != nil || got != filepath.Join(dir, "redis-server") {
			t.Errorf("Redis: %s, %v", got, err)
		}
	})
	t.Run("too old", func(t *testing.T) {
		dir := t.TempDir()
		script(t, dir, "initdb", "")
		script(t, dir, "pg_basebackup", "")
		script(t, dir, "postgres", "postgres (PostgreSQL) 14.2")
		script(t, dir, "redis-server", "Redis server v=6.2.1 sha=00000000:0")
		t.Setenv("PATH", dir)
		if got, err := findPostgres(); got == dir || err != nil && !strings.Contains(err.Error(), "has version 14") {
			t.Errorf("PostgreSQL 14: %s, %v", got, err)
		}
		if _, err := findRedis(); err == nil || !strings.Contains(err.Error(), "has version 6") || !strings.Contains(err.Error(), "install") {
			t.Errorf("Redis 6: %v", err)
		}
	})
	if _, err := lookupAccount("nobody-has-this-name"); err == nil || !strings.Contains(err.Error(), "useradd") {
		t.Errorf("an account that is not there: %v", err)
	}
}

func TestLastNumber(t *testing.T) {
	paths := []string{"/usr/lib/postgresql/9/bin", "/usr/lib/postgresql/15/bin", "/opt/x/bin"}
	var got []int
	for _, p := range paths {
		got = append(got, lastNumber(p))
	}
	if !slices.Equal(got, []int{9, 15, 0}) {
		t.Error(got)
	}
}

func TestMakeFolder(t *testing.T) {
	dir := t.TempDir()
	if got, err := makeFolder(filepath.Join(dir, "a", "b")); err != nil || !exists(got) {
		t.Errorf("a new one: %s, %v", got, err)
	}
	if _, err := makeFolder(filepath.Join(dir, "a")); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("one with something in it: %v", err)
	}
	closed := filepath.Join(dir, "closed", "in")
	check(t, os.MkdirAll(closed, 0o755))
	check(t, os.Chmod(filepath.Dir(closed), 0o700))
	if a := (&account{name: "somebody", uid: 54321, gid: 54321}); a.reaches(closed) == nil {
		t.Error("somebody else reaches a closed folder")
	}
}

func TestOutput(t *testing.T) {
	var to bytes.Buffer
	o := newOutput("x", &to)
	for _, s := range []string{"a\nb", "c\n", "", "d\n\ne"} {
		_, _ = o.Write([]byte(s))
	}
	if want := "x | a\nx | bc\nx | d\nx | \n"; to.String() != want {
		t.Errorf("printed %q", to.String())
	}
	if got := o.last(); got != "\na\nbc\nd\n\ne" {
		t.Errorf("remembers %q", got)
	}
	for range 2 * keptLines {
		_, _ = o.Write([]byte("f\n"))
	}
	if got := o.last(); got != strings.Repeat("\nf", keptLines) {
		t.Errorf("remembers %q", got)
	}
	o.forget()
	_, _ = o.Write(bytes.Repeat([]byte("g"), longestLine))
	if got := o.last(); len(got) != longestLine+1 {
		t.Errorf("a line without an end: %d bytes", len(got))
	}
}
