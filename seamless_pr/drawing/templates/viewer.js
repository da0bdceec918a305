"use strict";
// What the pages of this package share: making elements, and a picture that is zoomed and moved.
const viewer = (() => {
  const MAX_ZOOM = 24;
  const byId = (id) => document.getElementById(id);
  const element = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  const rgb = (color) => `rgb(${color.join(",")})`;
  const swatch = (color) => {
    const made = element("span", { class: "swatch", "aria-hidden": "true" });
    made.style.background = rgb(color);
    return made;
  };

  // A pane that lies in a stage, to look at more closely. `size()` is [width, height] of the pane, null while there
  // is none; `place()` is { zoom, x, y }: 1 fits the stage, and x and y, in [0, 1], are the point of the pane in the
  // middle of the stage. Moving only calls `move(zoom, x, y)`; who keeps the place calls `draw()`. `point(at)` says
  // where on the pane the pointer is, in [0, 1], null beside it.
  function panZoom({ stage, pane, size, place, move, point }) {
    const pointers = new Map();
    let view = null;
    function draw() {
      if (!size()) {
        view = null;
        return;
      }
      const [width, height] = size();
      const room = stage.getBoundingClientRect();
      const wanted = place();
      const fit = Math.min(room.width / width, room.height / height);
      const zoom = Math.min(Math.max(wanted.zoom, 1), MAX_ZOOM);
      const scale = fit * zoom;
      const clamp = (value, side, space) => {
        if (side * scale <= space) return 0.5;
        const margin = space / 2 / (side * scale);
        return Math.min(Math.max(value, margin), 1 - margin);
      };
      const x = clamp(wanted.x, width, room.width);
      const y = clamp(wanted.y, height, room.height);
      const left = room.width / 2 - x * width * scale;
      const top = room.height / 2 - y * height * scale;
      pane.style.width = `${width}px`;
      pane.style.height = `${height}px`;
      pane.style.transform = `translate(${left}px, ${top}px) scale(${scale})`;
      pane.classList.toggle("close", scale > 2);
      view = { scale, left, top, width, height, zoom, x, y };
    }
    function moveTo(x, y, zoom = view.zoom) {
      if (zoom === 1) move(1, 0.5, 0.5);
      else move(zoom, x, y);
    }
    function zoomAround(factor, clientX, clientY) {
      if (!view) return;
      const room = stage.getBoundingClientRect();
      const px = clientX === undefined ? room.width / 2 : clientX - room.left;
      const py = clientY === undefined ? room.height / 2 : clientY - room.top;
      const zoom = Math.min(Math.max(view.zoom * factor, 1), MAX_ZOOM);
      const ratio = zoom / view.zoom;
      const paneX = (px - view.left) / (view.width * view.scale);
      const paneY = (py - view.top) / (view.height * view.scale);
      moveTo(paneX + (view.x - paneX) / ratio, paneY + (view.y - paneY) / ratio, zoom);
    }
    const step = () => 0.15 / view.zoom;
    const keys = {
      "+": () => zoomAround(1.5),
      "=": () => zoomAround(1.5),
      "-": () => zoomAround(1 / 1.5),
      0: () => moveTo(0.5, 0.5, 1),
      ArrowUp: () => moveTo(view.x, view.y - step()),
      ArrowDown: () => moveTo(view.x, view.y + step()),
      ShiftArrowLeft: () => moveTo(view.x - step(), view.y),
      ShiftArrowRight: () => moveTo(view.x + step(), view.y),
    };
    function locate(event) {
      if (!view) return null;
      const room = stage.getBoundingClientRect();
      const x = (event.clientX - room.left - view.left) / (view.width * view.scale);
      const y = (event.clientY - room.top - view.top) / (view.height * view.scale);
      return x < 0 || y < 0 || x >= 1 || y >= 1 ? null : { x, y };
    }
    stage.addEventListener(
      "wheel",
      (event) => {
        if (!view) return;
        event.preventDefault();
        zoomAround(Math.exp(-event.deltaY / 400), event.clientX, event.clientY);
      },
      { passive: false },
    );
    stage.addEventListener("pointerdown", (event) => {
      if (!view) return;
      stage.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, event);
      stage.classList.add("dragging");
      point(locate(event));
    });
    stage.addEventListener("pointermove", (event) => {
      if (!view) return;
      const before = pointers.get(event.pointerId);
      if (before && pointers.size === 1) {
        const dx = (event.clientX - before.clientX) / (view.width * view.scale);
        const dy = (event.clientY - before.clientY) / (view.height * view.scale);
        if ((dx || dy) && view.zoom > 1) moveTo(view.x - dx, view.y - dy);
      } else if (before && pointers.size === 2) {
        const [other] = [...pointers.values()].filter((pointer) => pointer.pointerId !== event.pointerId);
        const distance = (a, b) => Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
        const factor = distance(event, other) / Math.max(distance(before, other), 1);
        zoomAround(factor, (event.clientX + other.clientX) / 2, (event.clientY + other.clientY) / 2);
      }
      if (before) pointers.set(event.pointerId, event);
      else point(locate(event));
    });
    for (const name of ["pointerup", "pointercancel", "pointerleave"])
      stage.addEventListener(name, (event) => {
        pointers.delete(event.pointerId);
        if (!pointers.size) stage.classList.remove("dragging");
      });
    window.addEventListener("resize", draw);
    return { draw, zoomAround, keys, fit: () => moveTo(0.5, 0.5, 1) };
  }
  // Runs the action of a key, unless it belongs to a control with the focus.
  function onKey(event, actions) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input:not([type=checkbox], [type=range]), textarea"))
      return;
    const name = event.shiftKey && event.key.startsWith("Arrow") ? `Shift${event.key}` : event.key;
    const action = actions[name] || actions[event.key];
    if (!action || (event.target.type === "range" && event.key.startsWith("Arrow"))) return;
    event.preventDefault();
    action();
  }
  return { byId, element, rgb, swatch, panZoom, onKey };
})();
