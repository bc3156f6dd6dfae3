package pki

import (
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// lookEvery is how often files are looked at, at most: whoever needs what is in them looks, so that nothing runs meanwhile.
const lookEvery = time.Second

// reloaded is something read from files, again when one of them changes. What cannot be read leaves the old in force.
type reloaded[T any] struct {
	paths []string
	read  func() (T, error)
	log   *slog.Logger

	current atomic.Pointer[T]
	looked  atomic.Int64 // Unix nanoseconds

	mu     sync.Mutex
	stamps []stamp // guarded by mu; when last read, or tried
}

// stamp tells a file from what was there before under its name.
type stamp struct {
	size     int64
	modified time.Time
	file     fs.FileInfo
}

func newReloaded[T any](paths []string, log *slog.Logger, read func() (T, error)) (*reloaded[T], error) {
	r := &reloaded[T]{paths: paths, read: read, log: log, stamps: stampsOf(paths)}
	v, err := read()
	if err != nil {
		return nil, err
	}
	r.current.Store(&v)
	r.looked.Store(time.Now().UnixNano())
	return r, nil
}

// get returns what the files say, as of a second ago at worst.
func (r *reloaded[T]) get() *T {
	now := time.Now().UnixNano()
	if last := r.looked.Load(); now-last > int64(lookEvery) && r.looked.CompareAndSwap(last, now) {
		r.look()
	}
	return r.current.Load()
}

func (r *reloaded[T]) look() {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := stampsOf(r.paths)
	if same(now, r.stamps) {
		return
	}
	r.stamps = now
	v, err := r.read()
	if err != nil {
		r.log.Error("files that changed cannot be used; the ones before stay in force", "files", r.paths, "err", err)
		return
	}
	r.current.Store(&v)
	r.log.Info("read again", "files", r.paths)
}

func stampsOf(paths []string) []stamp {
	out := make([]stamp, len(paths))
	for i, p := range paths {
		if info, err := os.Stat(p); err == nil {
			out[i] = stamp{info.Size(), info.ModTime(), info}
		}
	}
	return out
}

func same(a, b []stamp) bool {
	for i := range a {
		if (a[i].file == nil) != (b[i].file == nil) {
			return false
		}
		if a[i].file != nil && (a[i].size != b[i].size || !a[i].modified.Equal(b[i].modified) || !os.SameFile(a[i].file, b[i].file)) {
			return false
		}
	}
	return true
}
