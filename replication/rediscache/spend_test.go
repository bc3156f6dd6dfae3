package rediscache

import (
	"context"
	"testing"
	"time"

	"github.com/shortline/shortline/replication"
)

// What two nodes tell of one client adds up, by Redis' clock, up to the burst and no further; with Redis gone it is an error, in time.
func TestSpend(t *testing.T) {
	cluster := sharedCluster(t)
	one, two := start(t, config(t, cluster.Addrs()), newWorld()), start(t, config(t, cluster.Addrs()), newWorld())
	spend := func(c *Cache, subject string, n int) time.Duration {
		t.Helper()
		ahead, err := c.Spend(deadline(t), []replication.Spending{{Subject: subject, N: n, Every: time.Minute, Burst: 10}, {Subject: subject + "'", N: 1, Every: time.Minute, Burst: 10}})
		must(t, err)
		return ahead[0]
	}
	near := func(what string, got, want time.Duration) {
		t.Helper()
		if got > want || got < want-30*time.Second { // some of it has come due meanwhile
			t.Errorf("%s: %v ahead, want %v", what, got, want)
		}
	}
	near("first", spend(one, "a:1", 3), 3*time.Minute)
	near("the other node", spend(two, "a:1", 4), 7*time.Minute)
	near("past the burst", spend(one, "a:1", 100), 10*time.Minute)
	near("somebody else", spend(two, "a:2", 1), time.Minute)
	near("nothing more", spend(two, "a:1", 0), 10*time.Minute)

	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := one.Spend(gone, []replication.Spending{{Subject: "a:1", N: 1, Every: time.Second, Burst: 1}}); err == nil {
		t.Error("what was not counted is told to be")
	}
	one.usable.Store(false)
	if _, err := one.Spend(deadline(t), []replication.Spending{{Subject: "a:1", N: 1, Every: time.Second, Burst: 1}}); err == nil {
		t.Error("a Redis that was not checked is used")
	}
}
