// Panoptic maps as pixels: ids out of a COCO PNG, and the layers drawn of them.
const segments = (() => {
  const VOID = 0;
  const LIGHT = [255, 255, 255, 230];
  const DARK = [16, 18, 22, 150];
  const canvasOf = (width, height) => {
    const canvas = viewer.element("canvas");
    canvas.width = width;
    canvas.height = height;
    return canvas;
  };

  // { width, height, ids } of a COCO panoptic PNG: id = R + 256 G + 65536 B, row by row.
  async function readIds(blob, known) {
    const bitmap = await createImageBitmap(blob, { premultiplyAlpha: "none", colorSpaceConversion: "none" });
    const canvas = canvasOf(bitmap.width, bitmap.height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    const pixels = context.getImageData(0, 0, bitmap.width, bitmap.height).data;
    const ids = new Uint32Array(pixels.length / 4);
    for (let place = 0; place < ids.length; place++)
      ids[place] = pixels[4 * place] + 256 * pixels[4 * place + 1] + 65536 * pixels[4 * place + 2];
    for (let place = 0; place < ids.length; place += 997)
      if (ids[place] !== VOID && !known.has(ids[place]))
        throw new Error("this browser changes the pixels that pages read (protection against fingerprinting); "
          + "allow it for this page, or use the addresses for programs");
    return { width: bitmap.width, height: bitmap.height, ids };
  }

  // The segments in colours, opaque; void darkened under lines. `color(segment)` is RGB, null to leave it out.
  function drawFill({ width, height, ids }, byId, color, showsVoid) {
    const canvas = canvasOf(width, height);
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    const words = new Uint32Array(image.data.buffer);
    const table = new Map();
    for (const [id, segment] of byId) {
      const rgb = color(segment);
      if (rgb) table.set(id, (255 << 24) | (rgb[2] << 16) | (rgb[1] << 8) | rgb[0]);
    }
    const period = Math.max(10, Math.round(width / 85));
    const line = Math.max(1, Math.round(width / 850));
    let last = -1;
    let word = 0;
    for (let place = 0; place < ids.length; place++) {
      const id = ids[place];
      if (id === VOID) {
        if (!showsVoid) continue;
        const diagonal = (Math.floor(place / width) + (place % width)) % period;
        words[place] = diagonal < line ? (255 << 24) | 0x787878 : (200 << 24) | 0x0a0a0a;
        continue;
      }
      if (id !== last) {
        last = id;
        word = table.get(id) || 0;
      }
      words[place] = word;
    }
    context.putImageData(image, 0, 0);
    return canvas;
  }

  // Lines along the borders: light around objects, dark between other regions.
  function drawContours({ width, height, ids }, byId, isShown, isObject) {
    const canvas = canvasOf(width, height);
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    const words = new Uint32Array(image.data.buffer);
    const [light, dark] = [LIGHT, DARK].map(([r, g, b, a]) => (a << 24) | (b << 16) | (g << 8) | r);
    const kinds = new Map([...byId].map(([id, segment]) => [id, isShown(segment) ? (isObject(segment) ? 2 : 1) : 0]));
    const thick = Math.max(1, Math.round(width / 900));
    const mark = (place, a, b) => {
      const kind = Math.max(kinds.get(a) || 0, kinds.get(b) || 0);
      if (!kind) return;
      const [x, y] = [place % width, Math.floor(place / width)];
      for (let row = y; row < Math.min(y + thick, height); row++)
        for (let column = x; column < Math.min(x + thick, width); column++) {
          const at = row * width + column;
          if (kind === 2) words[at] = light;
          else if (words[at] !== light >>> 0) words[at] = dark;
        }
    };
    for (let place = 0; place < ids.length; place++) {
      const id = ids[place];
      if (place % width < width - 1 && ids[place + 1] !== id) mark(place, id, ids[place + 1]);
      else if (place + width < ids.length && ids[place + width] !== id) mark(place, id, ids[place + width]);
    }
    context.putImageData(image, 0, 0);
    return canvas;
  }

  // One segment bright, for the pointer.
  function drawOne({ width, ids }, { id, bbox }) {
    const [left, top, boxWidth, boxHeight] = bbox;
    const canvas = canvasOf(boxWidth, boxHeight);
    const context = canvas.getContext("2d");
    const image = context.createImageData(boxWidth, boxHeight);
    const words = new Uint32Array(image.data.buffer);
    for (let row = 0; row < boxHeight; row++)
      for (let column = 0; column < boxWidth; column++)
        if (ids[(top + row) * width + left + column] === id) words[row * boxWidth + column] = (110 << 24) | 0xffffff;
    context.putImageData(image, 0, 0);
    return canvas;
  }

  return { VOID, readIds, drawFill, drawContours, drawOne };
})();
