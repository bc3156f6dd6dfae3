package control

import (
	"testing"
)

func TestEveryNodeFollows(t *testing.T) {
	w := three(t)
	w.start("a2", "a")
	w.start("b2", "b")
	w.allKnow("bootstrap", "a", "b", "c", "a2", "b2")
	w.set("a2", remark("one"))
	w.set("c", remark("two"))
	for _, event := range []string{"one", "two"} {
		w.allKnow(event, "a", "b", "c", "a2", "b2")
	}
	for _, name := range w.names() {
		w.until(name+" is well", func() bool { return w.nodes[name].Check() == nil })
	}

	// The voter that it follows ends; it follows another, and is told of what comes.
	w.halt("b")
	w.set("b2", remark("three"))
	w.allKnow("three", "a", "c", "a2", "b2")
}

func TestLeaderIsKilled(t *testing.T) {
	w := three(t)
	for i := range 2 {
		old := w.leader()
		w.crash(old)
		other := w.leader()
		w.set(other, remark("after %d", i))
		w.start(old, w.region(old))
		w.allKnow("after 1"[:6]+string(rune('0'+i)), "a", "b", "c")
	}
}

func TestLeaderStaysOutOfThePrimaryRegion(t *testing.T) {
	w := three(t)
	w.until("another region leads", func() bool { return w.leader() != "a" })
	w.halt("b")
	w.until("the last other region leads", func() bool { return w.leader() == "c" })
	w.crash("c") // no majority, and none needed for what is known
	w.start("b", "b")
	w.until("another region leads", func() bool { return w.leader() == "b" })
}
