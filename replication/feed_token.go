package replication

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// newest is how far the primary is.
func (f *Feed) newest(ctx context.Context) (Head, error) {
	head := f.cfg.PrimaryHead
	if head == nil {
		head = f.source.Head
		if l, ok := f.source.(Leader); ok {
			head = l.PrimaryHead
		}
	}
	h, err := head(ctx)
	if err != nil {
		return Head{}, fmt.Errorf("read how far the primary is: %w", err)
	}
	return h, nil
}

// latestPause is the time between two attempts to learn how far the primary is.
const latestPause = 50 * time.Millisecond

// Latest blocks until memory holds everything that had been committed when it was called: what a strong read waits for. While
// nobody may speak for the primary, it waits for somebody who may; then the error is the last that was met, and wraps ErrNotPrimary.
func (f *Feed) Latest(ctx context.Context) error {
	for {
		head, err := f.heads.get(ctx)
		if err == nil {
			return f.Wait(ctx, Token{Epoch: head.Epoch, XID: head.XMax - 1})
		}
		if !errors.Is(err, ErrNotPrimary) {
			return err
		}
		if sleep(ctx, latestPause); ctx.Err() != nil {
			return err
		}
	}
}

// Settle blocks until memory holds what the token stands for, or returns ErrTokenLost once it is known that it never will.
// Otherwise the error is that of ctx. A node that lacks a token is usually just behind; only if it stays so the primary is
// asked, and if that cannot be asked it goes on waiting.
func (f *Feed) Settle(ctx context.Context, t Token) error {
	for patience := f.cfg.Patience; ; patience = max(2*patience, time.Second) {
		f.mu.Lock()
		advance := f.advance
		f.mu.Unlock()
		a := f.applied.Load()
		if a != nil && a.Satisfies(t) {
			return nil
		}
		if a != nil && a.Token.Epoch > t.Epoch && !a.kept(t) {
			return f.settleFormer(ctx, t)
		}
		done, err := f.waitFor(ctx, t, patience, advance)
		if done || err != nil {
			return err
		}
		if err := f.Judge(ctx, t); errors.Is(err, ErrTokenLost) {
			return err
		}
	}
}

// waitFor waits for the token as long as patience lasts, or until an epoch later than the token's has been applied.
func (f *Feed) waitFor(ctx context.Context, t Token, patience time.Duration, advance chan struct{}) (done bool, err error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		f.Poke()
		select {
		case <-advance:
		case <-timer.C:
			return false, nil
		case <-ctx.Done():
			return false, ctx.Err()
		}
		f.mu.Lock()
		advance = f.advance
		f.mu.Unlock()
		switch a := f.applied.Load(); {
		case a != nil && a.Satisfies(t):
			return true, nil
		case a != nil && a.Token.Epoch > t.Epoch && !a.kept(t):
			return true, f.settleFormer(ctx, t)
		}
	}
}

// settleFormer is for a token of a former epoch of which the fork does not tell whether it outlived it: only its change row does.
func (f *Feed) settleFormer(ctx context.Context, t Token) error {
	w, ok := f.source.(Witness)
	if !ok {
		return ErrTokenLost
	}
	wrote, err := w.Wrote(ctx, t.Epoch, t.XID)
	switch {
	case err != nil:
		return fmt.Errorf("look for the transaction of a token: %w", err)
	case !wrote:
		return ErrTokenLost
	}
	return f.Wait(ctx, Token{Epoch: f.applied.Load().Token.Epoch, XID: t.XID})
}

// Judge tells what a token that is not satisfied yet means: nil if it only has to be waited for, ErrTokenLost if the primary
// itself has not come that far, so that nobody ever acknowledged it.
//
// The number of a transaction does not tell that alone: a standby shows one that the primary still holds back until enough
// standbys have it. But no standby is ahead of the primary's log.
func (f *Feed) Judge(ctx context.Context, t Token) error {
	head, err := f.heads.get(ctx)
	if err != nil {
		return err
	}
	heldBack := t.LSN > 0 && t.LSN <= head.LSN
	if t.Epoch > head.Epoch || t.XID >= head.XMax && !heldBack {
		return ErrTokenLost
	}
	return nil
}

// headReads shares reads of the primary's head among those who want one at the same time. Each gets one that began after its call.
type headReads struct {
	read    func(context.Context) (Head, error)
	timeout time.Duration
	turn    chan struct{}  // holds one while a read is under way
	next    chan *headRead // holds the read that has not begun yet, nil where there is none
}

type headRead struct {
	done chan struct{} // closed when the rest is set
	head Head
	err  error
}

func (h *headReads) init(read func(context.Context) (Head, error), timeout time.Duration) {
	h.read, h.timeout = read, timeout
	h.turn, h.next = make(chan struct{}, 1), make(chan *headRead, 1)
	h.next <- nil
}

// get returns the head as of some moment after the call. Of several callers one reads, for no longer than the timeout, and
// whether it is still interested or not.
func (h *headReads) get(ctx context.Context) (Head, error) {
	r := <-h.next
	leads := r == nil
	if leads {
		r = &headRead{done: make(chan struct{})}
	}
	h.next <- r
	if !leads {
		select {
		case <-r.done:
			return r.head, r.err
		case <-ctx.Done():
			return Head{}, ctx.Err()
		}
	}
	h.turn <- struct{}{}
	<-h.next
	h.next <- nil // whoever calls from here on gets the next one
	own, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.timeout)
	r.head, r.err = h.read(own)
	cancel()
	close(r.done)
	<-h.turn
	return r.head, r.err
}
