//go:build unix && !linux

package edge

import (
	"errors"
	"syscall"
)

// writeNow is write(2) on a socket that does not wait.
func writeNow(fd uintptr, b []byte) (int, syscall.Errno) {
	n, err := syscall.Write(int(fd), b)
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return 0, errno
	}
	return n, 0
}

func limitUnsent(syscall.RawConn, int) {}
