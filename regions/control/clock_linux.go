package control

import (
	"time"

	"golang.org/x/sys/unix"
)

// Boottime tells the time since the machine was started, and goes on while it sleeps: a lease that was taken before a
// suspension is over after it. Go's own monotonic clock may stand still meanwhile.
func Boottime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic("the clock CLOCK_BOOTTIME cannot be read: " + err.Error()) // Linux has it since 2.6.39
	}
	return time.Duration(t.Nano())
}
