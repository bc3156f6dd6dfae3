//go:build !linux

package main

func kernelLimits() []kernelLimit { return nil }

// clock cannot be asked here who sets it.
func clock(found *findings) {
	found.add("clock", warn, "compare with --admin-server of a node", "whether it is set by NTP is not known on this system")
}
