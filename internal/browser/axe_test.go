package browser

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestBarriers finds what is wrong with a page, and nothing wrong with another one.
func TestBarriers(t *testing.T) {
	pages := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; img-src data:; style-src 'unsafe-inline'")
		body := `<button aria-label="Close">×</button><p style="color: #333">Readable</p>`
		if r.URL.Path == "/bad" {
			body = `<img src="data:,"><button></button><p style="color: #ccc">Pale</p>`
		}
		_, _ = io.WriteString(w, `<!doctype html><html lang="en"><meta charset="utf-8"><title>x</title><link rel="icon" href="data:,"><main><h1>x</h1>`+body+`</main>`)
	}))
	t.Cleanup(pages.Close)
	if found := Open(t, pages.URL+"/good", Options{}).Barriers(); len(found) > 0 {
		t.Errorf("a good page has %q", found)
	}
	found := strings.Join(Open(t, pages.URL+"/bad", Options{}).Barriers(), "\n")
	for _, want := range []string{"image-alt", "button-name", "color-contrast"} {
		if !strings.Contains(found, want) {
			t.Errorf("%s is not among %s", want, found)
		}
	}
}
