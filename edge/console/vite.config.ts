import { defineConfig } from "vite";

// A node to develop against: bin/shortline serve --demo --simulate. The page is then at http://localhost:5173.
const node = "http://127.0.0.1:8080";

export default defineConfig({
  base: "/",
  build: {
    outDir: "dist",
    target: "es2022",
    assetsInlineLimit: 0, // the page's policy allows no inline code, and files of their own can be kept
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    chunkSizeWarningLimit: 2000,
    rollupOptions: {
      external: ["/shortline.js"], // served by the node, for others too
      output: { manualChunks: (id) => (id.includes("/node_modules/maplibre-gl/") ? "maplibre" : undefined) }, // it rarely changes
    },
  },
  server: {
    proxy: Object.fromEntries(["/v1", "/admin", "/shortline.js", "/docs", "/openapi.json"].map((path) => [path, { target: node, ws: true, changeOrigin: true }])),
  },
});
