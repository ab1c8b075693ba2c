/**
 * Builds the page: `npm run build -- [FOLDER]`, `dist` unless named.
 *
 * The folder then holds everything but `data/`, which export.py writes.
 */
import { build } from "esbuild";
import { copyFile, mkdir } from "node:fs/promises";

const out = process.argv[2] ?? "dist";

await mkdir(out, { recursive: true });
await build({
  entryPoints: ["src/main.ts", "src/worker.ts"],
  outdir: out,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  platform: "browser",
  legalComments: "none", // notices.txt has the licences
  external: ["node:*", "module", "worker_threads", "fs", "path", "url", "crypto", "ws"],
  logLevel: "warning",
});
const copies = {
  "index.html": "index.html",
  "src/style.css": "style.css",
  "src/notices.txt": "notices.txt",
  "node_modules/@mujoco/mujoco/mujoco.wasm": "mujoco.wasm",
  "node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm": "onnxruntime.wasm",
};
for (const [from, to] of Object.entries(copies)) await copyFile(from, `${out}/${to}`);
