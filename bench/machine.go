package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine is what the figures depend on.
type machine struct {
	lines []string
	began usage
}

// usage is CPU time since the machine and this process began, in all.
type usage struct{ busy, stolen, total, own time.Duration }

// usageNow is zero where it cannot be told.
func usageNow() usage {
	var u usage
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var r unix.Rusage
		if unix.Getrusage(who, &r) == nil {
			u.own += time.Duration(r.Utime.Nano() + r.Stime.Nano())
		}
	}
	text, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(text), "\n")
	for i, f := range strings.Fields(line) {
		n, _ := strconv.ParseInt(f, 10, 64) // the first field is a name, hence nothing
		d := time.Duration(n) * (time.Second / ticks)
		switch i {
		case 1, 2, 3, 6, 7: // user, nice, system, irq, softirq
			u.busy += d
		case 8:
			u.stolen += d
		case 4, 5: // idle, waiting
		default: // guests are counted as user too
			continue
		}
		u.total += d
	}
	return u
}

// disturbed tells what share of the machine's CPU time others have used since the run began: other processes here, and
// other machines on the same host. What this run started has to have ended. It is NaN where it cannot be told.
func (m *machine) disturbed() float64 {
	now := usageNow()
	others := (now.busy - m.began.busy) - (now.own - m.began.own) + (now.stolen - m.began.stolen)
	return max(0, float64(others)/float64(now.total-m.began.total))
}

// add adds a line once.
func (m *machine) add(line string) {
	if line != "" && !slices.Contains(m.lines, line) {
		m.lines = append(m.lines, line)
	}
}

func describeMachine() machine {
	m := machine{began: usageNow()}
	cpu := field("/proc/cpuinfo", "model name")
	if cpu == "" {
		cpu = runtime.GOARCH
	}
	m.add(cpu + ", " + plural(runtime.NumCPU(), "core"))
	if kb, err := strconv.Atoi(strings.TrimSuffix(field("/proc/meminfo", "MemTotal"), " kB")); err == nil {
		m.add(fmt.Sprintf("%.0f GiB of memory", float64(kb)/(1<<20)))
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
