// The page of `worldsim play`: shows what the server sends, sends what the viewer does.
//
// The server's messages: the length of a JSON text (uint32, little-endian), the text, then bytes: RGB frames of the
// dream and of the real env, or a video. Ours: JSON, {type, value}.

const PLOTTED_STEPS = 200;
const RECONNECT_MILLISECONDS = 2000;
const LABEL_MILLISECONDS = 1000; // how often a screen reader may hear of a new step

const element = (id) => document.getElementById(id);
const screens = { dream: element("dream"), real: element("real") };

let hello = null; // the introduction: env, size, controls
let view = null; // the newest view
let socket = null;
let lastPlotted = null; // step
let lastLabel = 0;
let uncertainties = [];
const shownAt = []; // times of the views of the last second that showed another step
const heldKeys = new Set();
const heldButtons = new Map(); // pointer -> action
let sliders = [];
let wanted = null; // the action sent last, as text

function connect() {
  const token = new URLSearchParams(location.search).get("token");
  const query = token === null ? "" : `?token=${encodeURIComponent(token)}`;
  socket = new WebSocket(`ws://${location.host}/dream${query}`);
  socket.binaryType = "arraybuffer";
  socket.onmessage = (message) => receive(message.data);
  socket.onclose = (closed) => {
    setStatus("Disconnected");
    showError(closed.reason || "The connection to worldsim is lost. Is it still running? This page tries again.");
    if (closed.code !== 1008) setTimeout(connect, RECONNECT_MILLISECONDS);
  };
}

function send(type, value) {
  if (socket.readyState !== WebSocket.OPEN) return;
  socket.send(JSON.stringify(value === undefined ? { type } : { type, value }));
}

function receive(data) {
  const length = new DataView(data).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  const payload = new Uint8Array(data, 4 + length);
  if (header.type === "hello") introduce(header);
  else if (header.type === "view") showView(header, payload);
  else if (header.type === "video") offerDownload(header.name, payload);
  else if (header.type === "error") showError(header.text);
}

// --- the introduction ------------------------------------------------------------------------------------------------

function introduce(header) {
  hello = header;
  hideError();
  wanted = null;
  element("title").textContent = `${hello.model}: a dream of ${hello.env}`;
  document.title = `worldsim: ${hello.model}`;
  for (const canvas of Object.values(screens)) {
    canvas.width = hello.width;
    canvas.height = hello.height;
  }
  element("real-figure").hidden = !hello.beside_real;
  element("policy").disabled = !hello.has_policy;
  if (!hello.has_policy) element("policy").title = "This model has no policy";
  element("sampling-steps").replaceChildren(...hello.sampling_steps.map((steps) => new Option(steps, steps)));
  element("sampling-steps").disabled = hello.sampling_steps.length < 2;
  if (hello.sampling_steps.length < 2) element("sampling-steps").title = "The model was trained for no others";
  buildControls();
  fitScreens();
}

function buildControls() {
  const controls = hello.controls;
  // Left of the others what goes left, right of them what goes right.
  const side = (one) => one.keys.includes("ArrowRight") - one.keys.includes("ArrowLeft");
  const ordered = [...(controls.buttons ?? [])].sort((one, other) => side(one) - side(other));
  const parts = controls.type === "discrete" ? ordered.map(actionButton) : controls.sliders.map(actionSlider);
  element("actions").replaceChildren(...parts);
  sliders = [...element("actions").querySelectorAll("input")];
  const used = controls.type === "discrete" ? controls.buttons : controls.sliders;
  const keys = used.filter((one) => one.keys.length).map((one) => `${one.keys.map(keyName).join(controls.type === "discrete" ? " + " : " / ")} ${one.name}`);
  element("help").textContent = keys.length ? `Keys: ${keys.join(", ")}; W A S D do the same as the arrows.` : "";
}

function actionButton(action) {
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.action = action.value;
  button.append(action.name);
  for (const key of action.keys) {
    const cap = document.createElement("kbd");
    cap.textContent = keyName(key);
    button.append(cap);
  }
  const release = (event) => {
    if (heldButtons.delete(event.pointerId)) sendDiscrete();
  };
  button.addEventListener("pointerdown", (event) => {
    button.setPointerCapture(event.pointerId);
    heldButtons.set(event.pointerId, action.value);
    sendDiscrete();
  });
  button.addEventListener("pointerup", release);
  button.addEventListener("pointercancel", release);
  button.addEventListener("contextmenu", (event) => event.preventDefault());
  // By keyboard or assistive technology: a click without a pointer taps the action.
  button.addEventListener("click", (event) => {
    if (event.detail !== 0) return;
    takeOver();
    sendAction(action.value);
    if (hello.controls.rest !== null) sendAction(hello.controls.rest);
  });
  return button;
}

function actionSlider(slider, index) {
  const label = document.createElement("label");
  const input = document.createElement("input");
  const output = document.createElement("output");
  input.type = "range";
  input.min = slider.low;
  input.max = slider.high;
  input.step = slider.step ?? "any";
  input.value = hello.controls.rest[index];
  const show = () => { output.textContent = written(Number(input.value), slider); };
  input.addEventListener("input", () => {
    show();
    takeOver();
    sendBox();
  });
  show();
  label.append(slider.name, input, output);
  return label;
}

function written(part, slider) {
  return part.toFixed(slider.step === null ? 2 : 0);
}

function keyName(code) {
  const arrows = { ArrowLeft: "\u2190", ArrowRight: "\u2192", ArrowUp: "\u2191", ArrowDown: "\u2193" };
  return arrows[code] ?? code.replace(/^(Key|Digit)/, "");
}

// --- what the viewer does --------------------------------------------------------------------------------------------

function takeOver() {
  if (view !== null && view.policy) send("policy", false);
}

function sendAction(value) {
  const text = JSON.stringify(value);
  if (text === wanted) return;
  wanted = text;
  send("action", value);
}

function sendDiscrete() {
  const pointed = [...heldButtons.values()].at(-1);
  let action = pointed;
  if (action === undefined) {
    const possible = hello.controls.buttons.filter((one) => one.keys.length && one.keys.every((key) => heldKeys.has(key)));
    possible.sort((one, other) => other.keys.length - one.keys.length);
    action = possible.length ? possible[0].value : hello.controls.rest;
  }
  if (action === null) {
    wanted = null; // no action does nothing: the last one goes on, and pressing it again counts
    return;
  }
  if (action !== hello.controls.rest) takeOver();
  sendAction(action);
}

function sendBox() {
  sendAction(sliders.map((input, index) => {
    const { low, high } = hello.controls.sliders[index];
    return Math.min(high, Math.max(low, Number(input.value)));
  }));
}

function turnSlider(code, isDown) {
  hello.controls.sliders.forEach((slider, index) => {
    const side = slider.keys.indexOf(code);
    if (side < 0) return;
    const other = heldKeys.has(slider.keys[1 - side]);
    const target = isDown ? side : other ? 1 - side : null;
    sliders[index].value = target === null ? hello.controls.rest[index] : target === 0 ? slider.low : slider.high;
    sliders[index].dispatchEvent(new Event("input"));
  });
}

const shortcuts = { KeyP: "play", KeyN: "step", KeyR: "restart", KeyZ: "rewind", KeyB: "save", KeyO: "policy", KeyC: "record" };

function isActionKey(code) {
  if (hello === null) return false;
  return (hello.controls.buttons ?? hello.controls.sliders).some((one) => one.keys.includes(code));
}

function pressedKey(event) {
  return hello?.controls.alternatives[event.code] ?? event.code;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || hello === null) return;
  const code = pressedKey(event);
  const target = event.target;
  // Sliders keep the arrows, lists keep all keys, a focused button keeps those that press it.
  if (target.matches("select") || (target.matches("input") && !event.code.startsWith("Key"))) return;
  if (target.matches("button") && (event.code === "Space" || event.code === "Enter")) return;
  if (isActionKey(code)) {
    event.preventDefault();
    if (event.repeat) return;
    heldKeys.add(code);
    if (hello.controls.type === "discrete") sendDiscrete();
    else turnSlider(code, true);
  } else if (shortcuts[event.code] !== undefined && !event.repeat) {
    event.preventDefault();
    element(shortcuts[event.code]).click();
  }
});

document.addEventListener("keyup", (event) => {
  const code = pressedKey(event);
  if (!heldKeys.delete(code)) return;
  if (hello.controls.type === "discrete") sendDiscrete();
  else turnSlider(code, false);
});

window.addEventListener("blur", () => {
  const codes = [...heldKeys];
  const nothingHeld = codes.length === 0 && heldButtons.size === 0;
  heldKeys.clear();
  heldButtons.clear();
  if (hello === null || nothingHeld) return;
  if (hello.controls.type === "discrete") sendDiscrete();
  else codes.forEach((code) => turnSlider(code, false));
});

document.addEventListener("visibilitychange", () => {
  if (document.hidden && view !== null && view.playing) send("pause");
});

element("play").addEventListener("click", () => send(view !== null && view.playing ? "pause" : "play"));
element("step").addEventListener("click", () => send("step"));
element("restart").addEventListener("click", () => send("restart"));
element("rewind").addEventListener("click", () => send("rewind"));
element("save").addEventListener("click", () => send("save"));
element("policy").addEventListener("click", () => send("policy", !view.policy));
element("record").addEventListener("click", () => send("record", view.recording === null));
element("speed").addEventListener("change", (event) => send("speed", Number(event.target.value)));
element("sampling-steps").addEventListener("change", (event) => send("sampling_steps", Number(event.target.value)));
element("temperature").addEventListener("input", (event) => {
  element("temperature-shown").textContent = Number(event.target.value).toFixed(2);
  send("temperature", Number(event.target.value));
});
element("error-close").addEventListener("click", hideError);
// A button that was clicked must not take the space bar from the dream.
document.addEventListener("pointerup", () => document.activeElement?.matches("button") && document.activeElement.blur());

// --- what the server shows -------------------------------------------------------------------------------------------

function showView(header, payload) {
  const now = performance.now();
  const isNew = view === null || header.step !== view.step;
  view = header;
  const size = hello.width * hello.height * 3;
  draw(screens.dream, payload.subarray(0, size));
  if (hello.beside_real) draw(screens.real, payload.subarray(size));
  send("shown", header.view);
  if (isNew && header.step > 0) shownAt.push(now);
  showRate();
  showFigures(now);
  showControls();
  showPoints();
  noteUncertainty();
  plotUncertainty();
}

function draw(canvas, rgb) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(hello.width, hello.height);
  for (let from = 0, to = 0; from < rgb.length; from += 3, to += 4) {
    image.data[to] = rgb[from];
    image.data[to + 1] = rgb[from + 1];
    image.data[to + 2] = rgb[from + 2];
    image.data[to + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

function figure(value, digits) {
  return value === null ? "\u2013" : value.toFixed(digits);
}

function showFigures(now) {
  element("figure-step").textContent = view.step;
  element("figure-return").textContent = figure(view.return, 2);
  element("figure-reward").textContent = figure(view.reward, 3);
  element("figure-survival").textContent = figure(view.survival, 3);
  element("figure-uncertainty").textContent = figure(view.uncertainty, 3);
  const status = statusText();
  setStatus(status);
  element("dream-status").textContent = `step ${view.step}, return ${figure(view.return, 1)}`;
  if (view.real !== null) {
    const ended = { terminated: ", ended", truncated: ", ended at its limit", "left behind": ", left behind: it cannot go back" };
    element("real-status").textContent = `step ${view.real.step}, return ${figure(view.real.return, 1)}${ended[view.real.ended] ?? ""}`;
  }
  if (now - lastLabel > LABEL_MILLISECONDS || !view.playing) {
    lastLabel = now;
    screens.dream.setAttribute("aria-label", `Dream of ${hello.env}, step ${view.step}: ${status}; ${actionName()}`);
    screens.real.setAttribute("aria-label", `The real ${hello.env}${view.real === null ? "" : `, step ${view.real.step}`}`);
  }
}

function showRate() {
  while (shownAt.length && shownAt[0] < performance.now() - 1000) shownAt.shift();
  element("figure-fps").textContent = shownAt.length;
}

function statusText() {
  if (view.ended === "terminated") return "The dream has ended: restart, rewind or return to a save point";
  if (view.ended === "truncated") return "The dream has reached the length of an episode: restart it";
  if (view.waits) return "Waits for your first action";
  if (!view.playing) return "Paused";
  return view.policy ? "The policy plays: press an action to take over" : "You play";
}

function actionName() {
  if (view.action === null) return "no action yet";
  if (hello.controls.type !== "discrete") {
    return `action ${view.action.map((part, index) => written(part, hello.controls.sliders[index])).join(", ")}`;
  }
  return `action ${hello.controls.buttons[view.action].name}`;
}

function setStatus(text) {
  if (element("status").textContent !== text) element("status").textContent = text;
}

function setCaption(button, text) {
  if (button.firstChild.textContent !== text) button.firstChild.textContent = text;
}

function showControls() {
  setCaption(element("play"), view.playing ? "Pause " : "Play ");
  element("play").disabled = view.ended !== null;
  element("step").disabled = view.ended !== null;
  element("rewind").disabled = view.rewinds === 0;
  element("policy").setAttribute("aria-pressed", view.policy);
  element("record").setAttribute("aria-pressed", view.recording !== null);
  const full = view.recording_full ? ", full" : "";
  setCaption(element("record"), view.recording === null ? "Record " : `Stop and save (${view.recording}${full}) `);
  element("speed").value = view.speed;
  element("sampling-steps").value = view.sampling_steps;
  const temperature = element("temperature");
  if (document.activeElement !== temperature) {
    temperature.value = view.temperature;
    element("temperature-shown").textContent = view.temperature.toFixed(2);
  }
  if (hello.controls.type === "discrete") {
    for (const button of element("actions").children) {
      button.classList.toggle("taken", Number(button.dataset.action) === view.action);
    }
  }
}

function showPoints() {
  const holder = element("points");
  const numbers = view.points.map((point) => String(point.number));
  for (const button of [...holder.children]) {
    if (!numbers.includes(button.dataset.number)) button.remove();
  }
  const present = new Set([...holder.children].map((button) => button.dataset.number));
  for (const point of view.points) {
    if (present.has(String(point.number))) continue;
    const picture = document.createElement("canvas");
    picture.width = hello.width;
    picture.height = hello.height;
    picture.getContext("2d").drawImage(screens.dream, 0, 0); // the view that lists a new point shows it, or just after it
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.number = point.number;
    button.setAttribute("aria-label", `Return to the save point at step ${point.step}`);
    button.append(picture, `step ${point.step}`);
    button.addEventListener("click", () => send("load", point.number));
    holder.append(button);
  }
}

function noteUncertainty() {
  if (lastPlotted !== null && view.step < lastPlotted) uncertainties = [];
  if (view.step !== lastPlotted && view.step > 0) uncertainties.push(view.uncertainty ?? 0);
  lastPlotted = view.step;
  uncertainties = uncertainties.slice(-PLOTTED_STEPS);
}

function plotUncertainty() {
  const canvas = element("plot");
  const ratio = devicePixelRatio;
  canvas.width = Math.round(canvas.clientWidth * ratio);
  canvas.height = Math.round(canvas.clientHeight * ratio);
  const context = canvas.getContext("2d");
  const highest = Math.max(...uncertainties, 1e-6);
  context.strokeStyle = getComputedStyle(canvas).color;
  context.lineWidth = 1.5 * ratio;
  context.beginPath();
  uncertainties.forEach((value, index) => {
    const x = (index / (PLOTTED_STEPS - 1)) * canvas.width;
    const y = canvas.height * (0.95 - 0.9 * (value / highest));
    if (index === 0) context.moveTo(x, y);
    else context.lineTo(x, y);
  });
  context.stroke();
  element("plot-highest").textContent = uncertainties.length ? highest.toFixed(3) : "0";
}

// Whole device pixels for each pixel of a frame, so that all are the same size and sharp. Two screens stand side by side
// or one above the other, whichever is larger.
function fitScreens() {
  if (hello === null) return;
  const ratio = devicePixelRatio;
  const count = hello.beside_real ? 2 : 1;
  const gap = 12;
  const width = element("screens").clientWidth;
  const height = Math.max(160, innerHeight * (innerWidth < 736 ? 0.5 : 0.62));
  const scaleFor = (across) => {
    const wide = ((width - gap * (across - 1)) / across) * (ratio / hello.width);
    const high = (height * across * ratio) / (count * hello.height);
    return Math.floor(Math.min(wide, high));
  };
  const scale = Math.max(1, scaleFor(1), scaleFor(count));
  for (const canvas of Object.values(screens)) {
    canvas.style.width = canvas.parentElement.style.width = `${(hello.width * scale) / ratio}px`;
    canvas.style.height = `${(hello.height * scale) / ratio}px`;
  }
}

window.addEventListener("resize", fitScreens);

function watchPixelRatio() { // it changes when the window moves to another monitor
  const same = matchMedia(`(resolution: ${devicePixelRatio}dppx)`);
  same.addEventListener("change", () => { fitScreens(); watchPixelRatio(); }, { once: true });
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", plotUncertainty);

function offerDownload(name, bytes) {
  const address = URL.createObjectURL(new Blob([bytes], { type: "video/mp4" }));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

function showError(text) {
  element("error-text").textContent = text;
  element("error").hidden = false;
}

function hideError() {
  element("error").hidden = true;
}

watchPixelRatio();
setInterval(showRate, 1000); // a dream that stands still sends nothing
connect();
