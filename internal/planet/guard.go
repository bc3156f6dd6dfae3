package planet

import (
	"fmt"
	"io"
	"os/exec"
	"sync"
	"syscall"
)

// guardScript cleans up after a process that could not: its standard input ends when that process does, however it does.
// Then it ends the servers that still run, each with its signal (and SIGCONT for a paused one), and removes the folders.
const guardScript = `
trap '' INT TERM HUP
pids=
mounts=
while read -r verb what signal; do
	case $verb in
	add) pids="$pids $what:$signal" ;;
	remove)
		rest=
		for p in $pids; do [ "${p%%:*}" = "$what" ] || rest="$rest $p"; done
		pids=$rest ;;
	mount) mounts="$mounts $what" ;;
	done) exit 0 ;;
	esac
done
for p in $pids; do kill -"${p##*:}" "${p%%:*}"; kill -CONT "${p%%:*}"; done
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40; do
	left=
	for p in $pids; do kill -0 "${p%%:*}" && left=1; done
	[ "$left" ] || break
	sleep 0.2
done
for p in $pids; do kill -KILL "${p%%:*}"; done
for m in $mounts; do umount -l "$m"; done
for i in 1 2 3 4 5; do
	rm -rf -- "$@" && break
	sleep 0.2
done
`

// guard is a shell that outlives this process by a moment. Several servers may share one.
type guard struct {
	proc *process

	mu   sync.Mutex
	pipe io.WriteCloser // guarded by mu
}

// startGuard starts a guard that removes folders, which need not be there yet.
func startGuard(folders ...string) (*guard, error) {
	cmd := exec.Command("/bin/sh", append([]string{"-c", guardScript, "shortline-planet-guard"}, folders...)...)
	cmd.Dir = "/"
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	proc, err := spawn(cmd, 0, nil)
	if err != nil {
		return nil, fmt.Errorf("start the guard: %w", err)
	}
	return &guard{proc: proc, pipe: pipe}, nil
}

// signalNames are those that a shell knows everywhere.
var signalNames = map[syscall.Signal]string{syscall.SIGKILL: "KILL", syscall.SIGQUIT: "QUIT", syscall.SIGTERM: "TERM"}

// add makes the guard end a process with the signal, one of signalNames.
func (g *guard) add(pid int, death syscall.Signal) {
	g.tell(fmt.Sprintf("add %d %s\n", pid, signalNames[death]))
}

func (g *guard) remove(pid int) { g.tell(fmt.Sprintf("remove %d\n", pid)) }

// mounted makes the guard unmount a folder, whose name has no spaces.
func (g *guard) mounted(folder string) { g.tell(fmt.Sprintf("mount %s -\n", folder)) }

// dismiss ends the guard; nothing is left to clean up.
func (g *guard) dismiss() {
	g.tell("done\n")
	g.mu.Lock()
	_ = g.pipe.Close()
	g.mu.Unlock()
	select {
	case <-g.proc.exited:
	default:
		// A guard that is stopped would not read it.
		_ = g.proc.cmd.Process.Signal(syscall.SIGCONT)
		<-g.proc.exited
	}
}

// tell writes a line. It fails only when somebody has killed the guard, and then there is none.
func (g *guard) tell(line string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, _ = io.WriteString(g.pipe, line)
}
