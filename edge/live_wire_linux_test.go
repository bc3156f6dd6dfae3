package edge

import (
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLiveKernelMemory: what the kernel holds for a client that does not read is a small part of what it may hold for one that
// is far away.
func TestLiveKernelMemory(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// A window as small as that of a client far behind: the kernel fills up a segment that it has begun, whatever its bounds are.
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<10) })
	}}
	client, err := dialer.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	wire, err := newTCPWire(conn.(*net.TCPConn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer wire.close()
	writer, message := newRawWriter(), make([]byte, 120)
	for n := len(message); n == len(message); {
		if n, err = wire.try(writer, message); err != nil {
			t.Fatal(err)
		}
	}
	var unsent int
	if cerr := wire.raw.Control(func(fd uintptr) { unsent, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQNSD) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	if unsent < unsentBuffer/2 || unsent > 2*unsentBuffer {
		t.Errorf("the kernel holds %d bytes that it has not sent", unsent)
	}
}
