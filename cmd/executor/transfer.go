package main

import (
	"fmt"
	"time"

	"github.com/cooper-build/cooper/pkg/build"
)

const (
	// progressEvery is how often a running transfer is shown.
	progressEvery = 5 * time.Second
	// smallTransfer is what is not worth a line, in bytes: configurations and
	// the layers of a few small files.
	smallTransfer = 64 << 10
)

// transfers thins out the progress of pulls and pushes, which comes with every
// read, to a line at the end and one every few seconds before.
type transfers struct {
	now     func() time.Time
	running map[string]*transfer
}

type transfer struct {
	shown    time.Time
	finished bool
}

// show reports whether an event is worth a line now, and from which level on.
func (t *transfers) show(e build.Progress) (level, bool) {
	if t.running == nil {
		t.running = map[string]*transfer{}
	}
	now := time.Now
	if t.now != nil {
		now = t.now
	}
	at := levelInfo
	if e.Total > 0 && e.Total < smallTransfer {
		at = levelDebug
	}
	key := e.What + " " + e.Name
	this, ok := t.running[key]
	if !ok {
		this = &transfer{shown: now()}
		t.running[key] = this
	}
	if e.Finished {
		if this.finished {
			return at, false
		}
		this.finished = true
		return at, true
	}
	if this.finished {
		// It is sent again, to another place.
		this.finished, this.shown = false, now()
	}
	if now().Sub(this.shown) < progressEvery {
		return at, false
	}
	this.shown = now()
	return at, true
}

// transferText is a transfer in one line.
func transferText(e build.Progress) string {
	text := e.What + " " + shortDigest(e.Name)
	switch {
	case e.Finished && e.Note != "":
		return fmt.Sprintf("%s: %s, %s", text, size(e.Total), e.Note)
	case e.Finished:
		return fmt.Sprintf("%s: %s", text, size(e.Done))
	case e.Total > 0:
		return fmt.Sprintf("%s: %s of %s (%d%%)", text, size(e.Done), size(e.Total), e.Done*100/e.Total)
	}
	return fmt.Sprintf("%s: %s so far", text, size(e.Done))
}
