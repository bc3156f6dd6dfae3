package planet

import (
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"testing"
)

// The parent-death signal is sent when the thread ends that forked. Servers must outlive their caller's, and every other
// one that comes to an end while they run.
func TestServersOutliveThreads(t *testing.T) {
	t.Parallel()
	Need(t)
	ctx := deadline(t)
	var r *Redis
	var err error
	var mu sync.Mutex
	var threads []int
	// onThread runs do on a thread that ends with it.
	onThread := func(wg *sync.WaitGroup, do func()) {
		wg.Go(func() {
			runtime.LockOSThread() // and never unlocks it
			do()
			mu.Lock()
			defer mu.Unlock()
			threads = append(threads, syscall.Gettid())
		})
	}
	var started, others sync.WaitGroup
	onThread(&started, func() { r, err = StartRedisSingle(ctx, RedisConfig{}) })
	started.Wait()
	check(t, err)
	defer r.Stop()
	const many = 50 // more than there are idle threads
	var together sync.WaitGroup
	together.Add(many)
	for range many {
		onThread(&others, func() { together.Done(); together.Wait() })
	}
	others.Wait()
	for _, id := range threads {
		if id != syscall.Getpid() { // the main thread never ends
			eventually(t, "a thread has ended", func() bool { return !exists(fmt.Sprintf("/proc/self/task/%d", id)) })
		}
	}
	if err := r.answers(ctx); err != nil || len(alive(t, []int{r.PID()})) != 1 {
		t.Errorf("the server went with a thread: %v", err)
	}
}
