// Filters of tables and lists of cards (class "filterable"): by words, and by one of the labels (class "badge").
// Without scripts everything is shown.
document.querySelectorAll(".filterable").forEach((part) => {
  const items = [...part.querySelectorAll("tbody tr, .card")];
  if (items.length < 2) return;
  const bar = document.createElement("form");
  bar.className = "filter";
  const words = document.createElement("input");
  words.type = "search";
  words.placeholder = `Filter ${part.dataset.what} by words`;
  words.setAttribute("aria-label", words.placeholder);
  const labels = document.createElement("select");
  labels.setAttribute("aria-label", "Label");
  const found = new Set([...part.querySelectorAll(".badge")].map((badge) => badge.textContent));
  ["any label", ...[...found].sort()].forEach((label) => labels.add(new Option(label)));
  const count = document.createElement("output");
  bar.append(words, ...(found.size ? [labels] : []), count);
  part.prepend(bar);

  const show = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const label = labels.selectedIndex > 0 ? labels.value : null;
    let shown = 0;
    items.forEach((item) => {
      const text = item.textContent.toLowerCase();
      const own = [...item.querySelectorAll(".badge")].map((badge) => badge.textContent);
      const kept = wanted.every((word) => text.includes(word)) && (label === null || own.includes(label));
      item.hidden = !kept;
      shown += kept;
    });
    count.textContent = `${shown} of ${items.length}`;
  };
  bar.addEventListener("input", show);
  bar.addEventListener("submit", (event) => event.preventDefault());
  show();
});
