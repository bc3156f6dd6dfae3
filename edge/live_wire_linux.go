package edge

import (
	"syscall"
	"unsafe"
)

// writeNow is write(2) on a socket that does not wait. The runtime is not told of the call, which takes a few microseconds: it would
// hand this thread's processor on when the kernel takes longer than that on a busy machine, and whoever writes for thousands would
// have to queue for another one.
func writeNow(fd uintptr, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), errno
}
