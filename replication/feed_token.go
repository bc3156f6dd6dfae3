package replication

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shortline/shortline/internal/span"
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

// ErrBehind says that memory did not come to what was asked for in the time given, although the primary could be asked.
var ErrBehind = errors.New("memory has not caught up")

// Latest blocks until memory holds everything that had been committed when it was called: what a strong read waits for. Once it
// is known how far that is, it waits no longer than within; the error is then ErrBehind. While nobody may speak for the primary,
// it waits for somebody who may; then the error is the last that was met, and wraps ErrNotPrimary.
func (f *Feed) Latest(ctx context.Context, within time.Duration) error {
	for {
		head, err := f.heads.get(ctx)
		if err == nil {
			err = f.Settle(ctx, Token{Epoch: head.Epoch, XID: head.XMax - 1, LSN: head.LSN}, within)
			if !errors.Is(err, ErrTokenLost) {
				return err
			}
			continue // an epoch has begun meanwhile: what counts is how far it is
		}
		if !errors.Is(err, ErrNotPrimary) {
			return err
		}
		if sleep(ctx, latestPause); ctx.Err() != nil {
			return err
		}
	}
}

// Settle blocks until memory holds what the token stands for, or returns ErrTokenLost once it is known that it never will. A
// node that lacks a token is usually just behind; only if it stays so the primary is asked. It waits no longer than within from
// the last time that the primary could not be asked: while the primary moves, the region that a node follows does too. The
// error is then ErrBehind, or that of ctx, which bounds everything.
func (f *Feed) Settle(ctx context.Context, t Token, within time.Duration) error {
	if span.Of(ctx) == nil {
		return f.settle(ctx, t, within)
	}
	end := f.traced.begin(ctx, t)
	err := f.settle(ctx, t, within)
	end(err)
	return err
}

func (f *Feed) settle(ctx context.Context, t Token, within time.Duration) error {
	patience := f.cfg.Patience
	ask, limit := time.NewTimer(patience), time.NewTimer(within)
	defer ask.Stop()
	defer limit.Stop()
	var answer chan error // of the question under way; nil: none is
	for {
		f.mu.Lock()
		advance := f.advance
		f.mu.Unlock()
		switch a := f.applied.Load(); {
		case a == nil:
		case a.Satisfies(t):
			return nil
		case a.Token.Epoch > t.Epoch && !a.kept(t):
			if done, err := f.settleFormer(ctx, &t, a.Token.Epoch); done || err != nil {
				return err
			}
			continue // it is of the running epoch now
		}
		f.Poke()
		select {
		case <-advance:
		case <-ask.C:
			answer = make(chan error, 1)
			go func(answer chan error) { answer <- f.Judge(ctx, t) }(answer) // for no longer than a read may take; waited for or not
		case err := <-answer:
			answer, patience = nil, max(2*patience, time.Second)
			switch {
			case errors.Is(err, ErrTokenLost):
				return err
			case err != nil:
				limit.Reset(within)
				ask.Reset(within / 4)
			default:
				ask.Reset(patience)
			}
		case <-limit.C:
			if answer == nil {
				return ErrBehind
			}
			limit.Reset(within) // nobody has answered in all that time
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// formerPause is the time between two attempts to find the change row of a token.
const formerPause = 50 * time.Millisecond

// settleFormer is for a token of a former epoch of which the fork does not tell whether it outlived it: only its change row does.
// Where that is there, the token becomes one of the running epoch. done says that it is lost.
func (f *Feed) settleFormer(ctx context.Context, t *Token, epoch uint64) (done bool, err error) {
	w, ok := f.source.(Witness)
	if !ok {
		return true, ErrTokenLost
	}
	for {
		wrote, err := w.Wrote(ctx, t.Epoch, t.XID)
		switch {
		case err == nil && !wrote:
			return true, ErrTokenLost
		case err == nil:
			*t = Token{Epoch: epoch, XID: t.XID}
			return false, nil
		}
		// The database is being moved, or does not answer: which does not make the token a lost one.
		if sleep(ctx, formerPause); ctx.Err() != nil {
			return true, fmt.Errorf("look for the transaction of a token: %w", err)
		}
	}
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
