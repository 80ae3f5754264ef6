/** The page: wires the parts to the buttons. */
import { download, getBytes, get, imagePath, post } from "./api.js";
import { tryModel } from "./compare.js";
import { css } from "./colours.js";
import { element, find, say } from "./dom.js";
import { showFormer } from "./former.js";
import { HELP, listen } from "./keys.js";
import { Overlay } from "./overlay.js";
import { Studies } from "./studies.js";
import { TOOLS, Tools } from "./tools.js";
import { Viewer } from "./viewer.js";
import { Work } from "./work.js";

const CT_WINDOWS = { "Soft tissue": [-160, 240], Lung: [-1350, 150], Bone: [-500, 1300], Brain: [0, 80] };
const ON_THE_IMAGE = "#accept, #clear, #compare, #save, #former, #nifti, #names-table, #nrrd, #segment";

let models = [];
let opening = 0;
const busy = new Set();

function fail(error) {
  say(error.message, "error");
  if ([0, 424].includes(error.status)) studies.watch(); // the PACS or the server is gone
}

const viewer = new Viewer(find("#image"));
const overlay = new Overlay(find("#overlay"), viewer);
viewer.onDraw = () => overlay.draw();

const work = new Work(viewer, {
  client,
  changed: showWork,
  busy: (words) => showBusy("work", words),
  warn: (text) => say(text, "warning"),
  fail,
});

const tools = new Tools(find("#overlay"), viewer, overlay, {
  prompt: (body) => {
    if (!find("#model").value) return say("This server offers no model that takes prompts.", "warning");
    const refine = find("#refine").checked;
    find("#refine").checked = false;
    const overwrite = find("#overwrite").checked;
    return work.prompt({ model: find("#model").value, label: label(), overwrite, ...body, ...(refine ? { refine } : {}) });
  },
  paint: (voxels, erase) => work.paint(voxels, label(), erase),
  value: (erase) => (erase ? 0 : work.value(label())),
  hover: showPlace,
  say,
});

const studies = new Studies({ open, state: showState, client });

// ---- who, what, with which model

function client() {
  return find("#client").value.trim() || "user";
}

function label() {
  return find("#label").value.trim().normalize("NFC") || "object";
}

function startClient() {
  const field = find("#client");
  field.value = localStorage.getItem("segmed.client") || `user-${Math.random().toString(36).slice(2, 6)}`;
  localStorage.setItem("segmed.client", client());
  field.addEventListener("change", () => {
    localStorage.setItem("segmed.client", client());
    studies.refresh();
    if (work.id) work.reload();
  });
}

/** Who has logged in works under that name, whatever the field held. */
function showUser(name) {
  if (find("#client").value === name && find("#client").readOnly) return;
  find("#client").value = name;
  find("#client").readOnly = true;
  find("#logout").hidden = false;
  if (work.id) work.reload();
}

async function logOut() {
  await fetch("logout", { method: "POST" });
  location.assign("login");
}

function showState(state) {
  find("#version").textContent = state.version;
  if (state.user) showUser(state.user);
  if (state.warning) say(state.warning, "warning");
  if (JSON.stringify(models) !== JSON.stringify(state.models)) {
    models = state.models;
    showModels();
  }
  if (!find("#label").value) find("#label").value = state.labels[0] ?? "object";
  find("#known").replaceChildren(...state.labels.map((name) => element("option", { value: name })));
}

function showModels() {
  const flat = viewer.meta?.shape[2] === 1;
  const prompted = models.filter((one) => one.type === "prompt" && !(flat && one.dimension === 3));
  const options = (some) => some.map((one) => element("option", { value: one.name, title: one.description }, one.name));
  const groups = [
    ["on the slice", prompted.filter((one) => one.dimension === 2)],
    ["through the volume", prompted.filter((one) => one.dimension === 3)],
  ];
  const chosen = find("#model").value;
  find("#model").replaceChildren(
    ...groups.filter(([, some]) => some.length).map(([name, some]) => {
      const group = element("optgroup", { label: name });
      group.append(...options(some));
      return group;
    }),
  );
  if (prompted.some((one) => one.name === chosen)) find("#model").value = chosen;
  const automatic = models.filter((one) => one.type === "automatic");
  find("#automatic").hidden = !automatic.length;
  find("#structures").replaceChildren(...options(automatic));
  showModel();
}

function showModel() {
  find("#about").textContent = models.find((one) => one.name === find("#model").value)?.description ?? "";
}

// ---- opening an image

async function open(image) {
  const turn = ++opening;
  const current = () => turn === opening;
  studies.choose(image.id);
  showBusy("open", "Opening");
  try {
    const meta = await get(imagePath(image.id));
    const path = imagePath(image.id, "/volume.nii");
    const buffer = await getBytes(path, (part) => current() && showBusy("open", `Opening ${Math.round(100 * part)} %`));
    if (!current()) return;
    work.close();
    await viewer.open(buffer, meta);
    find("#welcome").hidden = true;
    find("#title").textContent = meta.name || meta.id;
    showModels();
    showView();
    showWindows();
    showComparison([]);
    await work.open(meta.id);
  } catch (error) {
    if (current()) fail(error);
  } finally {
    if (current()) showBusy("open", "");
  }
}

async function nextCase() {
  try {
    const { strategies } = await get("info/");
    const [strategy] = Object.keys(strategies);
    const sample = await post(`activelearning/${encodeURIComponent(strategy)}`, { client_id: client() });
    if (!sample.id) return say("There is no image left to label.");
    await open(studies.images.find((one) => one.id === sample.id) ?? { id: sample.id });
  } catch (error) {
    fail(error);
  }
}

async function save() {
  const saved = await work.save();
  if (!saved) return;
  const counts = Object.entries(saved.voxels).map(([name, count]) => `${name} ${count}`);
  const what = counts.length ? ` Voxels: ${counts.join(", ")}.` : "";
  say((saved.note || (saved.seg ? "Saved, and written to the studies as DICOM SEG." : "Saved.")) + what);
  if (saved.differs) say(saved.differs, "warning");
  await studies.refresh();
}

async function restored() {
  await work.reload();
  if (work.state.unsaved) say("The former label is the final one again. Your unsaved work on this image stays.");
  else say("The former label is the final one again.");
  await studies.refresh();
}

// ---- what is shown

function showBusy(who, words) {
  if (words) find("#busy span").textContent = `${words} …`;
  busy[words ? "add" : "delete"](who);
  find("#busy").hidden = !busy.size;
}

function showWork() {
  const { labels, can_undo, can_redo, prompt, unsaved } = work.state;
  if (work.state.revision !== undefined) studies.mark(work.id, unsaved);
  for (const one of document.querySelectorAll(ON_THE_IMAGE)) one.disabled = !work.id;
  for (const one of [find("#seg"), find("#rtstruct")]) {
    one.disabled = !viewer.meta?.series;
    one.title = one.disabled && work.id ? "Needs a DICOM series; this image is none" : "";
  }
  find("#undo").disabled = !can_undo;
  find("#redo").disabled = !can_redo;
  overlay.prompts = [prompt, ...work.pending];
  overlay.draw();
  find("#used").replaceChildren(
    ...Object.entries(labels).map(([name, value]) => {
      const swatch = element("i", {});
      swatch.style.background = css(value);
      const one = element("button", { type: "button", title: `Go on with ${name}` }, swatch, name);
      one.setAttribute("aria-pressed", String(name === label()));
      one.addEventListener("click", () => {
        find("#label").value = name;
        showWork();
      });
      return one;
    }),
  );
  find("#swatch").style.background = css(work.value(label()));
  const { drawn } = work.seconds;
  find("#seconds").textContent = drawn && work.id ? `${drawn.toFixed(2)} s` : "";
}

function showPlace(voxel) {
  const value = voxel && viewer.label(voxel);
  const name = value && Object.entries(work.state.labels).find(([, one]) => one === value)?.[0];
  find("#place").textContent = voxel ? `${voxel.join(", ")}   ${viewer.intensity(voxel)}${name ? `   ${name}` : ""}` : "";
}

function showView() {
  for (const one of document.querySelectorAll("[data-view]")) {
    one.setAttribute("aria-pressed", String(one.dataset.view === viewer.view));
  }
  find("#views").hidden = viewer.meta?.shape[2] === 1;
}

function showWindows() {
  const isCt = viewer.range[0] <= -500 && !viewer.isColour;
  const choices = { "Default window": viewer.meta.window, ...(isCt ? CT_WINDOWS : {}), "Full range": viewer.range };
  find("#window").replaceChildren(
    ...Object.entries(choices).map(([name, range]) => element("option", { value: range.join(" ") }, name)),
  );
  find("#window").disabled = viewer.isColour;
}

function showTool(name) {
  tools.choose(name);
  for (const one of document.querySelectorAll("[data-tool]")) {
    one.setAttribute("aria-pressed", String(one.dataset.tool === name));
  }
  find("#size").disabled = !["brush", "eraser", "scribble", "unscribble"].includes(name);
}

function setView(name) {
  if (!viewer.meta || find("#views").hidden) return;
  viewer.show(name);
  showView();
}

function setOpacity(value) {
  find("#opacity").value = value;
  viewer.opacity = Number(value);
}

// ---- comparing models

async function compare() {
  const { prompt } = work.state;
  if (!prompt.box && !prompt.foreground?.length) {
    return say("Draw a box or click first: the models are compared on the prompt of the open object.");
  }
  const chosen = [...document.querySelectorAll("#candidates input:checked")].map((one) => one.value);
  find("#choice").close();
  const results = [];
  for (const [at, model] of chosen.entries()) {
    showBusy("compare", `Trying ${model}`);
    try {
      const colour = at + 2;
      results.push(await tryModel({ id: work.id, client: client(), model, label: label(), prompt, colour }));
    } catch (error) {
      say(`${model}: ${error.message}`, "error");
    }
    showComparison(results);
  }
  showBusy("compare", "");
}

function askForModels() {
  const flat = viewer.meta.shape[2] === 1;
  const usable = models.filter((one) => one.type === "prompt" && !(flat && one.dimension === 3));
  const dimension = models.find((one) => one.name === find("#model").value)?.dimension;
  find("#candidates").replaceChildren(
    ...usable.map((one) => {
      const box = element("input", { type: "checkbox", value: one.name, checked: one.dimension === dimension });
      return element("label", { title: one.description }, box, one.name);
    }),
  );
  find("#choice").showModal();
}

function showComparison(results) {
  overlay.outlines = results;
  find("#comparison").hidden = !results.length;
  find("#results").replaceChildren(
    ...results.map((result) => {
      const box = element("input", { type: "checkbox", checked: true });
      box.addEventListener("change", () => {
        overlay.outlines = results.filter((_, at) => find(`#results li:nth-child(${at + 1}) input`).checked);
        overlay.draw();
      });
      const swatch = element("i", {});
      swatch.style.background = result.colour;
      const use = element("button", { type: "button", title: "Segment with this model" }, "Use");
      use.addEventListener("click", () => take(result.model));
      const count = element("small", {}, `${result.voxels} voxels`);
      return element("li", {}, element("label", {}, box, swatch, result.model, count), use);
    }),
  );
  overlay.draw();
}

function take(model) {
  find("#model").value = model;
  showModel();
  showComparison([]);
  const { box, foreground, background } = work.state.prompt;
  const overwrite = find("#overwrite").checked;
  return work.prompt({ model, label: label(), overwrite, foreground, background, ...(box ? { box } : {}) });
}

// ---- buttons and keys

function wire() {
  const on = (selector, action) => find(selector).addEventListener("click", action);
  on("#undo", () => work.undo());
  on("#redo", () => work.redo());
  on("#accept", () => work.accept());
  on("#clear", () => work.clear());
  on("#segment", () => work.segment({ model: find("#structures").value, overwrite: find("#overwrite").checked }));
  on("#save", save);
  on("#logout", () => logOut().catch(fail));
  on("#former", () => showFormer(work.id, { restored, fail }));
  on("#next", nextCase);
  on("#compare", askForModels);
  on("#try", compare);
  on("#close", () => showComparison([]));
  on("#help", () => find("#keys").showModal());
  for (const format of ["nifti", "names", "nrrd", "seg", "rtstruct"]) {
    const button = format === "names" ? "#names-table" : `#${format}`;
    const path = () => imagePath(work.id, `/download?client=${encodeURIComponent(client())}&format=${format}`);
    on(button, () => download(path()).catch(fail));
  }
  for (const one of document.querySelectorAll("[data-view]")) {
    one.addEventListener("click", () => setView(one.dataset.view));
  }
  for (const one of document.querySelectorAll("[data-tool]")) {
    const [key, words] = TOOLS[one.dataset.tool];
    one.title = `${words} (${key.toUpperCase()})`;
    one.addEventListener("click", () => showTool(one.dataset.tool));
  }
  for (const one of document.querySelectorAll("dialog [data-close]")) {
    one.addEventListener("click", () => one.closest("dialog").close());
  }
  find("#model").addEventListener("change", showModel);
  find("#label").addEventListener("input", showWork);
  find("#label").addEventListener("keydown", (event) => event.key === "Enter" && event.target.blur());
  find("#size").addEventListener("input", (event) => (tools.size = Number(event.target.value)));
  find("#opacity").addEventListener("input", (event) => setOpacity(event.target.value));
  find("#window").addEventListener("change", (event) => {
    if (viewer.meta) viewer.window = event.target.value.split(" ").map(Number);
  });
  find("#keys tbody").replaceChildren(
    ...HELP.map(([keys, words]) => element("tr", {}, element("th", {}, keys), element("td", {}, words))),
  );
  let opacity = find("#opacity").value;
  listen({
    slice: (step) => {
      if (!viewer.meta) return;
      const plane = viewer.view === "multi" ? (tools.plane ?? viewer.drawingPlane) : viewer.view;
      viewer.setSlice(plane, viewer.slice(plane) + step);
    },
    undo: () => work.state.can_undo && work.undo(),
    redo: () => work.state.can_redo && work.redo(),
    accept: () => work.accept(),
    tool: showTool,
    view: setView,
    mask: () => {
      const shown = Number(find("#opacity").value);
      if (shown) opacity = shown;
      setOpacity(shown ? 0 : opacity);
    },
    fit: () => viewer.meta && viewer.fit(),
    help: () => find("#keys").showModal(),
    cancel: () => tools.cancel(),
  });
}

/**
 * For tests and measurements. Voxels are stored [i, j, k].
 *   ready      resolves when nothing is on its way
 *   at(voxel)  place of the voxel in CSS pixels of the window, in the plane that is shown alone or the drawing plane
 *   goTo(voxel), label(voxel), window, view
 *   filled()   all labelled voxels as [i, j, k, value]
 *   seconds    of the last request: what the server told, from the press to `answered` and to `drawn`
 */
window.segmed = {
  get ready() {
    return (async () => {
      while (busy.size || work.waiting) await new Promise((done) => setTimeout(done, 20));
    })();
  },
  at(voxel) {
    const tile = viewer.tiles().find((one) => one.plane === viewer.view) ?? viewer.tiles().find((one) => one.plane === viewer.drawingPlane);
    const shown = viewer.grid.toShown(voxel);
    const { left, top } = find("#overlay").getBoundingClientRect();
    const [x, y] = tile.toScreen(tile.axes.map((axis) => shown[axis]));
    return [x + left, y + top];
  },
  goTo: (voxel) => viewer.goTo(voxel),
  label: (voxel) => viewer.label(voxel),
  filled() {
    const found = [];
    const [columns, rows, slices] = viewer.grid.shape;
    for (let k = 0; k < slices; k++) {
      for (let j = 0; j < rows; j++) {
        for (let i = 0; i < columns; i++) {
          const value = viewer.label([i, j, k]);
          if (value) found.push([i, j, k, value]);
        }
      }
    }
    return found;
  },
  get seconds() {
    return work.seconds;
  },
  get view() {
    return viewer.view;
  },
  get window() {
    return viewer.window;
  },
};

async function start() {
  startClient();
  wire();
  showTool("box");
  showWork();
  if (!document.createElement("canvas").getContext("webgl2")) {
    return say("This browser draws no WebGL 2, which the viewer needs. Switch on hardware acceleration.", "error");
  }
  await viewer.attach();
  await studies.watch();
}

start().catch(fail);
