package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// maxSkew is how far a clock may be off without a word: updates dated 5 s into the future are refused, and ages are told in
// whole seconds.
const maxSkew = time.Second

// clockSkew is how far this node's clock is ahead of the server's, and how wrong that may be. It takes the quickest of three
// looks.
func clockSkew(ctx context.Context, now func() time.Time, pool *pgxpool.Pool) (ahead, give time.Duration, err error) {
	give = time.Hour
	for range 3 {
		var theirs time.Time
		asked, began := now(), time.Now()
		if err := pool.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&theirs); err != nil {
			return 0, 0, err
		}
		if half := time.Since(began) / 2; half < give {
			ahead, give = asked.Add(half).Sub(theirs), half
		}
	}
	return ahead, give, nil
}

// skewNote is a line about a clock that is off, or "".
func skewNote(of side, ahead, give time.Duration) string {
	word, by := "ahead of", ahead
	if by < 0 {
		word, by = "behind", -by
	}
	if by-give <= maxSkew {
		return ""
	}
	return fmt.Sprintf("this node's clock is %v %s that of the %s: ages and the times of updates are off by that; let both follow the same time servers (chrony, systemd-timesyncd)",
		by.Round(100*time.Millisecond), word, of)
}

// compareClocks says so if this node's clock and the server's differ. What cannot be asked is no fault here.
func (s *Store) compareClocks(ctx context.Context, of side, pool *pgxpool.Pool) {
	ahead, give, err := clockSkew(ctx, s.cfg.Now, pool)
	if err != nil {
		return
	}
	if note := skewNote(of, ahead, give); note != "" {
		s.cfg.Log.Warn(note, "ahead_seconds", ahead.Seconds())
	}
}
