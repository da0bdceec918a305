// The page on which photos are labelled. A photo is sent as it is; the answer is a form with a COCO panoptic JSON and
// its PNG, of which all layers are drawn here.
const trial = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { byId, element, swatch } = viewer;
  const LAYERS = [
    { key: "image", name: "Image" },
    { key: "classes", name: "Classes" },
    { key: "segments", name: "Segments" },
    { key: "contours", name: "Contours" },
  ];
  const AT_ONCE = 2;
  const MAX_TRIES = 30;
  const HINT = "Point at the picture to see what is there.";
  const categories = new Map(data.categories.map((category) => [category.id, category]));
  const photos = [];
  const layers = new Set(["image", "segments", "contours"]);
  const hidden = new Set();
  let chosen = null;
  let shown = null; // { photo, map, byId } of the photo on the stage.
  let under = null;
  let place = { zoom: 1, x: 0.5, y: 0.5 };

  // ---- asking the server

  function tokenHeader() {
    const token = data.needsToken ? byId("token").value : "";
    return token ? { Authorization: `Bearer ${token}` } : {};
  }
  const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
  async function ask(photo) {
    for (let attempt = 1; ; attempt++) {
      const body = new FormData();
      body.append("image", photo.file, photo.file.name || "image");
      const response = await fetch("v1/panoptic?format=coco", { method: "POST", body, headers: tokenHeader() });
      if (response.ok) return response.formData();
      if (response.status === 503 && attempt < MAX_TRIES) {
        await pause(Number(response.headers.get("Retry-After")) || 1);
        continue;
      }
      if (response.status === 401 && data.needsToken) byId("token").focus();
      const { error } = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
      throw new Error(error);
    }
  }
  async function label(photo) {
    photo.state = "busy";
    renderStrip();
    showState();
    try {
      if (photo.file.size > data.maxBytes)
        throw new Error(`${photo.name} is larger than ${Math.round(data.maxBytes / 2 ** 20)} MiB`);
      const form = await ask(photo);
      photo.document = JSON.parse(await form.get("panoptic.json").text());
      photo.png = form.get(photo.document.annotations[0].file_name);
      photo.state = "done";
    } catch (error) {
      photo.state = "fault";
      photo.error = error instanceof TypeError ? "the server does not answer" : error.message;
    }
    renderStrip();
    if (photo === chosen) await show(photo);
    next();
  }
  function next() {
    const busy = photos.filter((photo) => photo.state === "busy").length;
    const waiting = photos.filter((photo) => photo.state === "waiting");
    for (const photo of waiting.slice(0, AT_ONCE - busy)) label(photo);
  }
  function add(files) {
    const added = [...files].map((file) => ({
      file, name: file.name || "pasted image", url: URL.createObjectURL(file), state: "waiting",
    }));
    if (!added.length) return;
    photos.push(...added);
    document.body.classList.remove("empty");
    byId("work").hidden = false;
    choose(added[0]);
    next();
  }

  // ---- what is on the stage

  async function choose(photo) {
    chosen = photo;
    place = { zoom: 1, x: 0.5, y: 0.5 };
    under = null;
    renderStrip();
    await show(photo);
  }
  async function show(photo) {
    const map = photo.state === "done" ? await mapOf(photo) : null;
    if (photo !== chosen) return;
    shown = { photo, map, byId: map ? new Map(segmentsOf(photo).map((segment) => [segment.id, segment])) : new Map() };
    const image = element("img", { "data-name": "image", alt: photo.name, draggable: "false", src: photo.url });
    await image.decode().catch(() => image.remove()); // A browser need not know TIFF.
    if (photo !== chosen) return;
    shown.size = map ? [map.width, map.height] : [image.naturalWidth || 4, image.naturalHeight || 3];
    byId("stage").style.setProperty("--shape", shown.size[0] / shown.size[1]);
    byId("pane").replaceChildren(...(image.naturalWidth ? [image] : []));
    byId("details").textContent = map ? HINT : "";
    byId("name").textContent = photo.name;
    for (const id of ["save-png", "save-json", "save-overlay"]) byId(id).disabled = !map;
    renderLayers();
    renderLegend();
    showState();
    picture.draw();
  }
  const segmentsOf = (photo) => photo.document.annotations[0].segments_info;
  async function mapOf(photo) {
    try {
      return await segments.readIds(photo.png, new Set(segmentsOf(photo).map((segment) => segment.id)));
    } catch (error) {
      photo.state = "fault";
      photo.error = error.message;
      renderStrip();
      return null;
    }
  }
  function showState() {
    const state = byId("state");
    const texts = { waiting: "waiting for the others", busy: "labelling", fault: chosen && chosen.error, done: "" };
    state.textContent = chosen ? texts[chosen.state] : "";
    state.classList.toggle("busy", Boolean(chosen) && chosen.state === "busy");
    state.classList.toggle("fault", Boolean(chosen) && chosen.state === "fault");
  }
  const isShown = (segment) => !hidden.has(segment.category_id);
  const isObject = (segment) => Boolean(categories.get(segment.category_id).isthing);
  const DRAW = {
    classes: () =>
      segments.drawFill(shown.map, shown.byId, (s) => (isShown(s) ? categories.get(s.category_id).color : null),
        !hidden.has(segments.VOID)),
    segments: () =>
      segments.drawFill(shown.map, shown.byId, (s) => (isShown(s) ? s.color : null), !hidden.has(segments.VOID)),
    contours: () => segments.drawContours(shown.map, shown.byId, isShown, isObject),
  };
  function renderLayers() {
    const pane = byId("pane");
    LAYERS.forEach((layer, index) => {
      const wanted = layers.has(layer.key);
      byId("layers").querySelector(`[data-layer=${layer.key}]`).checked = wanted;
      let drawn = pane.querySelector(`[data-name=${layer.key}]`);
      if (wanted && !drawn && layer.key in DRAW && shown && shown.map) {
        drawn = DRAW[layer.key]();
        drawn.dataset.name = layer.key;
        pane.append(drawn);
      }
      if (!drawn) return;
      drawn.hidden = !wanted;
      drawn.style.zIndex = index;
      drawn.style.opacity = layer.key === "image" || layer.key === "contours" ? 1 : byId("opacity").value / 100;
    });
  }
  function redraw() {
    under = null;
    for (const canvas of byId("pane").querySelectorAll("canvas")) canvas.remove();
    renderLayers();
    renderLegend();
  }
  function toggleLayer(key) {
    if (!layers.delete(key)) layers.add(key);
    renderLayers();
  }
  function toggleClass(id) {
    if (!hidden.delete(id)) hidden.add(id);
    redraw();
  }

  // ---- legend

  function renderLegend() {
    const list = byId("legend");
    const focused = list.contains(document.activeElement) ? document.activeElement.dataset.category : null;
    if (!shown || !shown.map) {
      list.replaceChildren();
      byId("summary").textContent = "";
      return;
    }
    const pixels = shown.map.ids.length;
    const rows = new Map();
    for (const segment of shown.byId.values()) {
      const row = rows.get(segment.category_id) || { count: 0, area: 0 };
      rows.set(segment.category_id, { count: row.count + 1, area: row.area + segment.area });
    }
    const covered = [...rows.values()].reduce((sum, row) => sum + row.area, 0);
    const items = [...rows].sort((a, b) => b[1].area - a[1].area).map(([id, row]) => {
      const category = categories.get(id);
      return legendItem(id, swatch(category.color), category.name, category.isthing ? row.count : "", row.area / pixels);
    });
    if (covered < pixels) {
      const mark = element("span", { class: "swatch void", "aria-hidden": "true" });
      items.push(legendItem(segments.VOID, mark, "void", "", 1 - covered / pixels));
    }
    list.replaceChildren(...items);
    if (focused) list.querySelector(`[data-category="${focused}"]`)?.focus();
    const objects = [...shown.byId.values()].filter(isObject).length;
    byId("summary").textContent =
      `${shown.map.width} × ${shown.map.height} pixels, ${objects} object${objects === 1 ? "" : "s"}, `
      + `${rows.size} class${rows.size === 1 ? "" : "es"}`;
  }
  function share(value) {
    return value < 0.001 ? "< 0.1 %" : `${(100 * value).toFixed(1)} %`;
  }
  function legendItem(id, mark, name, count, part) {
    const button = element("button", { type: "button", "aria-pressed": String(hidden.has(id)), "data-category": id,
      title: hidden.has(id) ? `Show ${name}` : `Hide ${name}` },
      mark, element("span", { class: "label" }, name), element("span", { class: "count" }, String(count)),
      element("span", { class: "share" }, share(part)));
    button.addEventListener("click", () => toggleClass(id));
    return element("li", {}, button);
  }

  // ---- the segment under the pointer

  function describe(at) {
    if (!at || !shown || !shown.map) return;
    const { map } = shown;
    const id = map.ids[Math.floor(at.y * map.height) * map.width + Math.floor(at.x * map.width)];
    if (under && under.id === id) return;
    under = shown.byId.get(id) || { id, category_id: segments.VOID };
    const pane = byId("pane");
    for (const canvas of pane.querySelectorAll("[data-name=under]")) canvas.remove();
    for (const button of byId("legend").querySelectorAll("button"))
      button.classList.toggle("under", button.dataset.category === String(under.category_id));
    if (id === segments.VOID) {
      byId("details").replaceChildren(element("strong", {}, "void"),
        element("span", { class: "muted" }, "belongs to nothing that was found"));
      return;
    }
    const canvas = segments.drawOne(map, under);
    canvas.dataset.name = "under";
    const [left, top, width, height] = under.bbox;
    Object.assign(canvas.style, { inset: "auto", left: `${left}px`, top: `${top}px`, width: `${width}px`,
      height: `${height}px`, zIndex: LAYERS.length });
    pane.append(canvas);
    const category = categories.get(under.category_id);
    const parts = [element("strong", {}, swatch(under.color), category.name)];
    if (under.score !== undefined && category.isthing)
      parts.push(element("span", {}, `score ${(100 * under.score).toFixed(1)} %`));
    parts.push(element("span", {}, `${under.area.toLocaleString("en")} pixels (${share(under.area / map.ids.length)})`));
    parts.push(element("span", { class: "muted" }, `segment ${under.id}`));
    byId("details").replaceChildren(...parts);
  }

  // ---- the photos

  function renderStrip() {
    const strip = byId("strip");
    strip.hidden = photos.length < 2;
    photos.forEach((photo, index) => {
      let thumb = strip.children[index];
      if (!thumb) {
        const image = element("img", { src: photo.url, alt: "", loading: "lazy" });
        thumb = element("button", { type: "button", class: "thumb" }, image, element("span", { class: "mark" }));
        thumb.addEventListener("click", () => choose(photo));
        strip.append(thumb);
      }
      const marks = { waiting: "…", busy: "…", fault: "!", done: "" };
      const words = { waiting: "waits", busy: "is being labelled", fault: "failed", done: "is labelled" };
      thumb.lastChild.textContent = marks[photo.state];
      thumb.lastChild.hidden = !marks[photo.state];
      thumb.setAttribute("aria-label", `${photo.name} ${words[photo.state]}`);
      thumb.setAttribute("aria-current", String(photo === chosen));
    });
  }
  function step(by) {
    if (photos.length < 2) return;
    const index = (photos.indexOf(chosen) + by + photos.length) % photos.length;
    choose(photos[index]);
    byId("strip").children[index].scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  // ---- downloads

  const stem = () => shown.photo.name.replace(/\.[^.]*$/, "");
  function save(blob, name) {
    const link = element("a", { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  }
  function saveDocument() {
    const content = structuredClone(shown.photo.document);
    content.annotations[0].file_name = `${stem()}_panoptic.png`;
    save(new Blob([JSON.stringify(content)], { type: "application/json" }), `${stem()}_panoptic.json`);
  }
  function saveOverlay() {
    const canvas = element("canvas");
    [canvas.width, canvas.height] = shown.size;
    const context = canvas.getContext("2d");
    for (const { key } of LAYERS) {
      const drawn = byId("pane").querySelector(`[data-name=${key}]`);
      if (!drawn || drawn.hidden) continue;
      context.globalAlpha = Number(drawn.style.opacity);
      context.drawImage(drawn, 0, 0, canvas.width, canvas.height);
    }
    canvas.toBlob((blob) => save(blob, `${stem()}_overlay.png`), "image/png");
  }

  // ---- start

  async function addExample(number) {
    const response = await fetch(`v1/examples/${number}`);
    if (response.ok) add([new File([await response.blob()], `street_${number + 1}.jpg`, { type: "image/jpeg" })]);
  }
  const picture = viewer.panZoom({
    stage: byId("stage"),
    pane: byId("pane"),
    size: () => (shown ? shown.size : null),
    place: () => place,
    move: (zoom, x, y) => {
      place = { zoom, x, y };
      picture.draw();
    },
    point: describe,
  });
  function start() {
    LAYERS.forEach((layer, index) => {
      const box = element("input", { type: "checkbox", "data-layer": layer.key });
      box.checked = layers.has(layer.key);
      box.addEventListener("change", () => toggleLayer(layer.key));
      byId("layers").append(element("label", { title: `${layer.name} (${index + 1})` }, box, layer.name));
    });
    byId("opacity").addEventListener("input", renderLayers);
    byId("zoom-in").addEventListener("click", () => picture.zoomAround(1.5));
    byId("zoom-out").addEventListener("click", () => picture.zoomAround(1 / 1.5));
    byId("zoom-fit").addEventListener("click", picture.fit);
    byId("choose").addEventListener("click", () => byId("files").click());
    byId("files").addEventListener("change", (event) => {
      add(event.target.files);
      event.target.value = "";
    });
    for (const button of document.querySelectorAll("[data-example]"))
      button.addEventListener("click", () => addExample(Number(button.dataset.example)));
    byId("save-png").addEventListener("click", () => save(shown.photo.png, `${stem()}_panoptic.png`));
    byId("save-json").addEventListener("click", saveDocument);
    byId("save-overlay").addEventListener("click", saveOverlay);
    // Photos may be dropped anywhere: a miss would make the browser leave the page.
    for (const name of ["dragenter", "dragover", "dragleave", "drop"])
      document.addEventListener(name, (event) => {
        event.preventDefault();
        byId("drop").classList.toggle("over", name === "dragenter" || name === "dragover");
        if (name === "drop") add(event.dataTransfer.files);
      });
    document.addEventListener("paste", (event) => add(event.clipboardData.files));
    document.addEventListener("keydown", (event) => {
      if (byId("work").hidden && event.key !== "o") return;
      const actions = {
        ...picture.keys,
        ArrowLeft: () => step(-1),
        ArrowRight: () => step(1),
        o: () => byId("files").click(),
        h: () => under && toggleClass(under.category_id),
        a: () => {
          hidden.clear();
          redraw();
        },
      };
      LAYERS.forEach((layer, index) => (actions[index + 1] = () => toggleLayer(layer.key)));
      viewer.onKey(event, actions);
    });
    if (data.needsToken) {
      const input = byId("token");
      input.value = sessionStorage.getItem("token") || "";
      input.addEventListener("change", () => {
        sessionStorage.setItem("token", input.value);
        for (const photo of photos) if (photo.state === "fault") photo.state = "waiting";
        next();
      });
    }
  }
  start();
  return { get photos() { return photos; }, get shown() { return shown; } };
})();
