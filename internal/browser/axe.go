package browser

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"io"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

//go:embed axe/axe.min.js.gz
var axe []byte

// Barriers runs axe over the page as it is and returns what shuts people out: its violations of impact serious or critical, each with
// the elements that it is about.
func (p *Tab) Barriers() []string {
	p.t.Helper()
	unzip, err := gzip.NewReader(bytes.NewReader(axe))
	if err != nil {
		p.t.Fatal(err)
	}
	script, err := io.ReadAll(unzip)
	if err != nil {
		p.t.Fatal(err)
	}
	var found []string
	p.Until(`document.getAnimations().every((a) => a.playState !== "running" || a.effect.getComputedTiming().iterations === Infinity)`) // colours are on their way till then
	p.Run(
		chromedp.Evaluate(string(script), nil),
		chromedp.Evaluate(`axe.run(document, { preload: false, resultTypes: ["violations"] }).then((r) => r.violations.filter((v) => ["serious", "critical"].includes(v.impact))
			.map((v) => v.id + ": " + v.help + ": " + v.nodes.map((n) => n.html.slice(0, 200) + " (" + n.any.concat(n.all, n.none).map((c) => c.message).join("; ") + ")").join(" | ")))`,
			&found, func(e *runtime.EvaluateParams) *runtime.EvaluateParams { return e.WithAwaitPromise(true) }),
	)
	return found
}

// Look makes the page's window as large as a screen, and its colours light or dark.
func (p *Tab) Look(width, height int64, scheme string) {
	p.t.Helper()
	p.Run(chromedp.EmulateViewport(width, height), emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}))
}
