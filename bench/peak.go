package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// watch samples the most memory that a process has held, VmHWM in proc(5), until
// the function that it returns is called, which gives it in bytes. The kernel
// keeps the maximum, so only what was needed in the last moment before the
// process ended can be missed. Children are not counted.
func watch(pid int) func() int64 {
	stop, result := make(chan struct{}), make(chan int64)
	go func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		var most int64
		for {
			most = max(most, held(pid))
			select {
			case <-stop:
				result <- max(most, held(pid))
				return
			case <-tick.C:
			}
		}
	}()
	return func() int64 {
		close(stop)
		return <-result
	}
}

// held is VmHWM in bytes, 0 for a process that has ended.
func held(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, ok := bytes.Cut(text, []byte("\nVmHWM:"))
	if !ok {
		return 0
	}
	fields := bytes.Fields(rest)
	kb, err := strconv.ParseInt(string(fields[0]), 10, 64)
	if err != nil {
		return 0
	}
	return kb << 10
}
