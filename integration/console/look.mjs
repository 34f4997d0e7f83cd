// Every page as a person sees it: empty and full, wide and narrow, light and dark, without a script, and from elsewhere.
import { createServer } from 'node:http';
import { check, equal, failures, launch, look, open, signIn } from './browser.mjs';
import * as world from './world.mjs';

const { avouch, eventually, standing } = world;
/** Texts of others that a page must show and never obey. */
const SHOWN = 'Ben Example <b>&"\'</b>';
const NAME = `${SHOWN}\u202e, whose name is longer than a narrow window is wide`;
const SCRIPT = '<script>alert(1)</script>';
const FILE = 'main.py"><img src=x onerror=alert(1)>';

const button = (name, value) => `button[name=${name}][value=${value}]`;
const text = (page, selector = 'main') => page.$eval(selector, (part) => part.innerText);

async function press(page, selector) {
  const [answer] = await Promise.all([page.waitForNavigation(), page.click(selector)]);
  return answer;
}

/** The pages of a server with one person and nothing else. */
async function empty({ page, base }) {
  for (const [name, path] of [['Home', '/'], ['Identities', '/identities'], ['Requests', '/requests'], ['Log', '/log']]) {
    await look(page, `empty ${name}`, await page.goto(base + path));
  }
}

/** What people and machines do before anybody looks. */
async function fill(node) {
  await world.identity('coder', 'ai-agent', 'test', '--preset', 'coding-agent');
  await Promise.all([
    world.identity('no-script', 'helper', 'test'),
    world.identity('framed', 'service', 'test'),
    world.identity('paused', 'machine', 'test'),
    world.identity('waits', 'machine', 'staging'),
    world.identity('gone', 'pipeline', 'test'),
    world.identity('drilled', 'service', 'test'),
    world.identity('a-name-as-long-as-names-of-services-in-large-companies-get', 'service', 'test'),
    world.entry(node, '/billing/web'),
    world.entry(node, '/ledger/web'),
  ]);
  await world.gate();
  await avouch('pause', 'paused');
  await avouch('stop', 'gone');
  await avouch('stop', 'drilled', '--drill');
  const denied = await (await world.writer('--task', 'read', '--tools', 'files/read_file'))('total = 0');
  check('a task without the tool is refused it', denied.includes('(denied'), '"(denied"', denied);
}

/** After the forms were tried: a second person, so that the owner's yes counts no more. */
async function second(write) {
  await avouch('person', 'add', NAME, '--uid', '65533');
  const adopt = ['--kind', 'service', '--env', 'prod', '--purpose', 'billing', '--ends', '365d', '--owner', NAME];
  await avouch('adopt', '--path', '/ledger/', ...adopt, '--apply');
  await world.identity('later', 'service', 'prod', '--owner', NAME);
  const asks = await write(`total = 0\n${SCRIPT}\n\u202etxt.exe`, FILE);
  check('a call with a text of its own asks', asks.includes('(needs a yes)'), '"(needs a yes)"', asks);
}

/** Who is alone may say yes to what an AI agent of theirs asks, in test. */
async function alone({ page, base }, write) {
  const asks = await write('total = 42');
  check('a call that takes a yes asks', asks.includes('(needs a yes)'), '"(needs a yes)"', asks);
  await look(page, 'Requests with a yes', await page.goto(`${base}/requests`));
}

/** Without a script: each form does what it says, as the command line sees it. */
async function withoutScript({ page, base }, write) {
  await page.setJavaScriptEnabled(false);
  const show = () => page.goto(`${base}/identity?name=no-script`);
  for (const [word, after] of [['pause', 'paused'], ['resume', 'active']]) {
    await show();
    const answer = await press(page, button('do', word));
    equal(`without a script: ${word}`, [answer.status(), await standing('no-script')], [200, after]);
  }
  await show();
  await page.click('.final > summary');
  await page.click('input[name=sure]');
  await press(page, button('do', 'stop'));
  equal('without a script: stop', await standing('no-script'), 'stopped');

  await page.goto(`${base}/requests`);
  await press(page, button('answer', 'yes'));
  check('without a script: the yes is told', (await text(page)).includes('Your yes is kept'), '"Your yes is kept"', await text(page));
  const answered = async () => (await avouch('ask', 'list', '--all')).requests.map((request) => request.standing);
  equal('without a script: yes', await answered(), ['yes']);
  equal('the call goes through, once', [await write('total = 42'), await answered()], ['done', ['spent']]);
  await press(page, '.me button');
  equal('without a script: signed out', await text(page, 'pre'), 'avouch console');
  equal('without a script: nothing in the console', page.faults, []);
}

/** Every page of a server where a lot has happened. */
async function full({ page, base }) {
  const pages = {
    Home: '/', Identities: '/identities', 'Identities narrowed': '/identities?standing=paused&kind=machine',
    Identity: '/identity?name=coder', 'Identity paused': '/identity?name=paused', 'Identity stopped': '/identity?name=gone',
    'Identity proposed': '/identity?name=later', 'Identity adopted': '/identity?name=spiffe://example.org/ledger/web',
    Requests: '/requests', Log: '/log', 'Log of a node': '/log?chain=1',
  };
  const links = new Set();
  for (const [name, path] of Object.entries(pages)) {
    await look(page, name, await page.goto(base + path));
    for (const link of await page.$$eval('a[href]', (all) => all.map((one) => one.href.split('#')[0]))) links.add(link);
    const turns = await page.evaluate(() => /.*[\u202a-\u202e\u2066-\u2069].*/.exec(document.documentElement.textContent)?.[0]);
    equal(`${name}: nothing turns the direction of a text`, turns ?? '', '');
    if (name === 'Requests') await hostile(page);
  }
  await page.goto(`${base}/identities`);
  check('a name is shown as it is', (await text(page)).includes(SHOWN), SHOWN, await text(page));
  const dead = await page.evaluate(async (all) => {
    const answers = await Promise.all(all.map(async (link) => [link, (await fetch(link)).status]));
    return answers.filter(([, status]) => status !== 200);
  }, [...links].filter((link) => link.startsWith(base)));
  equal(`each of ${links.size} links leads to a page`, dead, []);
  await page.goto(`${base}/log?chain=1`);
  await look(page, 'Verified', await press(page, 'form[action=verify] button'));
  check('the records of a node hold', (await text(page)).includes('They hold'), '"They hold"', await text(page));
  await look(page, 'Trace', await page.goto([...links].find((link) => link.includes('/trace?'))));
  check('a decision leads to its people', (await text(page)).includes('Every hop is proven'), '"Every hop is proven"', await text(page));

  await page.goto(`${base}/identity?name=coder`);
  await look(page, 'Drilled', await press(page, button('do', 'drill')));
  check('a drill names the nodes that confirmed', (await text(page)).includes('1 of 1 nodes'), '"1 of 1 nodes"', await text(page));
  await look(page, 'Not found', await page.goto(`${base}/nothing`), 404);
  await page.goto(`${base}/`);
  await look(page, 'Signed out', await press(page, '.me button').then(() => page.reload()), 401);
  await look(page, 'Used link', await page.goto(`${new URL(base).origin}/sign-in?code=used`), 410);
}

async function hostile(page) {
  const shown = await text(page, 'article pre');
  check('a request is shown word for word', shown.includes(SCRIPT) && shown.includes('onerror='), SCRIPT, shown);
  equal('nothing of a text became a part of the page', await page.$$eval('main img, main script', (all) => all.length), 0);
}

/** With the script: news on an open page, which stays as it is; and one box for all rows. */
async function withScript({ page, base }) {
  const before = await page.evaluate(() => {
    window.kept = true;
    return document.querySelector('main').innerHTML;
  });
  equal('no news yet', await page.$eval('#fresh', (bar) => [bar.hidden, bar.getAttribute('role')]), [true, 'status']);
  await avouch('pause', 'framed');
  const bar = await page.waitForSelector('#fresh:not([hidden])');
  const told = await bar.evaluate((part) => part.innerText);
  const news = /^\d+ new records?, (1 request waits|\d+ requests wait): Reload$/;
  check('an open page tells what is new', news.test(told), String(news), told);
  const after = await page.evaluate(() => [window.kept, document.querySelector('main').innerHTML]);
  equal('and stays as it is', after[0] === true && after[1] === before, true);
  await press(page, '#fresh a');
  const anew = await page.evaluate(() => [window.kept ?? false, document.querySelector('#fresh').hidden]);
  equal('until it is loaded anew', anew, [false, true]);
  await avouch('resume', 'framed');

  await page.goto(`${base}/identities`);
  const rows = () => page.$$eval('tbody input', (boxes) => [boxes.length, boxes.filter((box) => box.checked).length]);
  await page.click('thead input');
  const [count, chosen] = await rows();
  check('one box takes all rows', count > 5 && chosen === count, 'all of more than five', [count, chosen]);
  await page.click('tbody input');
  equal('and says when it is not all', await page.$eval('thead input', (box) => [box.checked, box.indeterminate]), [false, true]);
  await page.click('thead input');
  await page.click('thead input');
  equal('and takes none', (await rows())[1], 0);

  // What would be found if the policy did not hold.
  await page.evaluate(() => {
    const script = document.createElement('script');
    script.textContent = 'alert(1)';
    document.body.append(script);
  });
  const refused = await page.waitForFunction(() => window.violations[0]);
  equal('a script in the page does not run', await refused.jsonValue(), 'script-src-elem inline');
  await eventually('the refusal in the console', () => page.faults.some((fault) => fault.includes('Content Security Policy')));
  equal('and no dialog opens', page.faults.filter((fault) => !fault.includes('Content Security Policy')), []);
}

/** A page of somebody else, in the browser of somebody who is signed in. */
async function elsewhere({ page, base }) {
  await page.goto(`${base}/identity?name=framed`);
  // The worst case: the other page knows the token, too.
  const token = await page.$eval('input[name=token]', (field) => field.value);
  const html = `<!doctype html><iframe src="${base}/identity?name=framed"></iframe><form method="post" action="${base}/identity">
<input name="token" value="${token}"><input name="name" value="framed"><button name="do" value="pause">Win</button></form>`;
  const site = createServer((_, answer) => answer.setHeader('content-type', 'text/html').end(html));
  await new Promise((done) => site.listen(0, '127.0.0.1', done));
  const { port } = site.address();
  // A browser takes another port for the same site; another name is another site.
  const others = [`http://127.0.0.1:${port}/`, `http://evil.example.org:${port}/`, `data:text/html,${encodeURIComponent(html)}`];
  delete page.home;
  for (const other of others) {
    const from = other.startsWith('data:') ? 'data:' : new URL(other).host.replace(/\d+$/, 'PORT');
    await page.goto(other);
    equal(`${from} frames no page`, page.frames().slice(1).map((frame) => frame.url()), ['chrome-error://chromewebdata/']);
    equal(`${from} sends no form`, [(await press(page, button('do', 'pause'))).status(), await standing('framed')], [421, 'active']);
  }
  site.close();
  site.closeAllConnections();
  const wrong = new URL(base);
  wrong.hostname = 'evil.example.org';
  equal('another name than loopback\'s is refused', (await page.goto(wrong.href)).status(), 421);
  await signIn(page, 'localhost');
}

/** Printed, not judged: the machine decides. */
async function speed({ page, base }) {
  const times = [];
  for (let round = 0; round < 5; round += 1) {
    await page.goto(`${base}/identities`);
    const painted = await page.waitForFunction(() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime);
    times.push(await painted.jsonValue());
  }
  times.sort((a, b) => a - b);
  console.log(`      Identities: first contentful paint after ${Math.round(times[2])} ms (median of ${times.length})`);
}

const begun = Date.now();
const browser = await launch().catch((error) => {
  console.log(`not run: Chromium does not start: ${error.message.split('\n')[0]}`);
  process.exit(77);
});
async function stop() {
  await browser.close();
  await world.end();
}
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => stop().then(() => process.exit(1)));

/** In a browser of its own that is signed in. A part that ends early is a fault; those after it are done all the same. */
async function part(name, work) {
  const since = Date.now();
  const context = await browser.createBrowserContext();
  try {
    const page = await open(context);
    await work({ page, base: await signIn(page) });
  } catch (error) {
    check(name, false, 'a part that ends', error.stack);
  }
  await context.close();
  console.log(`      ${name}: ${((Date.now() - since) / 1000).toFixed(1)} s`);
}

try {
  const port = await world.startServer();
  await part('empty', empty);
  const node = await world.startAgent(port);
  await fill(node);
  const write = await world.writer('--task', 'fix-4711');
  await part('alone', (visit) => alone(visit, write));
  await part('without a script', (visit) => withoutScript(visit, write));
  await second(write);
  await part('full', full);
  await part('with the script', withScript);
  await part('elsewhere', elsewhere);
  await part('speed', speed);
} catch (error) {
  check('the suite', false, 'a world to look at', error.stack);
} finally {
  await stop();
}
console.log(`${failures()} faults, in ${((Date.now() - begun) / 1000).toFixed(1)} s`);
process.exit(failures() === 0 ? 0 : 1);
