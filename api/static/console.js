// Follows the shop by server-sent events, read with fetch so that the token travels in a header.
'use strict';

const POINTS = 120;
const STALE_MS = 5000;
const TOKEN = 'firstcome-token';
const $ = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });
const lines = { accepted: [], refused: [], durable: [], lag: [] };
let heardAt = 0;
let last = null;
let running = null;

function say(id, text) {
  const element = $(id);
  if (element.textContent !== text) element.textContent = text;
}

function count(value) {
  if (value === null || value === undefined) return '–';
  return value >= 100000 ? short.format(value) : whole.format(value);
}

function changes(value) {
  return `${count(value)} ${value === 1 ? 'change' : 'changes'}`;
}

function duration(ms) {
  if (ms === null || ms === undefined) return '–';
  if (ms < 1000) return `${whole.format(ms)} ms`;
  if (ms < 120000) return `${(ms / 1000).toFixed(ms < 10000 ? 1 : 0)} s`;
  return ms < 7200000 ? `${whole.format(ms / 60000)} min` : `${whole.format(ms / 3600000)} h`;
}

function draw(name, value, written) {
  const values = lines[name];
  values.push(value || 0);
  if (values.length > POINTS) values.splice(0, values.length - POINTS);
  const most = Math.max(...values);
  const top = Math.max(1, most);
  say(`${name}-most`, `max ${written(most)}`);
  const start = POINTS - values.length;
  const path = values.map((each, index) => `${index ? 'L' : 'M'}${start + index} ${(30 - 28 * each / top).toFixed(1)}`);
  $(`${name}-line`).firstElementChild.setAttribute('d', path.join(''));
}

// Keeps exactly as many children as there are items, and reuses them: nothing grows while the page is open.
function list(id, items, make, fill) {
  const parent = $(id);
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  while (parent.children.length < items.length) parent.append(make());
  items.forEach((item, index) => fill(parent.children[index], item));
}

function element(name, className = '', ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const makeBar = () => element('li', '', element('span', 'name'), element('span', 'value'), element('div', 'track', element('div', 'fill')));

function fillBar(item, name, value, share, low) {
  put(item.children[0], name);
  put(item.children[1], value);
  item.children[2].firstElementChild.style.width = `${Math.max(0, Math.min(100, 100 * share))}%`;
  item.classList.toggle('low', low);
}

function showAlarms(sight) {
  $('alarms').hidden = sight.alarms.length === 0;
  list('alarm-list', sight.alarms, () => {
    const link = element('a', '', 'Runbook');
    const inTab = element('p', 'small', element('span'), ' ', link);
    link.target = '_blank';
    return element('li', '', element('p', '', element('strong'), element('span')), element('p', 'do'), inTab);
  }, (item, alarm) => {
    const [heading, remedy, foot] = item.children;
    const where = alarm.partition === null ? alarm.subject : `partition ${alarm.partition} · ${alarm.subject}`;
    put(heading.children[0], alarm.kind.replaceAll('_', ' '));
    put(heading.children[1], where + (alarm.count > 1 ? `, and ${count(alarm.count - 1)} more like it` : ''));
    put(remedy, `Do: ${alarm.remedy}`);
    put(foot.children[0], alarm.detail);
    // Relative, so that a shop below a path of its host leads to its own.
    const target = alarm.runbook.slice(1);
    if (foot.children[1].getAttribute('href') !== target) foot.children[1].href = target;
    foot.children[1].setAttribute('aria-label', `Runbook of ${alarm.kind.replaceAll('_', ' ')}, in another tab`);
  });
}

function showVerdict(sight) {
  const alarms = sight.alarms.reduce((sum, alarm) => sum + alarm.count, 0);
  const closed = sight.partitions.length - sight.trusted;
  let [words, kind] = ['All is well', 'good'];
  if (sight.lag_ms > 1000) [words, kind] = ['Durable is behind', 'warn'];
  if (closed) [words, kind] = [`${closed} of ${sight.partitions.length} partitions closed`, 'bad'];
  if (alarms) [words, kind] = [alarms === 1 ? '1 alarm' : `${alarms} alarms`, 'bad'];
  say('verdict', words);
  $('verdict').className = kind;
  const title = kind === 'good' ? 'Firstcome console' : `${words} · Firstcome`;
  if (document.title !== title) document.title = title;
}

function showFlow(sight) {
  const rates = sight.rates;
  for (const name of ['accepted', 'refused', 'durable']) {
    say(name, count(rates[name]));
    if (last) draw(name, rates[name], count);
  }
  say('lag', duration(sight.lag_ms));
  if (last) draw('lag', sight.lag_ms, duration);
  say('accepted-note', `orders ${count(rates.orders)}, coupons ${count(rates.coupons)}, charges ${count(rates.charges)}; reads\u00a0${count(rates.read)}`);
  const why = sight.refusals.slice(0, 2).map(([name, rate]) => `${name} ${count(rate)}`).join(', ');
  say('refused-note', (why || 'nothing is refused') + (rates.failed ? `; not possible now ${count(rates.failed)}` : ''));
  say('lag-note', sight.backlog === null ? 'backlog not known' : `backlog ${changes(sight.backlog)}`);
}

function showPartitions(sight) {
  const state = ([, name, , lag]) => (name === 'trusted' ? (lag > 1000 ? 'behind' : 'trusted') : name);
  list('grid', sight.partitions, () => element('i'), (cell, partition) => { cell.className = state(partition); });
  const worst = sight.partitions.reduce((most, each) => ((each[3] || 0) > (most[3] || 0) ? each : most), sight.partitions[0]);
  const behind = worst && worst[3] ? `; the furthest behind is ${worst[0]}: ${changes(worst[2])}, ${duration(worst[3])}` : '; none is behind';
  say('partitions-say', `${sight.trusted} of ${sight.partitions.length} trusted${behind}`);
  if ($('partitions-all').open) {
    list('rows', sight.partitions, () => element('tr', '', element('td'), element('td'), element('td', 'number'), element('td', 'number')),
      (row, [number, name, backlog, lag]) => [number, name, count(backlog), duration(lag)].forEach((text, index) => put(row.children[index], String(text))));
  }
}

function showSubjects(sight) {
  list('campaigns', sight.campaigns, makeBar, (item, each) => {
    const share = each.remaining / each.quantity;
    const left = each.remaining ? `${count(each.remaining)} of ${count(each.quantity)} left` : 'all gone';
    fillBar(item, each.name, left, share, share < 0.2);
  });
  say('campaigns-none', 'No campaign is open.');
  $('campaigns-none').hidden = sight.campaigns.length > 0;
  const most = Math.max(1, ...sight.best_sellers.map((each) => each.sold));
  list('sellers', sight.best_sellers, makeBar, (item, each) => fillBar(item, each.name, `${count(each.sold)} sold`, each.sold / most, false));
  say('sellers-none', 'Nothing is sold yet.');
  $('sellers-none').hidden = sight.best_sellers.length > 0;
}

function showDeliveries(sight) {
  const waiting = sight.waiting;
  if (waiting === null) {
    say('deliveries-say', 'Not known while PostgreSQL does not answer.');
  } else {
    const oldest = waiting.waiting ? `, the oldest for ${duration(waiting.oldest_ms)}` : '';
    say('deliveries-say', `${count(waiting.waiting)} pending${oldest}; ${count(waiting.dead)} dead`);
  }
  list('deliveries', sight.deliveries, () => {
    const button = element('button', '', 'Replay');
    button.type = 'button';
    button.addEventListener('click', () => replay(button));
    return element('li', '', element('span', 'state'), element('code'), element('span', 'small'), button);
  }, (item, each) => {
    item.children[0].className = `state ${each.state}`;
    put(item.children[0], each.state);
    put(item.children[1], each.order_id);
    put(item.children[2], each.last_error ? `${each.tries} tries: ${each.last_error}` : '');
    item.children[3].hidden = each.state !== 'dead';
    item.children[3].dataset.delivery = each.delivery_id;
    item.children[3].setAttribute('aria-label', `Replay the delivery of order ${each.order_id}`);
  });
}

async function replay(button) {
  button.disabled = true;
  try {
    await fetch(`admin/v1/deliveries/${button.dataset.delivery}/replay`, { method: 'POST', headers: headers() });
  } finally {
    button.disabled = false;
  }
}

function showAge() {
  const age = Date.now() - heardAt;
  const stale = age > STALE_MS;
  document.body.classList.toggle('stale', stale);
  const time = new Date(heardAt).toLocaleTimeString([], { timeZoneName: 'short' });
  say('fresh', stale ? `nothing heard for ${duration(age)}` : `as of ${time}`);
  if (stale) {
    say('verdict', 'No answer from the API');
    $('verdict').className = 'bad';
  }
}

// The first look of all knows no rates yet; the second, a second later, does.
function show(sight) {
  if (last || 'durable' in sight.rates) $('panels').hidden = false;
  heardAt = Date.now();
  showAge();
  showVerdict(sight);
  showAlarms(sight);
  showFlow(sight);
  showPartitions(sight);
  showSubjects(sight);
  showDeliveries(sight);
  const part = (is, name) => `${name} ${is ? 'answers' : 'does not answer'}`;
  say('about', `Firstcome ${sight.version} · API processes: ${count(sight.processes)} · workers: ${count(sight.workers)} · ${part(sight.redis, 'Redis')} · ${part(sight.postgres, 'PostgreSQL')}`);
  last = sight;
}

// Without a right to see the shop nothing of it stays in sight.
function askForToken() {
  last = null;
  heardAt = 0;
  document.body.classList.remove('stale');
  $('panels').hidden = true;
  $('login').hidden = false;
  for (const id of ['fresh', 'about']) say(id, '');
  say('verdict', 'A token is needed');
  $('verdict').className = 'waiting';
  document.title = 'Firstcome console';
  $('token').focus();
}

function headers() {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

async function follow(signal) {
  const answer = await fetch('admin/v1/console/events', { headers: headers(), cache: 'no-store', signal });
  if (answer.status === 401 || answer.status === 403) {
    const problem = await answer.json();
    if (sessionStorage.getItem(TOKEN)) say('login-why', problem.detail);
    sessionStorage.removeItem(TOKEN);
    return false;
  }
  if (!answer.ok) throw new Error(`answered ${answer.status}`);
  $('login').hidden = true;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return true;
    const events = (rest + value).split('\n\n');
    rest = events.pop();
    // Of several that came at once only the last is news.
    if (events.length) show(JSON.parse(events[events.length - 1].slice('data: '.length)));
  }
}

async function keepFollowing() {
  running = new AbortController();
  let pause = 500;
  for (;;) {
    try {
      if (!(await follow(running.signal))) {
        askForToken();
        return;
      }
      pause = 500;
    } catch (error) {
      pause = Math.min(pause * 2, 5000);
    }
    await new Promise((resolve) => setTimeout(resolve, pause * (0.5 + Math.random() / 2)));
  }
}

$('login').addEventListener('submit', (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, $('token').value.trim());
  $('token').value = '';
  keepFollowing();
});
$('partitions-all').addEventListener('toggle', () => { if (last) showPartitions(last); });

setInterval(() => { if (heardAt) showAge(); }, 1000);

keepFollowing();
