package planet

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"syscall"
)

// Servers get ports below those that kernels hand out to outgoing connections, or a client that keeps dialing a server
// that is down could take its port.
const firstPort, lastPort = 14000, 32000

const loopback = "127.0.0.1"

// given are the ports that this process has taken for free. Servers start side by side: if two were told the same port, the one that
// did not get it could take the other for itself before it has ended.
var given = struct {
	sync.Mutex
	ports map[int]bool // guarded by Mutex
}{ports: map[int]bool{}}

// freePorts returns n ports of loopback on which nobody listens at the moment, none of them twice for as long as there are enough. Somebody
// of another process may listen before the caller does, so callers try again with others.
func freePorts(n int) ([]int, error) {
	given.Lock()
	defer given.Unlock()
	if len(given.ports) > (lastPort-firstPort)/2 {
		clear(given.ports)
	}
	var ports []int
	for range 1000 {
		if len(ports) == n {
			return ports, nil
		}
		port := firstPort + rand.IntN(lastPort-firstPort)
		if !slices.Contains(ports, port) && !given.ports[port] && isFree(port) {
			ports = append(ports, port)
			given.ports[port] = true
		}
	}
	return nil, errors.New("found no free port on " + loopback)
}

// isFree is false for a port that is reserved, too.
func isFree(port int) bool {
	// Go sets SO_REUSEADDR, with which a port that is bound but not listened on would count as free.
	strict := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		failed := c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 0) })
		return errors.Join(failed, err)
	}}
	ln, err := strict.Listen(context.Background(), "tcp", address(port))
	if err != nil {
		return false
	}
	return ln.Close() == nil
}

func address(port int) string { return home.address(port) }

func (s *site) address(port int) string { return net.JoinHostPort(s.host, strconv.Itoa(port)) }

// reservation keeps a port for servers of ours while none of them listens: it is bound, so freePorts of no process returns
// it, but not listened on, so that a server that sets SO_REUSEADDR, as all do, can take it. Where the system does not allow
// that (only Linux does), it keeps nothing.
type reservation struct {
	site *site
	port int
	fd   int // -1: nothing is kept
}

// reserve returns n reservations for servers at a site, which the caller releases. Elsewhere than on loopback the ports are kept all the
// same: so no two servers of a machine have the same.
func reserve(s *site, n int) ([]*reservation, error) {
	ports, err := freePorts(n)
	if err != nil {
		return nil, err
	}
	all := make([]*reservation, n)
	for i, port := range ports {
		all[i] = &reservation{site: s, port: port, fd: bind(port)}
	}
	return all, nil
}

func (r *reservation) addr() string { return r.site.address(r.port) }

func (r *reservation) release() {
	if r.fd >= 0 {
		_ = syscall.Close(r.fd)
		r.fd = -1
	}
}
