"use strict";
// The pages are whole without this: it opens what a link leads to, unfolds the contents where there is room, and at
// /docs filters and puts in the address that the reader came by.

const open = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let place = target; place; place = place.parentElement) if (place.tagName === "DETAILS") place.open = true;
  target.scrollIntoView();
};
window.addEventListener("hashchange", open);
open();

const contents = document.getElementById("contents");
const wide = window.matchMedia("(min-width: 72rem)");
const unfold = () => { contents.open = wide.matches; };
wide.addEventListener("change", unfold);
unfold();
contents.addEventListener("click", (event) => { if (event.target.closest("a") && !wide.matches) contents.open = false; });

if (location.protocol !== "file:") {
  const { shop } = document.documentElement.dataset;
  for (const block of document.querySelectorAll("pre.ask code, #buy > p code")) {
    block.textContent = block.textContent.replaceAll(shop, location.origin);
  }
}

document.getElementById("find")?.addEventListener("input", (event) => {
  const wanted = event.target.value.trim().toLowerCase();
  for (const group of document.querySelectorAll("section.group")) {
    const cards = [...group.querySelectorAll(":scope > details")];
    for (const card of cards) card.hidden = !card.textContent.toLowerCase().includes(wanted);
    group.hidden = cards.every((card) => card.hidden);
  }
});
