// Bundles src and style into a folder (first argument, default dist): hashed assets, and index.html that names them.
import { build } from "esbuild";
import { readFile, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";

const out = process.argv[2] ?? "dist";

// NiiVue computes gradients for its 3-D rendering at each change of the window. This page renders nothing in 3-D, and
// without a graphics card they take ten seconds.
const noGradients = {
  name: "no gradients",
  /** @param {import("esbuild").PluginBuild} build */
  setup: ({ onLoad }) =>
    onLoad({ filter: /niivue[\\/]build[\\/]niivue[\\/]index\.js$/ }, async ({ path }) => {
      const head = "function gradientGL(params) {";
      const [before, after, ...more] = (await readFile(path, "utf-8")).split(head);
      if (!after || more.length) throw new Error(`${path} has no single ${head}`);
      return { contents: `${before}${head}\nreturn params.gradientTexture;${after}`, loader: "js" };
    }),
};

const result = await build({
  entryPoints: ["src/main.js", "style/style.css"],
  entryNames: "[name]-[hash]",
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  outdir: out,
  metafile: true,
  logLevel: "error",
  plugins: [noGradients],
});
let page = await readFile("index.html", "utf-8");
for (const [file, { entryPoint }] of Object.entries(result.metafile.outputs)) {
  if (entryPoint) page = page.replace(basename(entryPoint), basename(file));
}
await writeFile(join(out, "index.html"), page);
