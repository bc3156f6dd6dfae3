package planet

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

// TestMain becomes the parent that TestOrphans kills, if told so.
func TestMain(m *testing.M) {
	if what := os.Getenv("SHORTLINE_TEST_PARENT"); what != "" {
		os.Exit(parent(what))
	}
	redis.SetLogger(quiet{})
	goleak.VerifyTestMain(m)
}

// quiet keeps the client's complaints about servers that are meant to be down out of the tests' output.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

// long is the deadline of what should take a moment.
const long = 2 * time.Minute

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), long)
	t.Cleanup(cancel)
	return ctx
}

// eventually polls until ok, and fails the test if that takes too long.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(long); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// check fails the test on an error.
func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
