// Signs people in at the provider in every way that is right, and in every way that is not.
import { writeFileSync } from 'node:fs';

import { Browser, field, unescaped } from './browser.mjs';
import { Idp } from './provider.mjs';
import * as world from './world.mjs';

const { avouch } = world;
let faults = 0;

function check(what, holds, expected, seen) {
  if (!holds) faults += 1;
  console.log(holds ? `  ok  ${what}` : `FAULT ${what}\n      expected ${expected}\n      saw ${String(seen).slice(0, 2000)}`);
}

function equal(what, seen, expected) {
  check(what, JSON.stringify(seen) === JSON.stringify(expected), JSON.stringify(expected), JSON.stringify(seen));
}

/** Status, and texts that stand on the page. */
function shows(what, seen, status, ...texts) {
  const missing = texts.filter((text) => !unescaped(seen.page).includes(text));
  check(what, seen.status === status && missing.length === 0, `${status} with ${texts.join(' | ')}`, `${seen.status} ${seen.url} ${seen.page}`);
}

const secret = 'a-secret-of-a-test+/=';
const [port, idpPort] = [await world.freePort(), await world.freePort()];
const pages = `http://127.0.0.1:${port}`;
const idp = new Idp(idpPort, pages, secret);
const isCallback = (url) => url.startsWith(`${pages}/signed-in`);

function lines(client, more = '') {
  return `console_address = "127.0.0.1:${port}"
  console_issuer = "${idp.issuer}"
  console_client_id = "${client}"
  ${more}`;
}

/** Begins, and comes to the provider's form or past it. `change` edits what is asked of the provider. */
async function begin(browser, { query = '', change, halt } = {}) {
  const seen = await browser.step(`${pages}/sign-in/begin${query}`);
  if (!seen.to) return seen;
  const url = new URL(seen.to);
  change?.(url.searchParams);
  return browser.go(url.href, {}, halt);
}

/** Signs in as somebody; where the provider still knows them, it asks nothing. */
async function signIn(browser, login, { ago = 0, query, change, halt } = {}) {
  const seen = await begin(browser, { query, change, halt });
  if (!seen.url.startsWith(`${idp.issuer}/interaction/`)) return seen;
  return browser.go(seen.url, { form: { login, ago } }, halt);
}

const room = (seen) => seen.url.match(new RegExp(`^${pages}/[0-9a-f]{32}`))?.[0];

async function send(browser, seen, path, form) {
  return browser.step(`${room(seen)}/${path}`, { form: { token: field(seen.page, 'token'), ...form } });
}

/** A yes to a request that there is not: 404 says that it would have counted, 409 that the sign-in is too old. */
const yes = (browser, seen) => send(browser, seen, 'requests', { id: 'req_000000000000', hash: '00'.repeat(32), answer: 'yes' });

async function links() {
  const link = await avouch('console');
  check('without a provider a link signs in', link.url.startsWith(`${pages}/sign-in?code=`), 'a link', link.url);
  const browser = new Browser();
  const seen = await browser.go(link.url);
  shows('and the pages say so', seen, 200, 'Ada Example', 'signed in by a local link');
  shows('no provider is offered', await new Browser().step(`${pages}/`), 401, 'avouch console');
  equal('and none is led to', (await new Browser().step(`${pages}/sign-in/begin`)).status, 404);
}

async function people() {
  const refused = await avouch('console').catch((error) => error.message);
  check('with a provider no link is given', refused.includes(`127.0.0.1:${idpPort}`) && refused.includes(`${pages}/`), 'where to sign in', refused);
  shows('the pages offer the provider', await new Browser().step(`${pages}/`), 401, `Sign in with 127.0.0.1:${idpPort}`);

  const nobody = await signIn(new Browser(), 'ada');
  shows('an account that is nobody here is told which it is', nobody, 403, 'You are nobody here yet', `--issuer ${idp.issuer} --subject ada`);
  const ada = await avouch('person', 'sign-in', '--issuer', idp.issuer, '--subject', 'ada');
  equal('who is there says as which account', [ada.issuer, ada.subject, ada.name], [idp.issuer, 'ada', 'Ada Example']);
  await avouch('person', 'add', 'Ben Example', '--issuer', idp.issuer, '--subject', 'ben', '--security');
  const taken = await avouch('person', 'add', 'Eve Example', '--issuer', idp.issuer, '--subject', 'ben').catch((error) => error.message);
  check('no two people have one account', taken.includes('already'), 'a refusal', taken);

  for (const [login, name] of [['ada', 'Ada Example'], ['ben', 'Ben Example']]) {
    const browser = new Browser();
    const seen = await signIn(browser, login);
    shows(`${login} signs in`, seen, 200, name, `signed in with 127.0.0.1:${idpPort}`);
    equal('  and stays', (await browser.step(`${room(seen)}/identities`)).status, 200);
    equal('  and only in that browser', (await new Browser().step(`${room(seen)}/`)).status, 401);
  }
  const eve = await signIn(new Browser(), 'eve');
  shows('who only has the e-mail address of somebody is nobody', eve, 403, 'You are nobody here yet', '--subject eve');
  check('and no address is shown or taken', !eve.page.includes('@example.org') && !eve.page.includes('Ada'), 'none', eve.page);

  await avouch('person', 'add', 'Cleo Example', '--issuer', idp.issuer, '--subject', 'cleo');
  shows('who waits for a yes is told so', await signIn(new Browser(), 'cleo'), 403, 'You wait for a yes');
}

async function wrongWays() {
  const stop = { halt: isCallback };
  const browser = new Browser();
  const first = await signIn(browser, 'ada', stop);
  const callback = first.to;
  const changed = (change) => {
    const url = new URL(callback);
    change(url.searchParams);
    return url.href;
  };
  shows('a wrong state', await browser.step(changed((p) => p.set('state', '00'.repeat(32)))), 410, 'This sign-in is over');
  shows('no state', await browser.step(changed((p) => p.delete('state'))), 410, 'This sign-in is over');
  shows('and the right one after them', await browser.go(callback), 200, 'Ada Example');
  shows('a second time', await browser.step(callback), 410, 'used already');

  const stolen = (await signIn(browser, 'ada', stop)).to;
  shows('in another browser', await new Browser().step(stolen), 410, 'This browser did not begin it');
  shows('and never again', await browser.step(stolen), 410);

  const one = new URL((await signIn(browser, 'ada', stop)).to);
  const two = new URL((await signIn(browser, 'ada', stop)).to);
  two.searchParams.set('code', one.searchParams.get('code'));
  shows('the code of another flow', await browser.step(two.href), 403, 'invalid_grant');

  for (const [what, change] of [['another provider', (p) => p.set('iss', 'http://127.0.0.1:1')], ['no provider', (p) => p.delete('iss')]]) {
    const url = new URL((await signIn(browser, 'ada', stop)).to);
    change(url.searchParams);
    shows(`an answer of ${what}`, await browser.step(url.href), 403, 'of another provider');
  }
  const denied = await begin(new Browser());
  equal('a form waits', denied.status, 200);
  const no = new Browser();
  const form = await begin(no);
  shows('who says no at the provider', await no.go(form.url, { form: { login: '' } }), 403, 'access_denied');

  shows('another nonce than was sent', await signIn(new Browser(), 'ada', { change: (p) => p.set('nonce', 'another') }), 403, '(nonce)');
  shows('a token that does not say when', await signIn(new Browser(), 'ada', { change: (p) => p.delete('max_age') }), 403, 'auth_time');
  const cross = (site) => browser.step(`${pages}/sign-in/begin`, { headers: { 'sec-fetch-site': site } });
  equal('other sites lead nobody to the provider', [(await cross('cross-site')).status, (await cross('same-site')).status], [403, 403]);
  equal('its own page does', (await cross('same-origin')).status, 303);
  equal('another name of this machine does not', (await browser.step(`http://localhost:${port}/sign-in/begin`)).status, 421);
}

async function forgeries() {
  const now = Math.floor(Date.now() / 1000);
  const forged = async (forge) => {
    idp.forge = forge;
    return signIn(new Browser(), 'ada');
  };
  shows('what the provider signs again unchanged', await forged(() => {}), 200, 'Ada Example');
  for (const [what, text, forge] of [
    ['another issuer', '(iss)', (claims) => { claims.iss = 'http://127.0.0.1:1'; }],
    ['an issuer with a slash', '(iss)', (claims) => { claims.iss += '/'; }],
    ['another audience', '(aud)', (claims) => { claims.aud = 'open'; }],
    ['several audiences and no party', '(azp)', (claims) => { claims.aud = ['avouch', 'open']; delete claims.azp; }],
    ['another party', '(azp)', (claims) => { claims.aud = ['avouch', 'open']; claims.azp = 'open'; }],
    ['an end that is past', '(exp)', (claims) => { claims.exp = now - 120; }],
    ['a birth in the future', '(iat)', (claims) => { claims.iat = now + 600; }],
    ['a sign-in in the future', '(auth_time)', (claims) => { claims.auth_time = now + 600; }],
    ['a sign-in of yesterday', '(auth_time)', (claims) => { claims.auth_time = now - 86_400; }],
    ['no subject', 'claim sub', (claims) => { delete claims.sub; }],
    ['no algorithm', 'its algorithm', (_, header) => { header.alg = 'none'; }],
    ['a symmetric algorithm', 'its algorithm', (_, header) => { header.alg = 'HS256'; }],
    ['an algorithm of another key', 'no key', (_, header) => { header.alg = 'ES256'; }],
    ['another algorithm of the key', 'no key', (_, header) => { header.alg = 'PS256'; }],
    ['a key that there is not', 'no key', (_, header) => { header.kid = 'other'; }],
    ['no key', '(kid)', (_, header) => { delete header.kid; }],
  ]) {
    shows(`a token with ${what}`, await forged(forge), 403, text);
  }
  idp.forge = null;
}

async function freshness() {
  await avouch('identity', 'new', 'coder', '--kind', 'ai-agent', '--env', 'test', '--purpose', 'look-at-pages', '--ends', '30d');
  const browser = new Browser();
  const old = await signIn(browser, 'ada', { ago: 301 });
  shows('a sign-in of five minutes ago is one', old, 200, 'Ada Example');
  const refused = await yes(browser, old);
  shows('but takes no yes', refused, 409, 'sign in again', '/sign-in/begin?fresh=1');
  equal('a pause is never late', (await send(browser, old, 'identity', { name: 'coder', do: 'pause' })).status, 200);
  equal('a resume is', (await send(browser, old, 'identity', { name: 'coder', do: 'resume' })).status, 409);
  const silent = await signIn(browser, 'ada');
  equal('the provider knows them still, and that is as old', (await yes(browser, silent)).status, 409);

  const query = '?fresh=1&to=requests';
  const form = await begin(browser, { query });
  check('who wants it fresh is asked by the provider', form.url.startsWith(`${idp.issuer}/interaction/`), 'its form', form.url);
  const stale = await browser.go(form.url, { form: { login: 'ada', ago: 301 } });
  shows('a provider that does not ask is not believed', stale, 403, 'older than the one that was asked for');
  const fresh = await signIn(browser, 'ada', { query });
  equal('and comes back to where they were', fresh.url, `${room(fresh)}/requests`);
  equal('a yes counts then', (await yes(browser, fresh)).status, 404);
  equal('and a resume does', (await send(browser, fresh, 'identity', { name: 'coder', do: 'resume' })).status, 303);
  equal('of which the identity knows', await world.standing('coder'), 'active');
}

async function signOut() {
  const browser = new Browser();
  const seen = await signIn(browser, 'ben');
  const out = await send(browser, seen, 'sign-out', {});
  const [, url] = out.page.match(/href="([^"]*session\/end[^"]*)"/) ?? [];
  shows('signing out here leads to the provider', out, 200, 'You are signed out here', `Sign out of 127.0.0.1:${idpPort}, too`);
  equal('the session is over', (await browser.step(`${room(seen)}/`)).status, 401);
  const silent = new URL((await browser.step(`${pages}/sign-in/begin`)).to);
  equal('the one at the provider is not', isCallback((await browser.go(silent.href, {}, isCallback)).to ?? ''), true);
  const ask = await browser.go(unescaped(url ?? ''));
  const [, action] = ask.page.match(/action="([^"]*)"/) ?? [];
  const end = await browser.go(action, { form: { xsrf: field(ask.page, 'xsrf'), logout: 'yes' } });
  equal('the provider leads back', [end.url, end.status], [`${pages}/`, 401]);
  check('and asks anew', (await begin(browser)).url.startsWith(`${idp.issuer}/interaction/`), 'its form', 'none');
}

async function rollOver() {
  const [old] = idp.keys;
  await idp.stop();
  idp.rollOver();
  await idp.start();
  // For a few seconds after the last time nobody asks for keys.
  const found = await world.eventually('a sign-in with the new keys', async () => {
    const seen = await signIn(new Browser(), 'ada');
    return seen.status === 200 && seen;
  });
  shows('new keys are found', found, 200, 'Ada Example');
  idp.forge = (_, header) => { header.kid = old.jwk.kid; };
  idp.forgeKey = old;
  shows('and the old ones sign for nobody any more', await signIn(new Browser(), 'ada'), 403, 'no key');
  await idp.stop();
  await idp.start('HS256');
  shows('a provider that signs with the shared secret', await signIn(new Browser(), 'ada'), 403, 'its algorithm');
  await idp.stop();
  await idp.start();
}

async function down() {
  const browser = new Browser();
  const seen = await signIn(browser, 'ada');
  await idp.stop();
  equal('a session needs no provider', (await browser.step(`${room(seen)}/`)).status, 200);
  await restart('avouch', secretLine);
  shows('without it the pages offer it still', await new Browser().step(`${pages}/`), 401, `Sign in with 127.0.0.1:${idpPort}`);
  shows('and say that it is not there', await new Browser().step(`${pages}/sign-in/begin`), 503, "can't be reached", 'avouch --help');
  equal('the command line works', (await avouch('person', 'list')).people.length, 3);
  await idp.start();
  const back = await world.eventually('the provider again', async () => {
    const again = await signIn(new Browser(), 'ada');
    return again.status === 200 && again;
  });
  shows('it is back', back, 200, 'Ada Example');
}

async function otherClients() {
  await restart('open', '');
  shows('a client without a secret, and another algorithm', await signIn(new Browser(), 'ben'), 200, 'Ben Example');
  writeFileSync('wrong', 'another-secret\n', { mode: 0o600 });
  await restart('avouch', `console_client_secret_file = "${process.cwd()}/wrong"`);
  shows('a wrong secret', await signIn(new Browser(), 'ada'), 403, 'invalid_client');
  await restart('avouch', secretLine);
}

async function withTls() {
  const secured = new Idp(await world.freePort(), pages, secret, true);
  await secured.start();
  const line = `${secretLine}\n  console_ca_file = "${process.cwd()}/ca.pem"`;
  await avouch('person', 'sign-in', '--issuer', secured.issuer, '--subject', 'ada');
  await world.restartServer(lines('avouch', line).replace(idp.issuer, secured.issuer));
  const browser = new Browser();
  const form = await begin(browser);
  shows('a provider with TLS', await browser.go(form.url, { form: { login: 'ada' } }), 200, 'Ada Example', new URL(secured.issuer).host);
  await world.restartServer(lines('avouch', `${secretLine}\n  console_ca_file = "${process.cwd()}/other.pem"`).replace(idp.issuer, secured.issuer));
  shows('for which nobody vouches', await begin(new Browser()), 503, "can't be reached", 'certificate');
  await secured.stop();
  await restart('avouch', secretLine);
  await avouch('person', 'sign-in', '--issuer', idp.issuer, '--subject', 'ada');
}

async function leaving() {
  const browser = new Browser();
  const seen = await signIn(browser, 'ada');
  await avouch('person', 'sign-in', '--none');
  equal('who takes an account back ends its sessions', (await browser.step(`${room(seen)}/`)).status, 403);
  shows('and it signs nobody in', await signIn(new Browser(), 'ada'), 403, 'You are nobody here yet');
  const { people: all } = await avouch('person', 'list');
  equal('nobody has it', all.map(({ subject }) => subject).sort(), ['', 'ben', 'cleo']);
}

const secretLine = `console_client_secret_file = "${process.cwd()}/secret"`;
const restart = (client, more) => world.restartServer(lines(client, more));

const begun = Date.now();
try {
  writeFileSync('secret', `${secret}\n`, { mode: 0o600 });
  await idp.start();
  await world.startServer(`console_address = "127.0.0.1:${port}"`);
  await links();
  await restart('avouch', secretLine);
  for (const part of [people, wrongWays, forgeries, freshness, signOut, rollOver, down, otherClients, withTls, leaving]) {
    await part().catch((error) => check(part.name, false, 'a part that ends', error.stack));
  }
} catch (error) {
  check('the suite', false, 'a world to look at', error.stack);
} finally {
  await world.end();
  await idp.stop();
}
console.log(`${faults} faults, in ${((Date.now() - begun) / 1000).toFixed(1)} s`);
process.exit(faults === 0 ? 0 : 1);
