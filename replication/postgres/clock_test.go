package postgres

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// A clock that is off is told at the start, with the remedy.
func TestClockSkewIsTold(t *testing.T) {
	p := sharedServer(t)
	dsn := p.DSN(owner, newDatabase(t, p))
	for _, c := range []struct {
		off  time.Duration
		want string
	}{
		{90 * time.Second, "ahead of that of the primary"},
		{-90 * time.Second, "behind that of the primary"},
		{0, ""},
	} {
		var text bytes.Buffer
		openStore(t, Config{Write: dsn, Now: func() time.Time { return time.Now().Add(c.off) }, Log: slog.New(slog.NewTextHandler(&text, nil))}, mutantNone)
		told := strings.Contains(text.String(), "clock is")
		if told != (c.want != "") || !strings.Contains(text.String(), c.want) || told && !strings.Contains(text.String(), "chrony") {
			t.Errorf("with a clock off by %v the log is %q, want %q", c.off, text.String(), c.want)
		}
	}
}

// What may be the time that the answer took is not told as a clock that is off.
func TestSkewNote(t *testing.T) {
	for _, c := range []struct {
		ahead, give time.Duration
		told        bool
	}{{900 * time.Millisecond, 0, false}, {1100 * time.Millisecond, 0, true}, {-1100 * time.Millisecond, 0, true}, {3 * time.Second, 2500 * time.Millisecond, false}} {
		if note := skewNote(replica, c.ahead, c.give); (note != "") != c.told {
			t.Errorf("ahead by %v, give or take %v: %q", c.ahead, c.give, note)
		}
	}
}
