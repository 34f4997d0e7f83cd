// A browser without a screen: it keeps cookies by host and path, follows where it is led, and sends forms as a page does.
export class Browser {
  constructor() {
    this.jar = new Map();
  }

  cookies(url) {
    const { hostname, pathname } = new URL(url);
    const fits = ({ host, path }) => host === hostname && (pathname === path || pathname.startsWith(path.endsWith('/') ? path : `${path}/`));
    return [...this.jar.values()].filter(fits).map(({ name, value }) => `${name}=${value}`).join('; ');
  }

  keep(url, header) {
    const [pair, ...rest] = header.split(';').map((part) => part.trim());
    const [name, value] = [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)];
    const facts = new Map(rest.map((part) => part.split('=')).map(([key, text]) => [key.toLowerCase(), text ?? '']));
    const { hostname: host } = new URL(url);
    const path = facts.get('path') || '/';
    const gone = facts.get('max-age') === '0' || (facts.has('expires') && new Date(facts.get('expires')) < new Date());
    const key = `${host} ${path} ${name}`;
    if (gone) this.jar.delete(key);
    else this.jar.set(key, { host, path, name, value });
  }

  /** One step. */
  async step(url, { form, headers = {} } = {}) {
    const answer = await fetch(url, {
      method: form ? 'POST' : 'GET',
      body: form && new URLSearchParams(form).toString(),
      redirect: 'manual',
      headers: {
        cookie: this.cookies(url),
        ...(form && { 'content-type': 'application/x-www-form-urlencoded', origin: new URL(url).origin }),
        ...headers,
      },
    });
    answer.headers.getSetCookie().forEach((header) => this.keep(url, header));
    const to = answer.headers.get('location');
    return { url, status: answer.status, to: to && new URL(to, url).href, page: await answer.text(), headers: answer.headers };
  }

  /** Step by step until something stays, or until `halt` says so of where it leads. */
  async go(url, options = {}, halt = () => false) {
    let seen = await this.step(url, options);
    for (let hops = 0; seen.to && !halt(seen.to); hops += 1) {
      if (hops > 15) throw new Error(`expected an end of the way, came to ${seen.to}`);
      seen = await this.step(seen.to);
    }
    return seen;
  }
}

const NAMES = { amp: '&', lt: '<', gt: '>', quot: '"' };

export function unescaped(text) {
  return text.replace(/&(?:#(\d+)|(\w+));/g, (whole, code, name) => (code ? String.fromCodePoint(Number(code)) : NAMES[name] ?? whole));
}

/** The value of the first field of a name in a page. */
export function field(page, name) {
  return unescaped(page.match(new RegExp(`name="${name}"[^>]*value="([^"]*)"`))?.[1] ?? '');
}
