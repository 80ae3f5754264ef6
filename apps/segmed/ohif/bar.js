// The tool bar at the foot of the viewer.

import { root } from './server.js';

const TOOLS = [
  ['box', 'Box', 'Draw a box around the object, in the plane in which the slices were taken'],
  ['foreground', 'Point +', 'Click into the object'],
  ['background', 'Point −', 'Click beside the object, where the mask is too large'],
  ['lasso', 'Lasso', 'Draw around the object, in any view'],
  ['into', 'Scribble +', 'Draw a line inside the object, in any view'],
  ['beside', 'Scribble −', 'Draw a line through what does not belong to the object'],
];
const STEPS = [
  ['fresh', 'New object', 'Finish this object; the next box or click begins another one of the same label'],
  ['undo', 'Undo', 'Take back the last prompt or stroke, also those of the MONAI Label panel'],
  ['redo', 'Redo', 'Bring it back'],
  ['auto', 'Auto', 'Run the model chosen on the right through the whole series'],
];
const STOPS = [
  ['keep', 'Stop', 'End after this slice; what was found stays and can be undone'],
  ['drop', 'Discard', 'End after this slice; everything is as before'],
];
const PAINT = [
  ['brush', 'Brush', 'Paint with the label'],
  ['eraser', 'Eraser', 'Rub out'],
];
const ENDS = [
  ['next', 'Next case', 'Open the case that is worth most to label next'],
  ['save', 'Save', 'Write the result to the PACS as DICOM SEG, and to the server as finished label'],
];

export class Bar {
  /** @param {Object<string, function>} on what to do, by name of the button or field */
  constructor(on) {
    this.element = make('div', { id: 'segmed', role: 'toolbar', ariaLabel: 'SegMed' });
    this.buttons = {};
    const add = list =>
      list.forEach(([name, text, title]) => {
        const button = make('button', { type: 'button', id: `segmed-${name}`, textContent: text, title });
        button.onclick = () => on[name]();
        this.buttons[name] = this.element.appendChild(button);
      });
    const field = (name, kind, title, properties = {}) => {
      const input = make(kind, { id: `segmed-${name}`, title, ariaLabel: title, ...properties });
      input.onchange = () => on[name]?.(input.value);
      return this.element.appendChild(input);
    };
    this.element.append(make('b', { textContent: 'SegMed' }));
    this.model = field('model', 'select', 'Model of the box and the clicks');
    this.label = field('label', 'input', 'Label', { maxLength: 64, spellcheck: false });
    this.labels = this.element.appendChild(make('datalist', { id: 'segmed-labels' }));
    this.label.setAttribute('list', this.labels.id);
    add(TOOLS);
    add(STEPS.slice(0, 1));
    const take = 'Overwrite other labels: new objects take voxels of labels that are there already';
    this.overwrite = field('overwrite', 'input', take, { type: 'checkbox' });
    this.element.appendChild(named('Overwrite', this.overwrite));
    add(PAINT);
    this.size = field('size', 'input', 'Size of brush and eraser in mm', { type: 'range', min: 1, max: 50, value: 8 });
    this.element.appendChild(named('Size', this.size));
    add(STEPS.slice(1));
    this.automatic = field('automatic', 'select', 'Model of Auto');
    const auto = this.element.appendChild(make('span', { id: 'segmed-run' })); // which stay together
    auto.append(this.buttons.auto, this.automatic);
    add(ENDS);
    add(STOPS);
    this.status = this.element.appendChild(make('output', { id: 'segmed-status' }));
    this.elsewhere = this.element.appendChild(make('a', { id: 'segmed-elsewhere', href: root.href, hidden: true }));
    this.elsewhere.textContent = 'Single images are labelled on the web page';
    this.user = this.element.appendChild(make('span', { id: 'segmed-user', hidden: true }));
    const leave = { type: 'button', id: 'segmed-logout', textContent: 'Log out', hidden: true };
    this.leave = this.element.appendChild(make('button', { ...leave, title: 'End the session; your work stays' }));
    this.leave.onclick = () => on.leave();
    // keys typed here are not shortcuts of OHIF
    this.element.addEventListener('keydown', event => event.stopPropagation());
  }

  /** Offer models and labels of the server. */
  offer({ models, labels }) {
    const prompted = models.filter(model => model.type === 'prompt');
    const volume = prompted.filter(model => model.dimension === 3);
    const automatic = models.filter(model => model.type === 'automatic');
    fill(
      this.model,
      prompted.map(model => [model.name, model.name, model.description]),
    );
    fill(this.automatic, [
      ...automatic.map(model => [model.name, model.name, model.description]),
      ...volume.map(model => [model.name, `${model.name}, from the prompt`, model.description]),
    ]);
    this.isAutomatic = new Set(automatic.map(model => model.name));
    this.labels.replaceChildren(...labels.map(label => make('option', { value: label })));
    this.label.value ||= labels[0] ?? 'object';
  }

  /** Show who has logged in; nobody where nobody has to. */
  greet({ user, role }) {
    this.user.textContent = user && `${user} (${role})`;
    this.user.hidden = this.leave.hidden = !user;
  }

  /** Show what can be pressed now. */
  update({ ready, canUndo, canRedo, tool, busy, message, progress }) {
    for (const button of Object.values(this.buttons)) {
      button.disabled = !ready;
    }
    this.buttons.undo.disabled ||= !canUndo;
    this.buttons.redo.disabled ||= !canRedo;
    this.buttons.auto.disabled ||= !this.automatic.value;
    for (const [name] of STOPS) {
      this.buttons[name].hidden = !progress;
    }
    for (const name of ['box', 'foreground', 'background', 'lasso', 'into', 'beside', 'brush', 'eraser']) {
      this.buttons[name].ariaPressed = String(name === tool);
    }
    this.element.ariaBusy = String(busy);
    this.status.textContent = busy ? progress || 'Working …' : message;
    this.status.title = message;
  }
}

const make = (kind, properties) => Object.assign(document.createElement(kind), properties);

/** A field with its name beside it. */
function named(text, input) {
  const one = make('label', { title: input.title });
  one.append(...(input.type === 'checkbox' ? [input, text] : [text, input]));
  return one;
}

function fill(select, options) {
  const before = select.value;
  select.replaceChildren(...options.map(([value, text, title]) => make('option', { value, textContent: text, title })));
  if (options.some(([value]) => value === before)) {
    select.value = before;
  }
}
