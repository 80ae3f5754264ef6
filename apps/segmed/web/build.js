// Bundles src and style into a folder (first argument, default dist): hashed assets, and pages that name them.
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
  entryPoints: ["src/main.js", "style/style.css", "src/docs.js"],
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
const named = Object.entries(result.metafile.outputs).flatMap(([file, { entryPoint, cssBundle }]) => {
  if (!entryPoint) return [];
  const source = basename(entryPoint);
  return [[source, file], ...(cssBundle ? [[source.replace(/js$/, "css"), cssBundle]] : [])];
});
for (const name of ["index.html", "docs.html"]) {
  let page = await readFile(name, "utf-8");
  for (const [source, file] of named) page = page.replace(`web/${source}`, `web/${basename(file)}`);
  await writeFile(join(out, name), page);
}
