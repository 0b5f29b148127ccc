package build

import (
	"bytes"
	"sync"
)

// sink calls Options.Events one call at a time.
type sink struct {
	mu   sync.Mutex
	call func(Event)
}

func (s *sink) emit(e Event) {
	if s.call == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.call(e)
}

func (s *sink) message(level, text string) { s.emit(Message{Level: level, Text: text}) }

// longestLine bounds the memory for output without line ends; a longer line is
// reported in pieces.
const longestLine = 64 << 10

// lines reports what is written to it line by line. A carriage return ends a
// line as well, because progress bars use nothing else.
type lines struct {
	sink   *sink
	step   StepID
	stderr bool

	mu      sync.Mutex
	pending []byte
	// afterCR: the last byte was "\r", so a "\n" now belongs to the same end.
	afterCR bool
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(p)
	for len(p) > 0 {
		if l.afterCR && p[0] == '\n' {
			p = p[1:]
		}
		l.afterCR = false
		end := bytes.IndexAny(p, "\r\n")
		if end < 0 {
			l.pending = append(l.pending, p...)
			if len(l.pending) >= longestLine {
				l.report()
			}
			break
		}
		l.pending = append(l.pending, p[:end]...)
		l.report()
		l.afterCR = p[end] == '\r'
		p = p[end+1:]
	}
	return n, nil
}

// flush reports a last line without an end.
func (l *lines) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pending) > 0 {
		l.report()
	}
}

func (l *lines) report() {
	l.sink.emit(StepOutput{Step: l.step, Line: string(l.pending), Stderr: l.stderr})
	l.pending = l.pending[:0]
}
