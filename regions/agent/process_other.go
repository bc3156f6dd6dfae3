//go:build !linux

package agent

import "syscall"

func dieWithParent(*syscall.SysProcAttr, syscall.Signal) {}

// serves can only tell that there is a process; the server's lock file keeps two servers apart.
func serves(pid int, _ string) bool { return syscall.Kill(pid, 0) == nil }

func descendants(int, string) []int { return nil }
