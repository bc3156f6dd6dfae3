//go:build !linux

package control

import "time"

// Boottime tells the time since this process was started. On systems other than Linux it may stand still while the machine
// sleeps: they are for development.
func Boottime() time.Duration { return time.Since(started) }

var started = time.Now()
