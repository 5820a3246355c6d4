// The gallery: which images are listed, and the maps of the chosen one. No library, no network.
'use strict';
(() => {
  const data = window.fgplugins;
  const pictures = data.pictures; // of a page that is one file: addresses that hold them
  const PER_PAGE = 60;
  const ANY = -1;
  // viridis, every 5th of its 256 colours
  const ANCHORS = (''
    + '44015446085c471063481769481d6f482475472a7a46307e453781433d844142873f48893d4e8a3a538b38598c355e8d'
    + '33638d31688e2e6d8e2c718e2a768e297b8e27808e25848e23898e218e8d20928c1f978b1e9c891fa18821a58524aa83'
    + '28ae802eb37c35b7793dbc7446c06f50c46a5ac86465cb5e70cf577cd25089d54895d840a2da37b0dd2fbddf26cae11f'
    + 'd8e219e5e419f1e51dfde725'
  ).match(/.{6}/g);
  const at = (id) => document.getElementById(id);
  const parts = data.comparisons.flatMap((comparison, c) =>
    comparison.backbones.map((backbone, b) => ({ comparison, backbone, c, b })));
  const state = { part: 0, method: '', show: 'all', runs: 'every', truth: ANY, taken: ANY, mapped: false,
    list: [], page: 0, image: ANY };

  const colour = (value) => {
    const place = (value / 255) * (ANCHORS.length - 1);
    const low = Math.min(Math.floor(place), ANCHORS.length - 2);
    return [0, 2, 4].map((k) => {
      const [a, b] = [low, low + 1].map((i) => parseInt(ANCHORS[i].slice(k, k + 2), 16));
      return Math.round(a + (b - a) * (place - low));
    });
  };
  const COLOURS = Array.from({ length: 256 }, (_, value) => colour(value));

  // ------------------------------------------------------------------------------- small helpers
  const element = (tag, content = {}, ...inside) => {
    const made = Object.assign(document.createElement(tag), content);
    made.append(...inside);
    return made;
  };
  const fill = (select, options, value) => {
    select.replaceChildren(...options.map(([key, text]) => element('option', { value: key, textContent: text })));
    select.value = value;
  };
  const part = () => parts[state.part];
  const rowOf = (method) => part().backbone.rows.find((row) => row.method === method);
  const control = () => rowOf('gap');
  const picture = (name) => (pictures ? pictures[name] : `page/${name}`);
  const className = (y) => part().comparison.classes[y];

  // --------------------------------------------------------------------------------- what is what
  // of each run that the row and the control have in common, the places in their lists
  const pairs = (row) => {
    const own = control();
    if (!own || row === own) return row.seeds.map((seed, s) => ({ seed, s, t: null }));
    return row.seeds.flatMap((seed, s) => {
      const t = own.seeds.indexOf(seed);
      return t < 0 ? [] : [{ seed, s, t }];
    });
  };
  const kind = (row, pair, i) => {
    const y = part().comparison.labels[i];
    const right = row.predicted[pair.s][i] === y;
    if (pair.t === null) return right ? 'right' : 'wrong';
    const before = control().predicted[pair.t][i] === y;
    return before ? (right ? 'right' : 'broken') : (right ? 'fixed' : 'wrong');
  };
  const runsChosen = (row) => {
    const all = pairs(row);
    return ['every', 'any'].includes(state.runs) ? all : all.filter((p) => String(p.seed) === state.runs);
  };
  const isKind = (row, runs, wanted, i) => {
    if (wanted === 'all') return true;
    const test = (pair) => kind(row, pair, i) === wanted;
    return runs.length > 0 && (state.runs === 'any' ? runs.some(test) : runs.every(test));
  };
  const isTaken = (row, i) => {
    if (state.taken === ANY) return true;
    return pairs(row).some((p) => row.predicted[p.s][i] === state.taken ||
      (p.t !== null && control().predicted[p.t][i] === state.taken));
  };
  const kinds = (row) => (!control() || row === control()
    ? [['all', 'all'], ['right', 'right'], ['wrong', 'wrong']]
    : [['all', 'all'], ['fixed', 'control wrong, method right'], ['broken', 'control right, method wrong'],
      ['wrong', 'both wrong'], ['right', 'both right']]);

  // ------------------------------------------------------------------------------------ the filters
  const refresh = () => {
    const { comparison, backbone } = part();
    if (!rowOf(state.method)) {
      const others = backbone.rows.filter((row) => row.method !== 'gap');
      const first = others.find((row) => !row.method.startsWith('gap:')) || others[0];
      state.method = (first || backbone.rows[0] || { method: '' }).method;
    }
    const row = rowOf(state.method);
    if (!row) {
      at('count').textContent = 'No run is finished, so there are no predictions to look at.';
      at('filters').hidden = true;
      return;
    }
    const seeds = pairs(row).map((p) => String(p.seed));
    if (!['every', 'any', ...seeds].includes(state.runs)) state.runs = 'every';
    if (!kinds(row).some(([key]) => key === state.show)) state.show = 'all';
    fill(at('method'), backbone.rows.map((r) => [r.method, r.method === 'gap' ? 'gap (the control)' : r.method]),
      state.method);
    fill(at('runs'), [['every', 'every seed'], ['any', 'at least one seed'], ...seeds.map((s) => [s, `seed ${s}`])],
      state.runs);
    const runs = runsChosen(row);
    const others = [];
    for (let i = 0; i < comparison.labels.length; i++) {
      if ((state.truth === ANY || comparison.labels[i] === state.truth) && isTaken(row, i) &&
        (!state.mapped || comparison.maps[i] === '1')) others.push(i);
    }
    const listed = Object.fromEntries(kinds(row).map(([key]) => [key, others.filter((i) => isKind(row, runs, key, i))]));
    fill(at('show'), kinds(row).map(([key, text]) => [key, `${text} (${listed[key].length})`]), state.show);
    at('truth').value = state.truth;
    at('taken').value = state.taken;
    at('with-maps').checked = state.mapped;
    state.list = listed[state.show];
    at('count').textContent = `${state.list.length} of ${comparison.labels.length} test images`;
    if (!state.list.includes(state.image)) {
      const mapped = state.list.find((i) => comparison.maps[i] === '1');
      state.image = mapped ?? state.list[0] ?? ANY;
    }
    state.page = Math.max(0, Math.floor(state.list.indexOf(state.image) / PER_PAGE));
    drawPage();
    drawImage();
  };
  const refreshPart = () => {
    const { comparison } = part();
    const classes = comparison.classes.map((name, y) => [y, name]);
    state.truth = state.taken = ANY;
    state.image = ANY;
    fill(at('truth'), [[ANY, 'any'], ...classes], ANY);
    fill(at('taken'), [[ANY, 'any'], ...classes], ANY);
    at('part').value = state.part;
    refresh();
  };

  // --------------------------------------------------------------------------------- the thumbnails
  const sign = (row, s, i) => (row.predicted[s][i] === part().comparison.labels[i] ? '✓' : '✗');
  const describe = (row, i) => {
    const runs = pairs(row);
    const right = (of, key) => runs.filter((p) => of.predicted[p[key]][i] === part().comparison.labels[i]).length;
    const own = right(row, 's');
    if (!runs.length || runs[0].t === null) {
      return { text: `${own}/${runs.length} right`, changed: false, said: `right in ${own} of ${runs.length} runs` };
    }
    const before = right(control(), 't');
    return {
      text: `${before} → ${own} of ${runs.length}`,
      changed: before !== own,
      said: `right in ${before} of ${runs.length} runs of the control, in ${own} of ${row.method}`,
    };
  };
  const drawPage = () => {
    const { comparison, c } = part();
    const row = rowOf(state.method);
    const pages = Math.max(1, Math.ceil(state.list.length / PER_PAGE));
    const there = state.list.indexOf(state.image);
    state.page = Math.min(Math.max(state.page, 0), pages - 1);
    const shown = state.list.slice(state.page * PER_PAGE, (state.page + 1) * PER_PAGE);
    const focusable = shown.includes(state.image) ? state.image : shown[0];
    at('images').replaceChildren(...shown.map((i) => {
      const name = className(comparison.labels[i]);
      const { text, changed, said } = describe(row, i);
      const image = comparison.thumbnails[i] === '1'
        ? element('img', { src: picture(`${c}/thumbnails/${i}.webp`), loading: 'lazy', alt: '', decoding: 'async' })
        : element('span', { className: 'blank', textContent: 'no picture' });
      const made = element('div', { className: 'image', id: `image-${i}`, tabIndex: i === focusable ? 0 : -1, title: name },
        image, element('span', { className: 'of', textContent: name }),
        element('span', { className: changed ? 'state changed' : 'state', textContent: text }));
      made.dataset.image = i;
      made.setAttribute('role', 'option');
      made.setAttribute('aria-selected', i === state.image);
      made.setAttribute('aria-label', `${name}, ${said}`);
      return made;
    }));
    at('page').textContent = `page ${state.page + 1} of ${pages}`;
    at('page-before').disabled = state.page === 0;
    at('page-after').disabled = state.page === pages - 1;
    at('before').disabled = there <= 0;
    at('after').disabled = there < 0 || there === state.list.length - 1;
  };
  const choose = (i, focus) => {
    const before = at(`image-${state.image}`);
    state.image = i;
    const page = Math.floor(state.list.indexOf(i) / PER_PAGE);
    if (page !== state.page || !at(`image-${i}`)) {
      state.page = page;
      drawPage();
    } else {
      at('images').querySelectorAll('[tabindex="0"]').forEach((one) => { one.tabIndex = -1; });
      if (before) before.setAttribute('aria-selected', false);
      const now = at(`image-${i}`);
      now.setAttribute('aria-selected', true);
      now.tabIndex = 0;
      at('before').disabled = state.list.indexOf(i) <= 0;
      at('after').disabled = state.list.indexOf(i) === state.list.length - 1;
    }
    if (focus) at(`image-${i}`).focus();
    drawImage();
  };
  const step = (by, focus) => {
    const place = state.list.indexOf(state.image) + by;
    if (state.list.length) choose(state.list[Math.min(Math.max(place, 0), state.list.length - 1)], focus);
  };
  const columns = () => getComputedStyle(at('images')).gridTemplateColumns.split(' ').length;

  // -------------------------------------------------------------------------------- the chosen image
  const loadMaps = (c, i, done) => {
    const key = `${c}/${i}`;
    if (data.maps[key]) {
      done(data.maps[key]);
      return;
    }
    const script = element('script', { src: `page/${c}/maps/${i}.js` });
    script.onload = () => { script.remove(); done(data.maps[key]); };
    script.onerror = () => { script.remove(); done(null); };
    document.head.append(script);
  };
  const mapCanvas = (head) => {
    const canvas = element('canvas', { width: head.w, height: head.h });
    canvas.style.opacity = at('strength').value / 100;
    const context = canvas.getContext('2d');
    const pixels = context.createImageData(head.w, head.h);
    const cells = atob(head.cells);
    for (let k = 0; k < cells.length; k++) {
      pixels.data.set([...COLOURS[cells.charCodeAt(k)], 255], 4 * k);
    }
    context.putImageData(pixels, 0, 0);
    return canvas;
  };
  const tile = (source, head, caption, method) => {
    const image = element('img', { src: source, alt: '', width: 224, height: 224 });
    const stack = element('div', { className: head ? 'stack map' : 'stack' }, image);
    if (head) {
      const canvas = mapCanvas(head);
      canvas.dataset.method = method;
      canvas.dataset.title = head.title;
      canvas.setAttribute('role', 'img');
      canvas.setAttribute('aria-label', `Map of ${method}: ${caption}`);
      stack.append(canvas);
    }
    return element('figure', {}, stack, element('figcaption', { textContent: caption }));
  };
  const levelTiles = (source, level, method) => {
    const tiles = level.heads.map((head) => tile(source, head, head.title, method));
    const found = [element('div', { className: 'tiles' }, ...tiles)];
    if (level.of > level.heads.length) {
      found.push(element('p', { className: 'note', textContent: `${level.heads.length} of ${level.of} heads of this level` }));
    }
    return found;
  };
  const noMap = (reason) => element('p', { className: 'note', textContent: `no map: ${reason}` });

  const drawSaid = () => {
    const { comparison, backbone } = part();
    const i = state.image;
    at('said').tBodies[0].replaceChildren(...backbone.rows.map((row) => {
      const s = row.seeds.indexOf(row.shown);
      const right = row.seeds.filter((_, k) => row.predicted[k][i] === comparison.labels[i]).length;
      const said = row.predicted[s][i];
      const made = element('tr', {},
        element('th', { scope: 'row', textContent: row.method }),
        element('td', { textContent: `${sign(row, s, i)} ${className(said)}, ${row.percent[i]} %` }),
        element('td', { textContent: `${right} of ${row.seeds.length}` }));
      return made;
    }));
  };
  const drawMaps = (found) => {
    const { c, b } = part();
    const [row, own] = [rowOf(state.method), control()];
    const of = found ? found[b] : {};
    const there = Object.keys(of).length > 0; // another backbone can have maps where this has none
    const source = picture(there ? `${c}/views/${b}_${state.image}.webp` : `${c}/thumbnails/${state.image}.webp`);
    const inside = [];
    const first = [tile(source, null, 'as the network sees it')];
    const activation = own && of[own.method];
    if (activation) {
      first.push(tile(source, activation.levels[0].heads[0], `control: class activation, seed ${own.shown}`, own.method));
    }
    inside.push(element('div', { className: 'tiles first' }, ...first));
    if (own && !activation) inside.push(noMap(`the control: ${own.reason}`));
    if (row !== own) {
      inside.push(element('h4', { textContent: `${row.method}, seed ${row.shown}` }));
      const maps = of[row.method];
      if (!maps) inside.push(noMap(row.reason));
      else {
        inside.push(...maps.levels.flatMap((level) => levelTiles(source, level, row.method)));
        inside.push(element('h4', { textContent: 'True class against its strongest rival' }));
        if (maps.rivals) inside.push(...maps.rivals.flatMap((level) => levelTiles(source, level, `${row.method}, rivals`)));
        else inside.push(noMap(row.rivalReason));
      }
    }
    at('maps').replaceChildren(...inside);
  };
  const drawImage = () => {
    const i = state.image;
    at('chosen').hidden = i === ANY;
    at('nothing').hidden = i !== ANY;
    if (i === ANY) return;
    const { comparison, c } = part();
    at('file').textContent = comparison.files[i];
    at('class-of').textContent = `class: ${className(comparison.labels[i])}`;
    drawSaid();
    const mapped = comparison.maps[i] === '1';
    for (const one of document.querySelectorAll('.strength, .scale')) one.hidden = !mapped;
    if (!mapped) {
      const row = rowOf(state.method);
      const inside = [noMap(row.reason || 'maps were computed for other images; fgplugins report --maps N takes more')];
      if (comparison.thumbnails[i] === '1') {
        inside.unshift(element('div', { className: 'tiles first' }, tile(picture(`${c}/thumbnails/${i}.webp`), null, 'the image')));
      }
      at('maps').replaceChildren(...inside);
      return;
    }
    loadMaps(c, i, (found) => { if (state.image === i && part().c === c) drawMaps(found); });
  };

  // --------------------------------------------------------------------------------------- events
  const KEYS = { ArrowRight: () => 1, ArrowLeft: () => -1, ArrowDown: columns, ArrowUp: () => -columns(),
    PageDown: () => PER_PAGE, PageUp: () => -PER_PAGE, Home: () => -Infinity, End: () => Infinity };
  at('images').addEventListener('keydown', (event) => {
    if (!(event.key in KEYS) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    step(KEYS[event.key](), true);
  });
  at('gallery').addEventListener('keydown', (event) => {
    if (['j', 'k'].includes(event.key) && !event.ctrlKey && !event.metaKey && event.target.tagName !== 'SELECT') {
      step(event.key === 'j' ? 1 : -1, false);
    }
  });
  at('images').addEventListener('click', (event) => {
    const one = event.target.closest('.image');
    if (!one) return;
    choose(Number(one.dataset.image), true);
    if (matchMedia('(max-width: 52rem)').matches) at('viewer').scrollIntoView();
  });
  at('before').addEventListener('click', () => step(-1, false));
  at('after').addEventListener('click', () => step(1, false));
  at('page-before').addEventListener('click', () => { state.page -= 1; drawPage(); });
  at('page-after').addEventListener('click', () => { state.page += 1; drawPage(); });
  at('filters').addEventListener('submit', (event) => event.preventDefault());
  for (const [id, key, read] of [['method', 'method', String], ['show', 'show', String], ['runs', 'runs', String],
    ['truth', 'truth', Number], ['taken', 'taken', Number]]) {
    at(id).addEventListener('change', () => { state[key] = read(at(id).value); refresh(); });
  }
  at('with-maps').addEventListener('change', () => { state.mapped = at('with-maps').checked; refresh(); });
  at('part').addEventListener('change', () => { state.part = Number(at('part').value); refreshPart(); });
  at('reset').addEventListener('click', () => {
    Object.assign(state, { show: 'all', runs: 'every', truth: ANY, taken: ANY, mapped: false });
    refresh();
  });
  at('strength').addEventListener('input', () => {
    for (const canvas of at('maps').querySelectorAll('canvas')) canvas.style.opacity = at('strength').value / 100;
  });
  document.addEventListener('click', (event) => {
    const button = event.target.closest('[data-go]');
    if (!button) return;
    const go = button.dataset;
    const place = parts.findIndex((p) => p.c === Number(go.comparison) && p.b === Number(go.backbone));
    if (place !== state.part) { state.part = place; refreshPart(); }
    const number = (name) => (name === undefined ? ANY : part().comparison.classes.indexOf(name));
    Object.assign(state, { method: go.method, show: 'all', runs: 'every', truth: number(go.truth),
      taken: number(go.taken), mapped: false });
    refresh();
    at('gallery').scrollIntoView();
    const first = at('images').querySelector('[tabindex="0"]');
    if (first) first.focus({ preventScroll: true });
  });

  fill(at('part'), parts.map(({ comparison, backbone }, k) => [k, data.comparisons.length > 1
    ? `${comparison.name}, ${backbone.name}` : backbone.name]), 0);
  at('part-label').hidden = parts.length < 2;
  const scale = at('scale').getContext('2d');
  COLOURS.forEach((rgb, x) => { scale.fillStyle = `rgb(${rgb})`; scale.fillRect(x, 0, 1, 1); });
  refreshPart();
})();
