//go:build !linux

package hugepages

func wanted() bool { return false }

func advise(_, _ uintptr) bool { return false }
