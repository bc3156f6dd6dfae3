package control

import (
	"net"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/shortline/shortline/regions"
)

// votes tells which voters the leader counts.
func (w *world) votes(id regions.ID) bool {
	l := w.nodes[w.leader()].life.Load()
	if l == nil {
		return false
	}
	f := l.raft.GetConfiguration()
	if f.Error() != nil {
		return false
	}
	for _, s := range f.Configuration().Servers {
		if regions.ID(s.ID) == id {
			return s.Suffrage == raft.Voter
		}
	}
	return false
}

// A region is added by naming its voter everywhere, and one is removed by naming it nowhere: nodes are restarted one by one meanwhile,
// and what was agreed on stays.
func TestVotersComeAndGo(t *testing.T) {
	w := three(t)
	w.set("a", remark("one"))
	w.allKnow("one", "a", "b", "c")
	again := func(names ...string) {
		for _, name := range names {
			w.halt(name)
			w.start(name, regions.ID(name))
			w.leader()
		}
	}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.addrs["d"] = l.Addr().String()
	_ = l.Close()
	again("a", "b", "c")
	w.start("d", "d")
	w.until("d votes", func() bool { return w.votes("d") })
	w.set("d", remark("two"))
	w.allKnow("two", "a", "b", "c", "d")

	w.halt("c")
	delete(w.addrs, "c")
	again("a", "b", "d")
	w.until("c does not count any more", func() bool { return !w.votes("c") })
	w.crash("a") // of four voters two would be left, which is no majority
	w.set("b", remark("three"))
	w.allKnow("three", "b", "d")
}
