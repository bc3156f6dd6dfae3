package planet

import (
	"bytes"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shortline/shortline/regions"
)

// echo answers in a region, over TCP and UDP, with what it is told.
func echo(t *testing.T, s *site) (port int) {
	t.Helper()
	var l net.Listener
	var u net.PacketConn
	check(t, s.space.inside(func() (err error) {
		if l, err = net.Listen("tcp", s.address(0)); err != nil {
			return err
		}
		port = l.Addr().(*net.TCPAddr).Port
		u, err = net.ListenPacket("udp", s.address(port))
		return err
	}))
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 100)
		for {
			n, from, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = u.WriteTo(buf[:n], from)
		}
	}()
	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			buf := make([]byte, 100)
			n, _ := c.Read(buf)
			_, _ = c.Write(buf[:n])
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _, _, _, _ = l.Close(), u.Close(), <-done, <-accepting })
	return port
}

// hears tells whether somebody at a site (nil: this process) hears an answer. Silence may also be what the machine's load makes of one, so that
// it is waited for longer where none is wanted.
func hears(t *testing.T, network string, from, to *site, port int, want bool) bool {
	t.Helper()
	patience := 300 * time.Millisecond
	if want {
		patience = 30 * time.Second
	}
	var space *namespace
	if from != nil {
		space = from.space
	}
	var c net.Conn
	if space.inside(func() (err error) { c, err = net.DialTimeout(network, to.address(port), patience); return err }) != nil {
		return false
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write([]byte("hello")); err != nil {
		return false
	}
	buf := make([]byte, 100)
	n, err := c.Read(buf)
	return err == nil && bytes.Equal(buf[:n], []byte("hello"))
}

// What goes between regions can be dropped by direction and by port, TCP and UDP alike, and nothing is left of it.
func TestNetwork(t *testing.T) {
	NeedSeparable(t)
	ids := []regions.ID{"a", "b", "c"}
	n, err := newNetwork(ids)
	defer n.close()
	check(t, err)
	a, b, c := n.site("a"), n.site("b"), n.site("c")
	ports := map[*site]int{a: echo(t, a), b: echo(t, b), c: echo(t, c)}
	other := echo(t, b)
	both := [2]int{ports[a], ports[b]}
	look := func(what string, from, to *site, port int, want bool) {
		t.Helper()
		for _, network := range []string{"tcp", "udp"} {
			if got := hears(t, network, from, to, port, want); got != want {
				t.Errorf("%s: %s is %v", what, network, got)
			}
		}
	}
	look("whole", a, b, ports[b], true)
	look("whole, from here", nil, b, ports[b], true)

	check(t, n.drop("a", "b", Everything, both))
	look("one way, there", a, b, ports[b], false)
	look("one way, back", b, a, ports[a], false) // the answers do not come
	look("one way, others", a, c, ports[c], true)
	look("one way, from here", nil, b, ports[b], true)
	check(t, n.heal())
	look("healed", a, b, ports[b], true)

	check(t, n.drop("a", "b", DatabaseLink, both))
	if hears(t, "tcp", a, b, ports[b], false) || !hears(t, "tcp", a, b, other, true) {
		t.Error("without the database's link: its port is open, or another closed")
	}
	check(t, n.heal())
	check(t, n.drop("a", "b", ButDatabase, both))
	if !hears(t, "tcp", a, b, ports[b], true) || hears(t, "tcp", a, b, other, false) {
		t.Error("with the database's link alone: its port is closed, or another open")
	}
	check(t, n.heal())

	n.close()
	eventually(t, "nothing is left", func() bool {
		out, err := exec.Command("ip", "-o", "addr").Output()
		check(t, err)
		return !strings.Contains(string(out), n.subnet)
	})
}

func TestSeparatedHasNoDistance(t *testing.T) {
	if err := (Options{Separate: true, WAN: true}).Validate(); err == nil {
		t.Error("it is allowed")
	}
	if err := new(Planet).Mend(); err != errNotSeparated {
		t.Error(err)
	}
	if home.address(1) != loopback+":"+strconv.Itoa(1) {
		t.Error(home.address(1))
	}
}
