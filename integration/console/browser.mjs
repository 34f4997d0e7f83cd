// The browser, and what holds for every page in it. Nothing is asserted twice: a fault is one line, and the suite goes on.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import puppeteer from 'puppeteer-core';
import { avouch } from './world.mjs';

const { LOOK, CHROMIUM } = process.env;
const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const RULES = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'];
/** Bytes of a page with its style sheet and its script. */
const PAGE_MAX = 60 * 1024;
const WIDTHS = [1280, 390];
const SCHEMES = ['light', 'dark'];

let failed = 0;
export const failures = () => failed;

/** One line; for a fault also what was expected and what came. */
export function check(what, holds, expected, came) {
  if (holds) return console.log(`ok    ${what}`);
  failed += 1;
  console.log(`FAIL  ${what}\n      expected: ${expected}\n      came:     ${typeof came === 'string' ? came : JSON.stringify(came)}`);
}

export function equal(what, came, expected) {
  check(what, JSON.stringify(came) === JSON.stringify(expected), JSON.stringify(expected), came);
}

export function launch() {
  // Another name than loopback's that leads here, and no way to anywhere else.
  const names = 'MAP evil.example.org 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost';
  const args = [`--host-resolver-rules=${names}`, '--no-proxy-server', '--disable-dev-shm-usage'];
  if (process.getuid() === 0) args.push('--no-sandbox');
  return puppeteer.launch({ executablePath: CHROMIUM, args, timeout: 20_000, userDataDir: `${process.cwd()}/chromium` });
}

/** A page that is listened to: `faults` is what it did that no page may. */
export async function open(context) {
  const page = await context.newPage();
  const faults = [];
  page.setDefaultTimeout(10_000);
  page.on('console', (message) => {
    // A browser logs each answer that is no success; whether it is the one that was expected is checked elsewhere.
    const answer = /^Failed to load resource: .* status of 4\d\d/.test(message.text()) && message.location().url === page.url();
    if (['error', 'warn', 'issue'].includes(message.type()) && !answer) faults.push(`console: ${message.text()}`);
  });
  page.on('pageerror', (error) => faults.push(`script: ${error.message}`));
  page.on('dialog', (dialog) => {
    faults.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.on('request', (request) => {
    const { host, pathname } = new URL(request.url());
    if (page.home && host !== page.home) faults.push(`request to ${host}${pathname}`);
  });
  await page.evaluateOnNewDocument(() => {
    window.violations = [];
    document.addEventListener('securitypolicyviolation', (event) => {
      window.violations.push(`${event.violatedDirective} ${event.blockedURI}`);
    });
  });
  page.faults = faults;
  return page;
}

/** Follows a fresh link, under 127.0.0.1 or another name of loopback. */
export async function signIn(page, name = '127.0.0.1') {
  const url = new URL((await avouch('console')).url);
  url.hostname = name;
  page.home = url.host;
  const answer = await page.goto(url.href);
  const room = new URL(page.url()).pathname;
  equal(`a link signs in at ${name}`, [answer.status(), /^\/[0-9a-f]{32}\/$/.test(room)], [200, true]);
  return url.origin + room.slice(0, -1);
}

/** Everything that holds for each page, at every width and in both schemes. */
export async function look(page, name, answer, status = 200) {
  equal(`${name}: status`, answer.status(), status);
  const { bytes, heads } = await page.evaluate(async () => {
    const parts = [...document.querySelectorAll('link[rel=stylesheet], script[src]')].map((part) => part.href ?? part.src);
    const sizes = await Promise.all(parts.map(async (part) => (await (await fetch(part)).blob()).size));
    const heads = [...document.querySelectorAll('h1')].map((head) => head.textContent);
    return { bytes: sizes.reduce((sum, size) => sum + size, 0), heads };
  });
  equal(`${name}: one heading of the first level`, heads.length, 1);
  const whole = bytes + (await answer.buffer()).length;
  check(`${name}: ${(whole / 1024).toFixed(1)} KiB with style and script`, whole <= PAGE_MAX, `${PAGE_MAX} bytes at most`, whole);
  await page.evaluate(AXE);
  for (const width of WIDTHS) {
    for (const scheme of SCHEMES) await seen(page, name, width, scheme);
  }
  const violations = await page.evaluate(() => window.violations);
  equal(`${name}: nothing in the console, no dialog, no request elsewhere`, [...page.faults.splice(0), ...violations], []);
}

async function seen(page, name, width, scheme) {
  await page.setViewport({ width, height: 900 });
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
  const where = `${name}, ${width} px, ${scheme}`;
  const [wide, wanting] = await page.evaluate(async (values) => {
    const options = { runOnly: { type: 'tag', values }, resultTypes: ['violations'], preload: false };
    const { violations } = await window.axe.run(document, options);
    const told = violations.flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.html.slice(0, 160)} ${node.failureSummary}`));
    // Where there is room, a table is whole; where there is none, it alone may be moved.
    const parts = [document.scrollingElement, ...(window.innerWidth > 1000 ? document.querySelectorAll('.scroll') : [])];
    return [Math.max(...parts.map((part) => part.scrollWidth - part.clientWidth)), told];
  }, RULES);
  check(`${where}: fits its window`, wide <= 0, 'nothing wider than there is room', `${wide} px more`);
  check(`${where}: axe finds nothing`, wanting.length === 0, 'no violation of WCAG 2.2 A and AA', wanting.join('\n                '));
  if (LOOK) {
    const file = `${LOOK}/${where.replace(/[^a-z0-9]+/gi, '-')}.png`;
    await page.screenshot({ path: file, fullPage: true });
  }
}
