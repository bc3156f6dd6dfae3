package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What the command promises beside regions/control's own tests: nothing happens without the name typed out, and a backup goes
// where it is told to and over nothing.
func TestControlCommands(t *testing.T) {
	data := t.TempDir()
	if err := os.Mkdir(filepath.Join(data, "control"), 0o700); err != nil {
		t.Fatal(err)
	}
	state := `{"format":1,"cluster":"shortline","incarnation":1,"index":9,"state":{"cluster":"shortline","cluster_id":"x","epoch":3,"primary":"us","primary_epoch":3,
		"regions":{"us":{"point":{"lat":1,"lng":2},"state":"active","since":"2026-01-01T00:00:00Z"},"eu":{"point":{"lat":1,"lng":2},"state":"active","since":"2026-01-01T00:00:00Z"}}}}`
	if err := os.WriteFile(filepath.Join(data, "control", "state.json"), []byte(state), 0o600); err != nil {
		t.Fatal(err)
	}
	call := func(in string, args ...string) (string, string, error) {
		var out, errs bytes.Buffer
		err := run(context.Background(), append([]string{"control"}, args...), func(string) string { return "" }, strings.NewReader(in), &out, &errs)
		return out.String(), errs.String(), err
	}
	file := filepath.Join(t.TempDir(), "backup.json")
	if out, _, err := call("", "backup", "--data", data); err != nil || out != state {
		t.Errorf("backup to stdout: %v\n%s", err, out)
	}
	if _, errs, err := call("", "backup", "--data", data, "--out", file); err != nil || !strings.Contains(errs, "epoch 3, primary us") {
		t.Errorf("backup: %v, %s", err, errs)
	}
	if _, _, err := call("", "backup", "--data", data, "--out", file); err == nil {
		t.Error("a backup was written over another")
	}
	if _, _, err := call("", "backup", "--data", t.TempDir()); err == nil {
		t.Error("a backup of nothing was written")
	}
	var usage *usageError
	if _, _, err := call("", "restore", "--data", data); !errors.As(err, &usage) {
		t.Errorf("without --sole-voter: %v", err)
	}
	for _, typed := range []string{"", "us\n", "yes\n"} {
		if _, _, err := call(typed, "restore", "--data", data, "--sole-voter", "eu"); err == nil {
			t.Errorf("restored after %q was typed", typed)
		}
	}
	if _, err := os.Stat(filepath.Join(data, "control", "raft.db")); err == nil {
		t.Fatal("something was restored")
	}
	if _, errs, err := call("eu\n", "restore", "--data", data, "--sole-voter", "eu", "--reason", "a test"); err != nil || !strings.Contains(errs, "epoch 3 → 4, primary us → us, eu is the only voter") {
		t.Errorf("restore: %v, %s", err, errs)
	}
	if _, errs, err := call("", "restore", "--data", filepath.Join(t.TempDir(), "new"), "--sole-voter", "eu", "--confirm", "eu", "--from", file, "--epoch", "8", "--primary", "eu"); err != nil || !strings.Contains(errs, "epoch 3 → 8, primary us → eu") {
		t.Errorf("restore from a backup: %v, %s", err, errs)
	}
}

func TestRegionsFlags(t *testing.T) {
	good := []string{"serve", "--region", "us", "--control-voters", "us=127.0.0.1:1,eu=127.0.0.1:2", "--cluster-key", "0123456789abcdef", "--cluster-listen", "127.0.0.1:0", "--postgres", "postgres://x"}
	for want, more := range map[string][]string{
		"--control-voters":                     {"--control-listen", "127.0.0.1:0", "--control-voters", ""},
		"none of the voters is of that region": {"--region", "ap", "--control-listen", "127.0.0.1:0"},
		"the address":                          {"--control-voters", "us=nowhere"},
		"--forward-to":                         {"--forward-to", "127.0.0.1:9"},
		"--lease-ttl":                          {"--lease-ttl", "90s"},
		"--db-agents":                          {"--db-agents", "us=nowhere"},
		"--places":                             {"--places", "us=somewhere"},
		"--witness needs":                      {"--witness"},
	} {
		err := run(context.Background(), append(good, more...), func(string) string { return "" }, strings.NewReader(""), new(bytes.Buffer), new(bytes.Buffer))
		var usage *usageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", more, err, want)
		}
	}
}
