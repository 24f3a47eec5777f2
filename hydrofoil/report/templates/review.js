"use strict";
(() => {
  const main = document.getElementById("main");
  const items = [...document.querySelectorAll("#images > li")];
  const buttons = [...document.querySelectorAll("button[data-vote]")];
  const back = document.getElementById("back");
  const save = document.getElementById("save");
  const progress = document.getElementById("progress");
  const status = document.getElementById("status");
  const finished = document.getElementById("finished");
  const place = `hydrofoil-review-${main.dataset.hash}-${main.dataset.seed}-${items.length}`;
  const words = { right: "right", wrong: "wrong", unsure: "can’t tell" };
  const numbers = new Set(items.map((item) => item.dataset.image));
  let votes = {};
  let at = 0;

  function remember() {
    try { localStorage.setItem(place, JSON.stringify(votes)); } catch { /* private windows refuse */ }
  }

  function recall() {
    try {
      const stored = JSON.parse(localStorage.getItem(place) || "{}");
      for (const [image, vote] of Object.entries(stored)) {
        if (numbers.has(image) && vote in words) votes[image] = vote;
      }
    } catch { votes = {}; }
  }

  function show() {
    items.forEach((item, number) => { item.hidden = number !== at; });
    const item = items[at];
    const vote = item ? votes[item.dataset.image] : undefined;
    for (const button of buttons) {
      button.disabled = !item;
      button.setAttribute("aria-pressed", String(button.dataset.vote === vote));
    }
    back.disabled = at === 0;
    const count = Object.keys(votes).length;
    progress.value = count;
    document.body.classList.toggle("begun", count > 0);
    finished.hidden = count < items.length;
    save.disabled = count === 0;
    const where = item ? `Image ${at + 1} of ${items.length}` : "The last image is done";
    const wrong = Object.values(votes).filter((one) => one === "wrong").length;
    status.textContent = `${where}${vote ? `, voted: ${words[vote]}` : ""}. `
      + `${count} voted, ${wrong} wrong.`;
  }

  function cast(vote) {
    if (!items[at]) return;
    votes[items[at].dataset.image] = vote;
    remember();
    at += 1;
    show();
  }

  function goBack() {
    at = Math.max(0, at - 1);
    show();
  }

  const keys = { y: "right", n: "wrong", "?": "unsure", "/": "unsure" };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "ArrowLeft" || event.key === "Backspace") {
      event.preventDefault();
      goBack();
    } else if (event.key.toLowerCase() in keys) {
      event.preventDefault();
      cast(keys[event.key.toLowerCase()]);
    }
  });
  for (const button of buttons) button.addEventListener("click", () => cast(button.dataset.vote));
  back.addEventListener("click", goBack);
  save.addEventListener("click", () => {
    const content = {
      source: main.dataset.source,
      hash: main.dataset.hash,
      seed: Number(main.dataset.seed),
      strata: JSON.parse(main.dataset.strata),
      votes,
    };
    const text = JSON.stringify(content, null, 1) + "\n";
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = "votes.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });

  recall();
  const open = items.findIndex((item) => !(item.dataset.image in votes));
  at = open < 0 ? items.length : open;
  document.body.classList.add("voting");
  show();
})();
