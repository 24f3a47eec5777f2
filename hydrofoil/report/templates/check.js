"use strict";
(() => {
  const main = document.getElementById("main");
  const boxes = [...document.querySelectorAll("input[data-action]")];
  const alls = [...document.querySelectorAll("input[data-all]")];
  const save = document.getElementById("save");
  const chosen = document.getElementById("chosen");

  const wholly = () => alls.filter((box) => box.checked).map((box) => box.dataset.all);
  const alone = () => {
    const kinds = new Set(wholly());
    return boxes.filter((box) => box.checked && !kinds.has(box.dataset.kind));
  };

  function show() {
    let count = alone().length;
    for (const box of alls) if (box.checked) count += Number(box.dataset.count);
    save.disabled = count === 0;
    chosen.textContent = count === 0 ? "Nothing is chosen."
      : `${count.toLocaleString("en")} change${count === 1 ? " is" : "s are"} chosen.`;
  }

  document.getElementById("without-script").hidden = true;
  for (const box of boxes) {
    box.disabled = box.checked = false; // a browser may remember boxes over a reload
    box.addEventListener("change", show);
  }
  for (const box of alls) {
    box.disabled = box.checked = false;
    box.addEventListener("change", () => {
      for (const one of boxes) {
        if (one.dataset.kind === box.dataset.all) {
          one.checked = box.checked && "first" in one.dataset;
          one.disabled = box.checked;
        }
      }
      show();
    });
  }
  save.addEventListener("click", () => {
    const content = {
      source: main.dataset.source,
      hash: main.dataset.hash,
      all: wholly(),
      changes: alone().map((box) => ({
        image: Number(box.dataset.image),
        action: box.dataset.action,
        value: JSON.parse(box.dataset.value),
      })),
    };
    const text = JSON.stringify(content, null, 1) + "\n";
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = "changes.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });
})();
