//go:build unix

package edge

import (
	"syscall"
)

// rawWriter writes without waiting. Each goroutine that writes has its own: what it hands to the kernel stays in place, so
// that a write allocates nothing.
type rawWriter struct {
	b   []byte
	n   int
	err error
	do  func(fd uintptr) bool
}

func newRawWriter() *rawWriter {
	w := new(rawWriter)
	w.do = func(fd uintptr) bool {
		for w.n < len(w.b) {
			n, errno := writeNow(fd, w.b[w.n:])
			switch errno {
			case 0:
				w.n += n
			case syscall.EINTR:
			case syscall.EAGAIN:
				return true
			default:
				w.err = errno
				return true
			}
		}
		return true // never wait here
	}
	return w
}

// write returns how much of b the kernel took; less than all without an error means that its buffer is full.
func (w *rawWriter) write(raw syscall.RawConn, b []byte) (int, error) {
	w.b, w.n, w.err = b, 0, nil
	err := raw.Write(w.do)
	w.b = nil
	if err == nil {
		err = w.err
	}
	return w.n, err
}

// openFiles is how many files this process may have open.
func openFiles() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 10_000
	}
	return int(min(limit.Cur, 1<<24))
}
