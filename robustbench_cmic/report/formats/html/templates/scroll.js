"use strict";
// A table that goes on beyond its edge says so: a shadow there.
(() => {
  const watch = (box) => {
    let frame = box.parentElement;
    if (!frame.classList.contains("frame")) {  // in a copy it is there already
      frame = document.createElement("div");
      frame.className = "frame";
      box.replaceWith(frame);
      frame.append(box);
    }
    const told = () => {
      frame.classList.toggle("more-before", box.scrollLeft > 1);
      frame.classList.toggle("more-behind", box.scrollLeft + box.clientWidth < box.scrollWidth - 1);
    };
    box.addEventListener("scroll", told, { passive: true });
    const observer = new ResizeObserver(told);
    for (const sized of [box, ...box.children]) observer.observe(sized);
  };
  const all = (part) => part.querySelectorAll(".scroll").forEach(watch);
  document.addEventListener("copied", (event) => all(event.target));
  all(document);
})();
