package planet

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
)

// Rows returns what a query as the superuser gives, as text; NULL is "".
func (p *Postgres) Rows(ctx context.Context, database, sql string) ([][]string, error) {
	conn, err := p.Connect(ctx, Superuser, database)
	if err != nil {
		return nil, err
	}
	defer hangUp(conn)
	return textRows(ctx, conn, sql)
}

func textRows(ctx context.Context, conn *pgx.Conn, sql string) ([][]string, error) {
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	var rows [][]string
	for _, r := range results {
		for _, raw := range r.Rows {
			row := make([]string, len(raw))
			for i, v := range raw {
				row[i] = string(v)
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// Hold begins a transaction as the superuser, runs SQL in it and leaves it open until release is called, which rolls it
// back. It ends with ctx, too.
func (p *Postgres) Hold(ctx context.Context, database, sql string) (release func(), err error) {
	conn, err := p.Connect(ctx, Superuser, database)
	if err != nil {
		return nil, err
	}
	return hold(ctx, conn, sql)
}

func hold(ctx context.Context, conn *pgx.Conn, sql string) (release func(), err error) {
	if _, err := conn.PgConn().Exec(ctx, "BEGIN; "+sql).ReadAll(); err != nil {
		hangUp(conn)
		return nil, err
	}
	return func() { hangUp(conn) }, nil
}

// Values returns all keys of all masters with their values, which must be strings.
func (c *RedisCluster) Values(ctx context.Context) (map[string]string, error) {
	var mu sync.Mutex
	all := map[string]string{}
	err := c.each(func(n *Redis) error {
		var keys []string
		scan := n.client.Scan(ctx, 0, "*", 1000).Iterator()
		for scan.Next(ctx) {
			keys = append(keys, scan.Val())
		}
		if err := scan.Err(); err != nil {
			return fmt.Errorf("list the keys of %s: %w", n.name, err)
		}
		for _, key := range keys {
			value, err := n.client.Get(ctx, key).Result()
			switch {
			case err == redis.Nil: // it has expired
				continue
			case err != nil && strings.HasPrefix(err.Error(), "MOVED "): // of a replica, or of a slot that moved
				continue
			case err != nil:
				return fmt.Errorf("read %s of %s: %w", key, n.name, err)
			}
			mu.Lock()
			all[key] = value
			mu.Unlock()
		}
		return nil
	})
	return all, err
}

// Configure changes a setting of all nodes that run, until they are restarted.
func (c *RedisCluster) Configure(ctx context.Context, name, value string) error {
	return c.each(func(n *Redis) error {
		if !n.Running() {
			return nil
		}
		return n.client.ConfigSet(ctx, name, value).Err()
	})
}
