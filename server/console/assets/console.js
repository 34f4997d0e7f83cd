// What happened since the page was made, in one line; and one box for all rows. Every page works without it, and nothing
// moves or reloads a page by itself.
'use strict';
(() => {
  const fresh = document.getElementById('fresh');
  const last = document.body.dataset.last;
  const count = (number, one, more) => number + ' ' + (number === 1 ? one : more);
  if (fresh && last !== undefined && window.EventSource) {
    const live = new EventSource('live?after=' + encodeURIComponent(last));
    live.addEventListener('new', (event) => {
      let told;
      try { told = JSON.parse(event.data); } catch { return; }
      const records = Number(told.records) || 0;
      const waiting = Number(told.waiting) || 0;
      if (records === 0) return;
      fresh.querySelector('span').textContent = count(records, 'new record', 'new records') + ', ' +
        count(waiting, 'request waits', 'requests wait') + ':';
      fresh.hidden = false;
    });
  }
  for (const table of document.querySelectorAll('table[data-all]')) {
    const boxes = Array.from(table.querySelectorAll('tbody input[type=checkbox]'));
    const all = document.createElement('input');
    all.type = 'checkbox';
    all.setAttribute('aria-label', 'Choose all rows of this page');
    const show = () => {
      const chosen = boxes.filter((box) => box.checked).length;
      all.checked = chosen > 0 && chosen === boxes.length;
      all.indeterminate = chosen > 0 && chosen < boxes.length;
    };
    all.addEventListener('change', () => boxes.forEach((box) => { box.checked = all.checked; }));
    table.addEventListener('change', show);
    table.querySelector('thead th').prepend(all);
    show();
  }
})();
