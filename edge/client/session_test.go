package client

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/shortline/shortline"
)

func TestSessionCarriesTheNewestToken(t *testing.T) {
	var sent []string
	n := 0
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		sent = append(sent, r.Method+" "+r.Header.Get("Shortline-Token")+" "+r.URL.RawQuery)
		n++
		w.Header().Set("Shortline-Token", fmt.Sprint("t", n))
		answer(w, 200, queueJSON)
	})
	ctx := t.Context()
	length := 7
	read := func(o ReadOptions) {
		if _, err := c.Queue(ctx, "a", o); err != nil {
			t.Error(err)
		}
	}
	read(ReadOptions{})                                                                                         // answers t1
	read(ReadOptions{})                                                                                         // t2
	read(ReadOptions{Consistency: Eventual})                                                                    // t3, outside
	if _, err := c.SetQueue(ctx, shortline.QueueUpdate{ID: "a", Length: &length}, WriteOptions{}); err != nil { // t4
		t.Error(err)
	}
	read(ReadOptions{})                    // t5
	read(ReadOptions{Consistency: Strong}) // t6
	want := []string{"GET  ", "GET t1 ", "GET  consistency=eventual", "POST  ", "GET t4 ", "GET t5 consistency=strong"}
	if strings.Join(sent, "|") != strings.Join(want, "|") {
		t.Errorf("sent %q\nwant %q", sent, want)
	}
	if tok := c.Session().Token(); tok != "t6" {
		t.Errorf("token %q", tok)
	}
}

func TestAnswersThatCrossAreBothCovered(t *testing.T) {
	var consistency, token string
	var writes sync.WaitGroup
	writes.Add(2)
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			writes.Done()
			writes.Wait() // both have begun before either is answered
			w.Header().Set("Shortline-Token", "w"+r.URL.Path)
		} else {
			consistency, token = r.URL.Query().Get("consistency"), r.Header.Get("Shortline-Token")
			w.Header().Set("Shortline-Token", "read")
		}
		answer(w, 200, queueJSON)
	})
	var both sync.WaitGroup
	for _, id := range []shortline.StoreID{"a", "b"} {
		both.Go(func() {
			n := 1
			if _, err := c.SetQueue(t.Context(), shortline.QueueUpdate{ID: id, Length: &n}, WriteOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	if k := c.Session().known(); len(k) != 2 {
		t.Fatalf("the session knows %q, want both tokens", k)
	}
	if _, err := c.Queue(t.Context(), "a", ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	if consistency != "strong" || !strings.HasPrefix(token, "w/") {
		t.Errorf("read with consistency %q and token %q", consistency, token)
	}
	if _, err := c.Queue(t.Context(), "a", ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	if consistency != "" || token != "read" {
		t.Errorf("then read with consistency %q and token %q", consistency, token)
	}
}

func TestRepeatedWriteCoversNothing(t *testing.T) {
	tries := 0
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if tries++; tries == 1 {
			answer(w, 503, `{}`)
			return
		}
		w.Header().Set("Shortline-Token", "of the first time")
		answer(w, 200, queueJSON)
	})
	c.retry.base = 1
	c.Session().Observe("newer")
	n := 1
	if _, err := c.SetQueue(t.Context(), shortline.QueueUpdate{ID: "a", Length: &n}, WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if k := c.Session().known(); len(k) != 2 {
		t.Errorf("the session knows %q, want also what it knew before", k)
	}
}

func TestCallsOutsideOfTheSession(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Shortline-Token", "older")
		if r.Method == http.MethodPost {
			w.Header().Set("Idempotent-Replayed", "true")
		}
		answer(w, 200, queueJSON)
	})
	c.Session().Observe("t")
	if err := c.Healthy(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := c.Keys(t.Context()); err != nil {
		t.Error(err)
	}
	if k := c.Session().known(); len(k) != 1 || k[0] != "t" {
		t.Errorf("after reads outside the session knows %q", k)
	}
	n := 1
	if _, err := c.SetQueue(t.Context(), shortline.QueueUpdate{ID: "a", Length: &n}, WriteOptions{}); err != nil {
		t.Error(err)
	}
	if k := c.Session().known(); len(k) != 2 {
		t.Errorf("after a replayed write the session knows %q", k)
	}
}

func TestLostTokenStartsAnew(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		answer(w, 409, `{"type":"https://shortline.dev/problems/token-lost","title":"Conflict"}`)
	})
	c.Session().Observe("t")
	if _, err := c.Queue(t.Context(), "a", ReadOptions{}); err == nil || c.Session().Token() != "" {
		t.Errorf("err %v, token %q", err, c.Session().Token())
	}
}

// TestSessionNeverGoesBack runs many concurrent reads and writes against a counter with tokens, and after each write
// reads through the same session: the read must be asked in a way that covers the write.
func TestSessionNeverGoesBack(t *testing.T) {
	var mu sync.Mutex
	at := 0
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		sent, _ := strconv.Atoi(r.Header.Get("Shortline-Token"))
		token := max(sent, at/2) // a replica that lags
		if r.URL.Query().Get("consistency") == "strong" {
			token = at
		}
		if r.Method == http.MethodPost {
			at++
			token = at
		}
		mu.Unlock()
		w.Header().Set("Shortline-Token", strconv.Itoa(token))
		answer(w, 200, queueJSON)
	})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			n := 1
			for range 30 {
				wrote, err := c.SetQueue(t.Context(), shortline.QueueUpdate{ID: "a", Length: &n}, WriteOptions{})
				if err != nil {
					t.Error(err)
					return
				}
				read, err := c.Queue(t.Context(), "a", ReadOptions{})
				if err != nil {
					t.Error(err)
					return
				}
				w, _ := strconv.Atoi(wrote.Token)
				if r, _ := strconv.Atoi(read.Token); r < w {
					t.Errorf("wrote %d, then read %d", w, r)
				}
			}
		})
	}
	all.Wait()
	if k := len(c.Session().known()); k > 8 {
		t.Errorf("the session keeps %d tokens", k)
	}
}
