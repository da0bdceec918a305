// The page keeps its whole state in the part of its address behind "#", so that a view can be shared as a link.
const report = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { byId, element, swatch } = viewer;
  const LAYERS = [
    { key: "image", name: "Image", suffix: ".jpg" },
    { key: "gt", name: "Truth", suffix: "_gt.png" },
    { key: "pred", name: "Prediction", suffix: "_pred.png" },
    { key: "error", name: "Errors", suffix: "_error.png" },
  ];
  const COLUMNS = [
    { key: "name", name: "Class", text: true },
    { key: "pq", name: "PQ" },
    { key: "sq", name: "SQ", bar: "--sq" },
    { key: "rq", name: "RQ", bar: "--rq" },
    { key: "pq_dagger", name: "PQ†" },
    { key: "iou", name: "IoU" },
    { key: "tp", name: "TP", count: true },
    { key: "fp", name: "FP", count: true },
    { key: "fn", name: "FN", count: true },
  ];
  const DEFAULTS = {
    sort: "", down: "", class: "all", order: "worst", image: "", layers: "image,error",
    opacity: "75", zoom: "", x: "", y: "",
  };
  const details = new Map();
  let state = { ...DEFAULTS };
  let drawn = {};

  const percent = (value) => (value === null ? "–" : (100 * value).toFixed(1));
  const isKnown = (row, key) => row[key] !== null && (row.isCounted || !["pq", "sq", "rq"].includes(key));

  // ---- state and address

  function readAddress() {
    const given = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
    const next = { ...DEFAULTS };
    for (const key of Object.keys(DEFAULTS)) if (key in given) next[key] = given[key];
    const exists = next.class in data.worst;
    if (!exists) next.class = "all";
    if (next.image && !(next.image in data.images)) next.image = "";
    return next;
  }
  function change(changes, push = false) {
    state = { ...state, ...changes };
    const parts = new URLSearchParams();
    for (const [key, value] of Object.entries(state)) if (value !== DEFAULTS[key]) parts.set(key, value);
    const address = parts.toString() ? `#${parts}` : location.pathname + location.search;
    if (push) history.pushState(null, "", address);
    else history.replaceState(null, "", address);
    render();
  }

  // ---- table of classes

  function renderClasses() {
    const table = byId("classes");
    const heading = element("tr");
    for (const column of COLUMNS) {
      const cell = element("th", { scope: "col" });
      const button = element("button", { type: "button" }, column.name);
      button.addEventListener("click", () => {
        const down = state.sort === column.key ? !state.down : !column.text;
        change({ sort: column.key, down: down ? "1" : "" });
        byId("classes").querySelectorAll("thead button")[COLUMNS.indexOf(column)].focus();
      });
      if (state.sort === column.key) cell.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      cell.append(button);
      heading.append(cell);
    }
    table.tHead.replaceChildren(heading);
    const rows = data.classes.map((row, index) => ({ row, index }));
    if (state.sort) rows.sort((a, b) => compareRows(a.row, b.row));
    table.tBodies[0].replaceChildren(...rows.map(({ row, index }) => classRow(row, String(index))));
  }
  function compareRows(a, b) {
    const key = state.sort;
    if (key === "name") return (state.down ? -1 : 1) * a.name.localeCompare(b.name);
    // What has no value stays at the end, whichever way the rest is sorted.
    if (isKnown(a, key) !== isKnown(b, key)) return isKnown(a, key) ? -1 : 1;
    return (state.down ? -1 : 1) * (a[key] - b[key]);
  }
  function classRow(row, index) {
    const made = element("tr");
    if (state.class === index) made.setAttribute("aria-current", "true");
    for (const column of COLUMNS) {
      const cell = element("td");
      if (column.text) cell.append(className(row, index));
      else if (column.count) cell.append(String(row[column.key]));
      else if (!isKnown(row, column.key)) cell.append("–");
      else if (column.bar) cell.append(bar(row[column.key], column.bar));
      else cell.append(percent(row[column.key]));
      made.append(cell);
    }
    return made;
  }
  function className(row, index) {
    if (!(index in data.worst)) return element("span", { class: "muted" }, swatch(row.color), ` ${row.name}`);
    const button = element("button", { type: "button", class: "class-link" }, swatch(row.color), row.name);
    button.addEventListener("click", () => {
      change({ class: index }, true);
      byId("gallery-heading").focus({ preventScroll: true });
      byId("gallery-heading").scrollIntoView();
    });
    return button;
  }
  function bar(value, color) {
    const fill = element("span", { class: "fill" });
    fill.style.width = `${100 * value}%`;
    fill.style.background = `var(${color})`;
    const track = element("span", { class: "track", "aria-hidden": "true" }, fill);
    return element("span", { class: "bar" }, track, element("span", { class: "value" }, percent(value)));
  }

  // ---- confusion

  function renderConfusion() {
    const last = data.classes.length;
    const names = [...data.classes.map((row) => row.name)];
    const used = (index) =>
      data.confusion[index].some(Boolean) || data.confusion.some((row) => row[index]);
    const shown = [...names.keys()].filter(used);
    const head = element("tr", {}, element("th", { scope: "col" }, "true \\ predicted"));
    for (const index of [...shown, last]) {
      const name = index === last ? "missed" : names[index];
      head.append(element("th", { scope: "col" }, element("span", {}, name)));
    }
    const body = element("tbody");
    for (const index of [...shown, last]) {
      const name = index === last ? "invented" : names[index];
      const row = element("tr", {}, element("th", { scope: "row" }, name));
      const total = data.confusion[index].reduce((sum, count) => sum + count, 0);
      for (const column of [...shown, last]) {
        const count = data.confusion[index][column];
        const cell = element("td", {}, count ? String(count) : "");
        if (count) {
          const strength = 0.12 + 0.6 * (count / total);
          cell.style.background = `rgba(var(${index === column ? "--good" : "--bad"}), ${strength.toFixed(3)})`;
          cell.title = `${count} of ${total} ${name}`;
        }
        row.append(cell);
      }
      body.append(row);
    }
    byId("confusion").replaceChildren(element("thead", {}, head), body);
  }

  // ---- gallery

  function renderGalleryControls() {
    const select = byId("gallery-class");
    select.append(element("option", { value: "all" }, "all classes"));
    data.classes.forEach((row, index) => {
      if (index in data.worst) select.append(element("option", { value: String(index) }, row.name));
    });
    select.addEventListener("change", () => change({ class: select.value }, true));
    for (const button of document.querySelectorAll("[data-order]"))
      button.addEventListener("click", () => change({ order: button.dataset.order }, true));
    for (const key of ["error-key", "viewer-key"])
      for (const error of data.errors)
        byId(key).append(element("li", {}, swatch(error.color), error.name));
  }
  function score(number) {
    const { pq, classes } = data.images[number];
    if (state.class !== "all") {
      const own = classes[state.class];
      return own ? `PQ ${percent(own[3])}, ${own[0]} found, ${own[2]} missed, ${own[1]} false` : "";
    }
    const total = (place) => Object.values(classes).reduce((sum, own) => sum + own[place], 0);
    return `PQ ${percent(pq)}, ${total(0)} found, ${total(2)} missed, ${total(1)} false`;
  }
  const chosen = () => data[state.order === "best" ? "best" : "worst"][state.class] || [];
  function renderGallery() {
    byId("gallery-class").value = state.class;
    for (const button of document.querySelectorAll("[data-order]"))
      button.setAttribute("aria-pressed", String(button.dataset.order === state.order));
    const tiles = chosen().map((number) => {
      const [width, height] = data.images[number].size;
      const name = String(data.images[number].id);
      const picture = element("img", {
        src: `pictures/${number}_thumb.jpg`, loading: "lazy", width, height, alt: `Errors in ${name}`,
      });
      const caption = element("span", { class: "caption" }, name, element("span", { class: "muted" }, score(number)));
      const tile = element("button", { type: "button", class: "tile", "data-image": number }, picture, caption);
      tile.addEventListener("click", () => change({ image: String(number), zoom: "", x: "", y: "" }, true));
      return tile;
    });
    byId("gallery").replaceChildren(...tiles);
  }

  // ---- viewer

  const active = () => state.layers.split(",").filter(Boolean);
  function toggleLayer(key) {
    const now = new Set(active());
    if (now.has(key)) now.delete(key);
    else now.add(key);
    change({ layers: LAYERS.filter((layer) => now.has(layer.key)).map((layer) => layer.key).join(",") });
  }
  function renderViewerControls() {
    LAYERS.forEach((layer, index) => {
      const box = element("input", { type: "checkbox", "data-layer": layer.key });
      box.addEventListener("change", () => toggleLayer(layer.key));
      byId("layers").append(element("label", { title: `${layer.name} (${index + 1})` }, box, layer.name));
    });
    byId("opacity").addEventListener("input", (event) => change({ opacity: event.target.value }));
    byId("zoom-in").addEventListener("click", () => picture.zoomAround(1.5));
    byId("zoom-out").addEventListener("click", () => picture.zoomAround(1 / 1.5));
    byId("zoom-fit").addEventListener("click", picture.fit);
    byId("previous").addEventListener("click", () => step(-1));
    byId("next").addEventListener("click", () => step(1));
    byId("close").addEventListener("click", () => change({ image: "" }, true));
    byId("viewer").addEventListener("cancel", (event) => {
      event.preventDefault();
      change({ image: "" }, true);
    });
    document.addEventListener("keydown", (event) => {
      if (!state.image) return;
      const actions = { ...picture.keys, ArrowLeft: () => step(-1), ArrowRight: () => step(1) };
      LAYERS.forEach((layer, index) => (actions[index + 1] = () => toggleLayer(layer.key)));
      viewer.onKey(event, actions);
    });
  }
  function renderViewer() {
    const dialog = byId("viewer");
    if (!state.image) {
      if (!dialog.open) return;
      dialog.close();
      const tile = document.querySelector(`[data-image="${drawn.image}"]`);
      if (tile) tile.focus();
      return;
    }
    if (!dialog.open) dialog.showModal();
    const number = state.image;
    const pane = byId("pane");
    if (pane.dataset.number !== number) {
      pane.dataset.number = number;
      pane.replaceChildren();
      byId("viewer-name").textContent = data.images[number].id;
      byId("details").textContent = "Point at the image to see its segments.";
      loadDetails(number);
    }
    byId("viewer-score").textContent = score(number);
    for (const layer of LAYERS) {
      const wanted = active().includes(layer.key);
      byId("layers").querySelector(`[data-layer=${layer.key}]`).checked = wanted;
      let shown = pane.querySelector(`[data-name=${layer.key}]`);
      if (wanted && !shown) {
        shown = element("img", { "data-name": layer.key, alt: "", draggable: "false",
          src: `pictures/${number}${layer.suffix}` });
        pane.append(shown);
      }
      if (!shown) continue;
      shown.hidden = !wanted;
      shown.style.zIndex = LAYERS.indexOf(layer);
      const below = active().indexOf(layer.key) > 0;
      shown.style.opacity = below && layer.key !== "error" ? Number(state.opacity) / 100 : 1;
    }
    byId("viewer-key").hidden = !active().includes("error");
    byId("opacity").value = state.opacity;
    picture.draw();
  }
  function loadDetails(number) {
    if (details.has(Number(number))) return;
    document.head.append(element("script", { src: `pictures/${number}.js` }));
  }
  function receive(number, content) {
    const [width, height] = content.grid;
    const gt = new Int32Array(width * height);
    const pred = new Int32Array(width * height);
    for (let run = 0, place = 0; run < content.runs.length; run += 3) {
      gt.fill(content.runs[run + 1], place, place + content.runs[run]);
      pred.fill(content.runs[run + 2], place, place + content.runs[run]);
      place += content.runs[run];
    }
    details.set(number, { ...content, width, height, gtPlaces: gt, predPlaces: pred });
  }
  const picture = viewer.panZoom({
    stage: byId("stage"),
    pane: byId("pane"),
    size: () => (state.image ? data.images[state.image].size : null),
    place: () => ({
      zoom: Number(state.zoom) || 1,
      x: state.x === "" ? 0.5 : Number(state.x),
      y: state.y === "" ? 0.5 : Number(state.y),
    }),
    move: (zoom, x, y) =>
      change(zoom === 1 ? { zoom: "", x: "", y: "" } : { zoom: zoom.toFixed(2), x: x.toFixed(4), y: y.toFixed(4) }),
    point: describe,
  });
  function step(by) {
    const numbers = chosen();
    const place = numbers.indexOf(Number(state.image));
    const next = numbers[(place + by + numbers.length) % numbers.length];
    if (next !== undefined) change({ image: String(next), zoom: "", x: "", y: "" });
  }
  function describe(at) {
    const content = details.get(Number(state.image));
    if (!content || !at) return;
    const place = Math.floor(at.y * content.height) * content.width + Math.floor(at.x * content.width);
    byId("details").replaceChildren(
      segmentText("Truth", content.gt[content.gtPlaces[place]]),
      segmentText("Prediction", content.pred[content.predPlaces[place]]),
    );
  }
  function segmentText(side, row) {
    const made = element("div", {}, element("strong", {}, `${side}: `));
    if (!row) {
      made.append("void");
      return made;
    }
    const [id, classIndex, pixels, outcome, iou] = row;
    const { name, color } = data.classes[classIndex];
    const fit = iou ? `, IoU ${percent(iou)}` : "";
    made.append(swatch(color), ` ${name}, ${outcome}${fit}`);
    made.append(element("div", { class: "muted" }, `segment ${id}, ${pixels.toLocaleString("en")} pixels`));
    return made;
  }

  // ---- start

  // Panning an image changes the state many times a second: only what depends on a change is drawn anew.
  function render() {
    const differs = (...keys) => keys.some((key) => state[key] !== drawn[key]);
    if (differs("class", "sort", "down")) renderClasses();
    if (differs("class", "order")) renderGallery();
    renderViewer();
    drawn = { ...state };
  }
  function start() {
    renderConfusion();
    renderGalleryControls();
    renderViewerControls();
    const follow = () => {
      state = readAddress();
      render();
    };
    window.addEventListener("popstate", follow);
    window.addEventListener("hashchange", follow);
    follow();
  }
  // After this script has ended, so that pictures' scripts find `report`.
  queueMicrotask(start);
  return { receive };
})();
