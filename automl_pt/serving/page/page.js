"use strict";
// Names of classes and files are anybody's text: they are only ever given to textContent, with what would
// hide or reverse them shown as an escape.

const TOP = 5;
const KEPT = 50;
const LISTED = 1000;
const WHY = {
  "no class is likely": "no class is likely enough",
  "unlike known images": "it is unlike the images that this model knows",
};
// what browsers show; of other files the server sends a picture with its answer
const SHOWN = /^image\/(apng|avif|bmp|gif|jpeg|png|svg\+xml|webp)$/;
const find = (id) => document.getElementById(id);
let limits = null;
let queue = Promise.resolve();

function printable(text) {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (letter) => `\\u{${letter.codePointAt(0).toString(16)}}`);
}

function element(tag, text, kind) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = printable(text);
  if (kind) made.className = kind;
  return made;
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;

async function about() {
  const response = await fetch("/model");
  const model = await response.json();
  limits = model.limits;
  find("title").textContent = `Image classifier of ${model.classes.length} classes`;
  const accuracy = model.metrics.val_accuracy;
  const known = typeof accuracy === "number" ? `, right on ${percent(accuracy)} of its validation images` : "";
  const heat = model.temperature === 1 ? "" : `; probabilities at temperature ${model.temperature.toFixed(3)}`;
  const rule = model.unsure?.measured;
  const sure = rule && rule.accuracy_when_sure !== null
    ? `; sure of ${percent(rule.sure_share)} of its ${rule.split === "test" ? "test" : "validation"} images, and right on ${percent(rule.accuracy_when_sure)} of those`
    : "";
  find("about").textContent = `${model.backbone} at ${model.image_size} px${known}${sure}${heat}`;
  find("limits").textContent = `up to ${Math.floor(limits.bytes / 1048576) || 1} MiB each; they go to this server only`;
  const list = find("classes");
  list.hidden = false;
  list.querySelector("summary").textContent = "All classes";
  for (const name of model.classes.slice(0, LISTED)) {
    const item = element("li");
    item.append(element("bdi", name));
    list.querySelector("ul").append(item);
  }
}

function bars(top) {
  const list = element("ol", undefined, "bars");
  for (const { class: name, probability } of top) {
    const item = element("li");
    const bar = element("i");
    bar.style.width = `${100 * probability}%`;
    const label = element("span");
    label.append(element("bdi", name));
    label.title = printable(name);
    item.append(bar, label, element("b", percent(probability)));
    list.append(item);
  }
  return list;
}

function show(image, content) {
  const address = URL.createObjectURL(content);
  image.onload = () => URL.revokeObjectURL(address);
  image.onerror = () => {
    URL.revokeObjectURL(address);
    bare(image);
  };
  image.src = address;
}

function bare(image) {
  image.parentNode.classList.add("bare");
  image.remove();
}

// The page's policy allows pictures that it reads itself, and no data addresses.
function fromDataURI(text) {
  const bytes = Uint8Array.from(atob(text.split(",", 2)[1]), (letter) => letter.charCodeAt(0));
  return new Blob([bytes], { type: "image/jpeg" });
}

function card(file) {
  const item = element("li", undefined, "result");
  const image = element("img");
  image.alt = "";
  if (SHOWN.test(file.type)) show(image, file);
  const side = element("div");
  const title = element("h2");
  title.append(element("bdi", file.name));
  side.append(title);
  item.append(image, side);
  find("results").prepend(item);
  while (find("results").children.length > KEPT) find("results").lastChild.remove();
  return side;
}

async function ask(file) {
  if (limits && file.size > limits.bytes) throw new Error(`larger than ${limits.bytes} bytes`);
  const form = new FormData();
  form.append("image", file, file.name);
  const preview = SHOWN.test(file.type) ? "" : "&preview=1";
  const response = await fetch(`/predict?top=${TOP}${preview}`, { method: "POST", body: form });
  const answer = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

// What is said above the bars of an unsure answer: why, and which classes remain.
function verdict({ unsure, candidates }) {
  const line = element("p", undefined, "unsure");
  line.append(element("b", "Unsure"), ": ");
  if (unsure !== "several classes") {
    line.append(WHY[unsure] ?? printable(unsure));
    return line;
  }
  candidates.slice(0, TOP).forEach((name, place) => {
    if (place) line.append(place === Math.min(candidates.length, TOP) - 1 ? " or " : ", ");
    line.append(element("bdi", name));
  });
  if (candidates.length > TOP) line.append(`, or one of ${candidates.length - TOP} more`);
  return line;
}

async function classify(file) {
  const side = card(file);
  const image = side.parentNode.querySelector("img");
  try {
    const answer = await ask(file);
    if (answer.preview) show(image, fromDataURI(answer.preview));
    else if (!SHOWN.test(file.type)) bare(image);
    if (answer.unsure) {
      side.append(verdict(answer));
      side.parentNode.classList.add("doubtful");
    }
    side.append(bars(answer.top));
  } catch (error) {
    if (!SHOWN.test(file.type)) bare(image);
    side.append(element("p", `Not classified: ${error.message}`, "error"));
  }
}

function take(files) {
  // one after the other, so that many dropped files are one request at a time
  for (const file of files) {
    queue = queue.then(() => {
      find("status").textContent = `Classifying ${printable(file.name)}`;
      return classify(file);
    });
  }
  queue = queue.then(() => { find("status").textContent = ""; });
}

find("files").addEventListener("change", (event) => {
  take([...event.target.files]);
  event.target.value = "";
});
document.addEventListener("paste", (event) => take([...event.clipboardData.files]));
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    find("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") take([...event.dataTransfer.files]);
  });
}
about().catch((error) => { find("status").textContent = `The server does not answer: ${error.message}`; });
