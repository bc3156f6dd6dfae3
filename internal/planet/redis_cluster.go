package planet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
)

const slots = 16384

// RedisCluster is a Redis Cluster on loopback. Its nodes are numbered: the masters as they were at the start, then the
// replicas, those of the first master first. Its methods may be called from several goroutines.
type RedisCluster struct {
	base  *redisBase
	nodes []*Redis
}

// StartRedis starts a cluster with all slots assigned. It returns when every node says that the cluster is ok, and every
// replica has its data.
func StartRedis(ctx context.Context, cfg RedisConfig) (*RedisCluster, error) {
	cfg = cfg.withDefaults()
	base, err := newRedisBase(cfg)
	if err != nil {
		return nil, fmt.Errorf("start Redis Cluster %s: %w", cfg.Name, err)
	}
	c := &RedisCluster{base: base}
	for i := range cfg.Masters * (1 + cfg.Replicas) {
		c.nodes = append(c.nodes, base.node(fmt.Sprintf("%s-%d", cfg.Name, i), nodeDir(base.dir, i), true))
	}
	ctx, cancel := cfg.limit(ctx)
	defer cancel()
	err = c.each(func(n *Redis) error { return n.first(ctx) })
	if err == nil {
		err = c.join(ctx)
	}
	if err == nil {
		err = c.replicate(ctx)
	}
	if err == nil {
		err = c.Wait(ctx)
	}
	if err != nil {
		for _, n := range c.nodes {
			n.Kill()
		}
		_ = c.Stop()
		return nil, fmt.Errorf("start Redis Cluster %s: %w", cfg.Name, err)
	}
	return c, nil
}

// each calls do for all nodes at once.
func (c *RedisCluster) each(do func(n *Redis) error) error {
	var g errgroup.Group
	for _, n := range c.nodes {
		g.Go(func() error { return do(n) })
	}
	return g.Wait()
}

// join gives the masters their slots and makes all nodes known to each other.
func (c *RedisCluster) join(ctx context.Context) error {
	masters := c.base.cfg.Masters
	for i, n := range c.nodes {
		_, err := n.client.Pipelined(ctx, func(p redis.Pipeliner) error {
			if i < masters {
				p.Do(ctx, "CLUSTER", "ADDSLOTSRANGE", slots*i/masters, slots*(i+1)/masters-1)
			}
			p.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", i+1)
			return nil
		})
		if err != nil {
			return fmt.Errorf("assign slots to %s: %w", n.name, err)
		}
	}
	// Redis would spread the word by itself; that takes longer.
	return c.each(func(n *Redis) error {
		for _, other := range c.nodes {
			if other == n {
				continue
			}
			if err := n.client.Do(ctx, "CLUSTER", "MEET", other.cfg.site.host, other.port, other.busPort).Err(); err != nil {
				return fmt.Errorf("let %s meet %s: %w", n.name, other.name, err)
			}
		}
		return nil
	})
}

func (c *RedisCluster) replicate(ctx context.Context) error {
	masters, replicas := c.base.cfg.Masters, c.base.cfg.Replicas
	ids := make([]string, masters)
	for i := range ids {
		id, err := c.nodes[i].client.ClusterMyID(ctx).Result()
		if err != nil {
			return err
		}
		ids[i] = id
	}
	var g errgroup.Group
	for i, n := range c.nodes[masters:] {
		g.Go(func() error {
			return await(ctx, n.Exited(), func(ctx context.Context) error { return n.client.ClusterReplicate(ctx, ids[i/replicas]).Err() })
		})
	}
	return g.Wait()
}

// Wait blocks until every node that runs knows all nodes, says that the cluster is ok, and has its data if it is a
// replica. A paused node never does.
func (c *RedisCluster) Wait(ctx context.Context) error {
	return c.each(func(n *Redis) error {
		if !n.Running() {
			return nil
		}
		if err := await(ctx, n.Exited(), func(ctx context.Context) error { return c.settled(ctx, n) }); err != nil {
			return fmt.Errorf("wait for %s: %w%s", n.name, err, n.out.last())
		}
		return nil
	})
}

func (c *RedisCluster) settled(ctx context.Context, n *Redis) error {
	info, err := n.client.ClusterInfo(ctx).Result()
	if err != nil {
		return err
	}
	for _, want := range []string{"cluster_state:ok", fmt.Sprintf("cluster_slots_ok:%d", slots), fmt.Sprintf("cluster_known_nodes:%d", len(c.nodes))} {
		if !strings.Contains(info, want+"\r\n") {
			return fmt.Errorf("its state is not %s: %s", want, strings.Join(strings.Fields(info)[:6], " "))
		}
	}
	replication, err := n.client.Info(ctx, "replication").Result()
	if err != nil {
		return err
	}
	if strings.Contains(replication, "role:slave") && !strings.Contains(replication, "master_link_status:up") {
		return errors.New("it has no data from its master yet")
	}
	return nil
}

// Nodes are the servers, in the order of their numbers.
func (c *RedisCluster) Nodes() []*Redis { return slices.Clone(c.nodes) }

// Addrs are the addresses of all nodes, in the order of their numbers, whether they run or not.
func (c *RedisCluster) Addrs() []string { return c.addrs((*Redis).Addr) }

// TLSAddrs are where they speak TLS, if they do.
func (c *RedisCluster) TLSAddrs() []string { return c.addrs((*Redis).TLSAddr) }

func (c *RedisCluster) addrs(of func(*Redis) string) []string {
	addrs := make([]string, len(c.nodes))
	for i, n := range c.nodes {
		addrs[i] = of(n)
	}
	return addrs
}

// Kill ends a node as Redis.Kill does.
func (c *RedisCluster) Kill(i int) { c.nodes[i].Kill() }

// Restart restarts a node, which comes back empty and knows the cluster. It returns when the node answers; see Wait for
// the cluster.
func (c *RedisCluster) Restart(ctx context.Context, i int) error { return c.nodes[i].Restart(ctx) }

// Pause freezes a node.
func (c *RedisCluster) Pause(i int) error { return c.nodes[i].Pause() }

// Resume lets a paused node go on.
func (c *RedisCluster) Resume(i int) error { return c.nodes[i].Resume() }

// FlushAll removes all keys from all nodes that run.
func (c *RedisCluster) FlushAll(ctx context.Context) error {
	return c.each(func(n *Redis) error {
		if !n.Running() {
			return nil
		}
		err := n.client.FlushAll(ctx).Err()
		if err != nil && strings.HasPrefix(err.Error(), "READONLY") { // a replica; its master tells it
			return nil
		}
		return err
	})
}

// MoveSlot moves a slot with its keys from the node that has it to the master with number to. Clients get ASK for keys
// that have moved already, then MOVED.
func (c *RedisCluster) MoveSlot(ctx context.Context, slot, to int) error {
	from, err := c.owner(ctx, slot)
	if err != nil {
		return err
	}
	source, target := c.nodes[from], c.nodes[to]
	if source == target {
		return nil
	}
	sourceID, err := source.client.ClusterMyID(ctx).Result()
	if err != nil {
		return err
	}
	targetID, err := target.client.ClusterMyID(ctx).Result()
	if err != nil {
		return err
	}
	if err := target.client.Do(ctx, "CLUSTER", "SETSLOT", slot, "IMPORTING", sourceID).Err(); err != nil {
		return fmt.Errorf("move slot %d to %s: %w", slot, target.name, err)
	}
	if err := source.client.Do(ctx, "CLUSTER", "SETSLOT", slot, "MIGRATING", targetID).Err(); err != nil {
		return fmt.Errorf("move slot %d from %s: %w", slot, source.name, err)
	}
	for {
		keys, err := source.client.ClusterGetKeysInSlot(ctx, slot, 100).Result()
		if err != nil {
			return fmt.Errorf("list the keys of slot %d: %w", slot, err)
		}
		if len(keys) == 0 {
			break
		}
		args := []any{"MIGRATE", target.cfg.site.host, target.port, "", 0, 5000, "KEYS"}
		for _, k := range keys {
			args = append(args, k)
		}
		if err := source.client.Do(ctx, args...).Err(); err != nil {
			return fmt.Errorf("move keys of slot %d: %w", slot, err)
		}
	}
	// The target first: it gives the slot a new epoch, which wins everywhere.
	for _, n := range []*Redis{target, source} {
		if err := n.client.Do(ctx, "CLUSTER", "SETSLOT", slot, "NODE", targetID).Err(); err != nil {
			return fmt.Errorf("give slot %d to %s: %w", slot, target.name, err)
		}
	}
	return nil
}

// owner is the number of the node that has the slot, as the first node that runs sees it.
func (c *RedisCluster) owner(ctx context.Context, slot int) (int, error) {
	for _, n := range c.nodes {
		if !n.Running() {
			continue
		}
		shards, err := n.client.ClusterShards(ctx).Result()
		if err != nil {
			return 0, fmt.Errorf("ask %s who has slot %d: %w", n.name, slot, err)
		}
		for _, shard := range shards {
			if !slices.ContainsFunc(shard.Slots, func(r redis.SlotRange) bool { return r.Start <= int64(slot) && int64(slot) <= r.End }) {
				continue
			}
			for i, other := range c.nodes {
				if slices.ContainsFunc(shard.Nodes, func(m redis.Node) bool { return m.Role == "master" && m.Port == int64(other.port) }) {
					return i, nil
				}
			}
		}
	}
	return 0, fmt.Errorf("nobody has slot %d", slot)
}

// Stop ends all nodes and removes their folder unless it is to be kept. It may be called again.
func (c *RedisCluster) Stop() error {
	err := c.each(func(n *Redis) error {
		if n.client != nil {
			_ = n.client.Close()
		}
		return n.shutDown()
	})
	return errors.Join(err, c.base.cleanUp())
}
