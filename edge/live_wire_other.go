//go:build !unix

package edge

import "syscall"

// rawWriter stands for what only Unix has: here every write has a goroutine of its own.
type rawWriter struct{}

func newRawWriter() *rawWriter { return nil }

func (*rawWriter) write(syscall.RawConn, []byte) (int, error) { return 0, nil }

func limitUnsent(syscall.RawConn, int) {}

func openFiles() int { return 10_000 }
