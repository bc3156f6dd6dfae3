package memory

import (
	"os"
	"strings"
	"syscall"
)

const (
	madviseHuge     = 14 // MADV_HUGEPAGE: from now on, whenever the memory is first touched or the system has time
	madviseCollapse = 25 // MADV_COLLAPSE, since Linux 6.1: what is there already, now
)

// wanted tells whether the system's administrator lets processes ask.
func wanted() bool {
	setting, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled")
	return err == nil && !strings.Contains(string(setting), "[never]")
}

func advise(at, n uintptr) bool {
	if _, _, errno := syscall.Syscall(syscall.SYS_MADVISE, at, n, madviseHuge); errno != 0 {
		return false
	}
	_, _, errno := syscall.Syscall(syscall.SYS_MADVISE, at, n, madviseCollapse)
	return errno == 0
}
