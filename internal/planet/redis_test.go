package planet

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func startRedis(t *testing.T, cfg RedisConfig) *RedisCluster {
	t.Helper()
	Need(t)
	began := time.Now()
	c, err := StartRedis(deadline(t), cfg)
	check(t, err)
	t.Logf("started in %v", time.Since(began).Round(time.Millisecond))
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// through asks the whole cluster, as a service does.
func through(t *testing.T, c *RedisCluster) *redis.ClusterClient {
	t.Helper()
	// After a failover the client goes on asking the node that is gone until it reloads: every minute unless told otherwise.
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: c.Addrs(), DialerRetries: 1, ClusterStateReloadInterval: 500 * time.Millisecond})
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func TestRedisCluster(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	c := startRedis(t, RedisConfig{Name: "us-redis"})
	client := through(t, c)
	const keys = 100
	for i := range keys {
		check(t, client.Set(ctx, fmt.Sprint("k", i), i, 0).Err())
	}
	for i := range keys {
		if got, err := client.Get(ctx, fmt.Sprint("k", i)).Int(); err != nil || got != i {
			t.Errorf("key %d is %d, %v", i, got, err)
		}
	}
	moved, held := 0, 0
	for i, n := range c.Nodes() {
		size, err := n.client.DBSize(ctx).Result()
		check(t, err)
		if size == 0 {
			t.Errorf("node %d has no keys", i)
		}
		held += int(size)
		for k := range keys {
			if err := n.client.Get(ctx, fmt.Sprint("k", k)).Err(); err != nil && strings.HasPrefix(err.Error(), "MOVED ") {
				moved++
			}
		}
	}
	if held != keys || moved != 2*keys {
		t.Errorf("%d keys held, %d answers MOVED", held, moved)
	}

	// A slot moves with its keys, and clients find them.
	slot, err := client.ClusterKeySlot(ctx, "k7").Result()
	check(t, err)
	from, err := c.owner(ctx, int(slot))
	check(t, err)
	to := (from + 1) % 3
	check(t, c.MoveSlot(ctx, int(slot), to))
	if got, err := c.Nodes()[to].client.Get(ctx, "k7").Int(); err != nil || got != 7 {
		t.Errorf("after the move: %d, %v", got, err)
	}
	if got, err := client.Get(ctx, "k7").Int(); err != nil || got != 7 {
		t.Errorf("after the move, through the cluster: %d, %v", got, err)
	}
	check(t, c.Wait(ctx))

	// A node that crashed comes back empty, to the same place.
	addrs := fmt.Sprint(c.Addrs())
	c.Kill(to)
	if c.Nodes()[to].Running() {
		t.Error("it runs after Kill")
	}
	check(t, c.Restart(ctx, to))
	check(t, c.Wait(ctx))
	if got := fmt.Sprint(c.Addrs()); got != addrs {
		t.Errorf("addresses %s, were %s", got, addrs)
	}
	eventually(t, "the cluster takes the key again", func() bool { return client.Set(ctx, "k7", 8, 0).Err() == nil })

	check(t, c.Pause(to))
	if err := c.Nodes()[to].answers(ctx); err == nil {
		t.Error("a frozen node answered")
	}
	check(t, c.Resume(to))
	check(t, c.Wait(ctx))

	check(t, c.FlushAll(ctx))
	eventually(t, "no key is left", func() bool { return client.Get(ctx, "k8").Err() == redis.Nil })
	check(t, c.Pause(0)) // Stop ends a frozen one too
	check(t, c.Stop())
	check(t, c.Stop())
	if exists(c.base.dir) || c.Nodes()[0].Running() {
		t.Error("something is left")
	}
}

func TestRedisReplicaTakesOver(t *testing.T) {
	t.Parallel()
	ctx := deadline(t)
	c := startRedis(t, RedisConfig{Replicas: 1})
	client := through(t, c)
	check(t, client.Set(ctx, "k", "v", 0).Err())
	slot, err := client.ClusterKeySlot(ctx, "k").Result()
	check(t, err)
	master, err := c.owner(ctx, int(slot))
	check(t, err)
	check(t, c.Nodes()[master].client.Do(ctx, "WAIT", 1, 0).Err())
	replica := c.Nodes()[3+master]
	eventually(t, "the replica has the key", func() bool { return replica.client.DBSize(ctx).Val() == 1 })
	c.Kill(master)
	eventually(t, "the replica answers", func() bool {
		got, err := client.Get(ctx, "k").Result()
		return err == nil && got == "v"
	})
	check(t, c.Restart(ctx, master))
	check(t, c.Wait(ctx)) // it is the replica of its replica now
}

func TestRedisSingle(t *testing.T) {
	t.Parallel()
	Need(t)
	ctx := deadline(t)
	began := time.Now()
	r, err := StartRedisSingle(ctx, RedisConfig{})
	check(t, err)
	t.Logf("started in %v", time.Since(began).Round(time.Millisecond))
	defer r.Stop()
	check(t, r.client.Set(ctx, "k", "v", 0).Err())
	if err := r.client.ClusterInfo(ctx).Err(); err == nil || !strings.Contains(err.Error(), "cluster support disabled") {
		t.Errorf("CLUSTER INFO: %v", err)
	}
	r.Kill()
	check(t, r.Restart(ctx))
	check(t, r.Stop())
	check(t, r.Stop())
	if exists(r.dir) || r.Running() {
		t.Error("something is left")
	}
	if _, err := StartRedisSingle(ctx, RedisConfig{Settings: map[string]string{"maxmemory": "lots"}}); err == nil || !strings.Contains(err.Error(), "maxmemory") {
		t.Errorf("a bad setting: %v", err)
	}
}
