//go:build unix && !linux

package sidecar

import "syscall"

// groupAttributes put the command into a group of its own. This system has no way to let it die with this process.
func groupAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

// onlyZombies cannot tell on this system.
func onlyZombies(int) bool { return false }
