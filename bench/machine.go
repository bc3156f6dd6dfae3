package main

import (
	"bufio"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine is what the figures depend on.
type machine struct {
	lines []string
}

// add adds a line once.
func (m *machine) add(line string) {
	if line != "" && !slices.Contains(m.lines, line) {
		m.lines = append(m.lines, line)
	}
}

func describeMachine() machine {
	var m machine
	cpu := field("/proc/cpuinfo", "model name")
	if cpu == "" {
		cpu = runtime.GOARCH
	}
	m.add(cpu + ", " + plural(runtime.NumCPU(), "core"))
	if kb := field("/proc/meminfo", "MemTotal"); kb != "" {
		m.add("memory " + kb)
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.add(unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:]))
	}
	m.add(runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH)
	if _, version, ok := strings.Cut(firstLine("redis-server", "--version"), " v="); ok {
		m.add("Redis " + strings.Fields(version)[0])
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.add("load average when the run began: " + strings.Fields(string(load))[0])
	}
	m.add("date: " + time.Now().UTC().Format("2006-01-02"))
	return m
}

// field is the value of a line "name : value".
func field(file, name string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	for in := bufio.NewScanner(f); in.Scan(); {
		if key, value, ok := strings.Cut(in.Text(), ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
