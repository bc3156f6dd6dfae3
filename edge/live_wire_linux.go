package edge

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// writeNow is write(2) on a socket that does not wait. The runtime is not told of the call, which takes a few microseconds: it would
// hand this thread's processor on when the kernel takes longer than that on a busy machine, and whoever writes for thousands would
// have to queue for another one.
func writeNow(fd uintptr, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), errno
}

// limitUnsent makes the kernel take no more for a connection while it keeps this many bytes that it has not sent.
func limitUnsent(raw syscall.RawConn, bytes int) {
	_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, bytes) })
}
