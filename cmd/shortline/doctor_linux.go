package main

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// kernelLimits reads the settings that connections depend on. What is not there is left out.
func kernelLimits() (limits []kernelLimit) {
	for _, l := range []kernelLimit{
		{name: "net.core.somaxconn", wanted: 1024, why: ": how many connections may wait to be taken"},
		{name: "fs.file-max", wanted: 1_000_000, why: ": open files of the whole machine"},
		{name: "vm.max_map_count", wanted: 65_530, why: ": pieces of memory of a process"},
	} {
		text, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(l.name, ".", "/"))
		if err != nil {
			continue
		}
		if l.have, err = strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err != nil { // greater than fits: enough
			l.have = l.wanted
		}
		limits = append(limits, l)
	}
	return limits
}

// Of adjtimex(2).
const (
	timeError  = 5
	staNano    = 0x2000
	staUnsynch = 0x40
)

// clock asks the kernel whether somebody sets the clock.
func clock(found *findings) {
	var t syscall.Timex
	state, err := syscall.Adjtimex(&t)
	if err != nil {
		found.add("clock", warn, "look with: timedatectl", "whether it is set by NTP cannot be read: %v", err)
		return
	}
	unit := time.Microsecond
	if t.Status&staNano != 0 {
		unit = time.Nanosecond
	}
	if state == timeError || t.Status&staUnsynch != 0 {
		found.add("clock", warn, "run chrony or systemd-timesyncd (in a container: on the machine below)", "the kernel says that nobody sets it")
		return
	}
	found.add("clock", fine, "", "it is set by NTP, off by %v, known to %v", time.Duration(t.Offset)*unit, time.Duration(t.Maxerror)*time.Microsecond)
}
