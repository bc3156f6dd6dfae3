//go:build !linux

package memory

func wanted() bool { return false }

func advise(_, _ uintptr) bool { return false }
