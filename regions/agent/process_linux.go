package agent

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

func dieWithParent(attr *syscall.SysProcAttr, signal syscall.Signal) { attr.Pdeathsig = signal }

// serves tells whether the process is there and is a server of the data folder: that is where it works.
func serves(pid int, data string) bool {
	proc := "/proc/" + strconv.Itoa(pid)
	cwd, err := os.Readlink(proc + "/cwd")
	if err != nil || cwd != resolved(data) {
		return false
	}
	name, err := os.ReadFile(proc + "/comm")
	if err != nil || !strings.HasPrefix(string(name), "postgres") {
		return false
	}
	stat, err := os.ReadFile(proc + "/stat")
	if err != nil {
		return false
	}
	// The name stands in parentheses and may hold anything.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	return len(fields) > 0 && fields[0] != "Z" && fields[0] != "X"
}

// descendants are the processes of the server of a data folder, but for the one given, which its waiter reaps. A killed
// server's may outlive it: one that is stopped does not notice.
func descendants(but int, data string) (pids []int) {
	all, _ := os.ReadDir("/proc")
	for _, e := range all {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid != but && serves(pid, data) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func resolved(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return path
}
