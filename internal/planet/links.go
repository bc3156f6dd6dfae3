package planet

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/shortline/shortline/regions"
)

// links are the ways between regions: what one region connects to in another goes through a Proxy, so that it can be far
// away and cut off. Within a region there is none.
type links struct {
	delay  func(a, b regions.ID) time.Duration // one way
	direct bool                                // there are none: the regions have networks of their own

	mu  sync.Mutex
	all map[link]*Proxy // guarded by mu
}

// link is one way from a region to an address in another.
type link struct {
	from, to regions.ID
	target   string
}

func newLinks(delay func(a, b regions.ID) time.Duration) *links {
	return &links{delay: delay, all: map[link]*Proxy{}}
}

// via is the address at which a region reaches a target in another one, or in itself. It stays the same.
func (l *links) via(from, to regions.ID, target string) (string, error) {
	if from == to || l.direct {
		return target, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	key := link{from, to, target}
	if p := l.all[key]; p != nil {
		return p.Addr(), nil
	}
	p, err := StartProxy(target, l.delay(from, to))
	if err != nil {
		return "", fmt.Errorf("link %s to %s: %w", from, to, err)
	}
	l.all[key] = p
	return p.Addr(), nil
}

// each calls do with every link that touches a and, unless that is "", b.
func (l *links) each(a, b regions.ID, do func(*Proxy)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, p := range l.all {
		if key.from == a && (b == "" || key.to == b) || key.to == a && (b == "" || key.from == b) {
			do(p)
		}
	}
}

func (l *links) close() error {
	l.mu.Lock()
	all := l.all
	l.all = nil
	l.mu.Unlock()
	var err error
	for _, p := range all {
		err = errors.Join(err, p.Close())
	}
	return err
}
