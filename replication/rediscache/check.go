package rediscache

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// ErrUnreachable says that no Redis node answered at the start. Redis being only a cache, a caller may go on without it.
var ErrUnreachable = errors.New("no Redis answers")

const minMajor = 7

// check asks the first node that answers whether it can be used.
func check(ctx context.Context, cfg Config) error {
	ctx, cancel := context.WithTimeout(ctx, cfg.StartTimeout)
	defer cancel()
	var last error
	for _, addr := range cfg.Addrs {
		info, err := infoOf(ctx, cfg, addr)
		if err == nil {
			return judgeInfo(addr, info)
		}
		var answer redis.Error
		if errors.As(err, &answer) {
			return refusal(addr, err)
		}
		last = err
	}
	return fmt.Errorf("%w at %s: start it, or correct the addresses (the last error: %w)", ErrUnreachable, strings.Join(cfg.Addrs, ", "), last)
}

func infoOf(ctx context.Context, cfg Config, addr string) (string, error) {
	client := redis.NewClient(&redis.Options{
		Addr: addr, Username: cfg.Username, Password: cfg.Password, TLSConfig: cfg.TLS, PoolSize: 1, MaxRetries: -1, DialerRetries: 1,
		// Each address has its share of the time: one that swallows packets must not use up that of the others.
		DialTimeout: cfg.StartTimeout / 4, ReadTimeout: cfg.StartTimeout / 4, ContextTimeoutEnabled: true, DisableIdentity: true,
		MaintNotificationsConfig: noMaintenance,
	})
	defer client.Close()
	return client.Info(ctx, "everything").Result()
}

// refusal is for a node that answers, but not what was asked.
func refusal(addr string, err error) error {
	text := err.Error()
	switch {
	case strings.HasPrefix(text, "NOAUTH"), strings.HasPrefix(text, "WRONGPASS"), strings.Contains(text, "AUTH"):
		return fmt.Errorf("the Redis at %s refuses the login: correct user and password: %w", addr, err)
	case strings.HasPrefix(text, "NOPERM"):
		return fmt.Errorf("the Redis at %s refuses the user what the cache needs: allow it +info +cluster +mget +get +set +eval on the keys %s*: %w", addr, keyPrefix, err)
	}
	return fmt.Errorf("the Redis at %s cannot be used now; try again, or start without it: %w", addr, err)
}

func judgeInfo(addr, info string) error {
	fields := infoFields(info)
	if fields["cluster_enabled"] != "1" {
		return fmt.Errorf("the Redis at %s is not in cluster mode: give the addresses of a Redis Cluster, or set cluster-enabled yes and give it all slots", addr)
	}
	major, _, _ := strings.Cut(fields["redis_version"], ".")
	if n, err := strconv.Atoi(major); err != nil || n < minMajor {
		return fmt.Errorf("the Redis at %s has version %q: upgrade to %d or newer", addr, fields["redis_version"], minMajor)
	}
	return nil
}

// markerKey says which database the keys of a deployment belong to. Deployments share a cluster without meeting, because
// the name is in every key; the marker is for two that have the same name. It may be evicted or flushed: values carry the
// same, so all that is lost is the early word.
func (c *Cache) markerKey() string { return keyPrefix + string(c.cfg.Deployment) + ":database" }

// mark leaves the marker or compares with it.
func (c *Cache) mark(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.StartTimeout)
	defer cancel()
	key, mine := c.markerKey(), string(c.cfg.Database)
	fresh, err := c.client.SetNX(ctx, key, mine, 0).Result()
	if err == nil && !fresh {
		var theirs string
		theirs, err = c.client.Get(ctx, key).Result()
		if err == nil && theirs != mine {
			return fmt.Errorf("the keys %s%s:* in Redis belong to database %q, this one is %q: give this deployment a name of its own, "+
				"or, if the old database is no more, DEL %s", keyPrefix, c.cfg.Deployment, theirs, mine, key)
		}
	}
	var answer redis.Error
	switch {
	case err == nil || errors.Is(err, redis.Nil):
		return nil
	case strings.HasPrefix(err.Error(), "WRONGTYPE"):
		return fmt.Errorf("the key %s in Redis is not ours: DEL it", key)
	case errors.As(err, &answer) && (strings.HasPrefix(err.Error(), "NOPERM") || strings.HasPrefix(err.Error(), "NOAUTH")):
		return refusal(c.cfg.Addrs[0], err)
	}
	// A node of the cluster is away: that is what the breakers are for.
	c.log.Warn("the Redis cluster is not whole; its cache works in part until it is", "err", err)
	return nil
}
