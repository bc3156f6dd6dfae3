package planet

import (
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
)

// Servers get ports below those that kernels hand out to outgoing connections, or a client that keeps dialing a server
// that is down could take its port.
const firstPort, lastPort = 14000, 32000

const loopback = "127.0.0.1"

// freePorts returns n ports of loopback on which nobody listens at the moment. Somebody may before the caller does, so
// callers try again with others.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range 1000 {
		if len(ports) == n {
			return ports, nil
		}
		port := firstPort + rand.IntN(lastPort-firstPort)
		if !slices.Contains(ports, port) && isFree(port) {
			ports = append(ports, port)
		}
	}
	return nil, errors.New("found no free port on " + loopback)
}

func isFree(port int) bool {
	ln, err := net.Listen("tcp", address(port))
	if err != nil {
		return false
	}
	return ln.Close() == nil
}

func address(port int) string { return net.JoinHostPort(loopback, strconv.Itoa(port)) }
