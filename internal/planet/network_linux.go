package planet

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// newNamespace makes a network namespace in which nothing is up but loopback. It stays while somebody has it open or runs in it.
func newNamespace() (*namespace, error) {
	n := new(namespace)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine, so that nobody else gets it
		err := os.NewSyscallError("unshare", unix.Unshare(unix.CLONE_NEWNET))
		if err == nil {
			n.file, err = os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
		}
		done <- err
	}()
	if err := <-done; err != nil {
		return nil, err
	}
	return n, n.ip("link set dev lo up")
}

// enter brings the calling goroutine's thread into the namespace. The goroutine must be locked to it and never unlock it.
func (n *namespace) enter() error {
	return os.NewSyscallError("setns", unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET))
}

// inside calls do in the namespace; what do starts is in it too.
func (n *namespace) inside(do func() error) error {
	if n == nil {
		return do()
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good, as above
		err := n.enter()
		if err == nil {
			err = do()
		}
		done <- err
	}()
	return <-done
}
