// A provider: oidc-provider as it comes, with two clients and a form that signs in whoever is named there.
import { generateKeyPairSync, sign } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';

import Provider from 'oidc-provider';

/** An address for an account: what a careless client would take for the person. */
const EMAILS = { ada: 'ada@example.org', ben: 'ben@example.org', eve: 'ada@example.org' };

let round = 0;

/** New keys under new names. */
function newKeys() {
  round += 1;
  const jwk = (kind, options, alg) => {
    const { privateKey } = generateKeyPairSync(kind, options);
    return { key: privateKey, jwk: { ...privateKey.export({ format: 'jwk' }), kid: `${alg}-${round}`, use: 'sig', alg } };
  };
  return [jwk('rsa', { modulusLength: 2048 }, 'RS256'), jwk('ec', { namedCurve: 'P-256' }, 'ES256')];
}

export class Idp {
  constructor(port, pages, secret, tls = false) {
    const issuer = tls ? `https://localhost:${port}` : `http://127.0.0.1:${port}`;
    Object.assign(this, { port, pages, secret, tls, issuer });
    this.keys = newKeys();
    /** Changes claims and header of the next ID token, which is signed again: with the provider's own key, or another. */
    this.forge = null;
    this.forgeKey = null;
  }

  /** Client `avouch` has a secret, `open` has none. */
  configuration(algorithm) {
    const client = {
      redirect_uris: [`${this.pages}/signed-in`],
      post_logout_redirect_uris: [`${this.pages}/`],
      grant_types: ['authorization_code'],
      response_types: ['code'],
    };
    return {
      clients: [
        { ...client, client_id: 'avouch', client_secret: this.secret, id_token_signed_response_alg: algorithm },
        { ...client, client_id: 'open', token_endpoint_auth_method: 'none', id_token_signed_response_alg: 'ES256' },
      ],
      jwks: { keys: this.keys.map(({ jwk }) => jwk) },
      enabledJWA: { idTokenSigningAlgValues: ['RS256', 'ES256', 'HS256', 'PS256'] },
      ttl: { Interaction: 600, Grant: 3600, Session: 3600, AccessToken: 600, IdToken: 600 },
      cookies: { keys: ['a key of a test'] },
      claims: { openid: ['sub', 'email'] },
      conformIdTokenClaims: false,
      features: { devInteractions: { enabled: false } },
      interactions: { url: (_, { uid }) => `/interaction/${uid}` },
      findAccount: (_, sub) => ({ accountId: sub, claims: () => ({ sub, email: EMAILS[sub], email_verified: true }) }),
      // Nobody is asked whether this server may know who they are.
      async loadExistingGrant(ctx) {
        const { client: { clientId }, session: { accountId } } = ctx.oidc;
        const grant = new ctx.oidc.provider.Grant({ clientId, accountId });
        grant.addOIDCScope('openid');
        await grant.save();
        return grant;
      },
    };
  }

  async start(algorithm = 'RS256') {
    const provider = new Provider(this.issuer, this.configuration(algorithm));
    provider.use(async (ctx, next) => {
      await next();
      if (ctx.path === '/token' && ctx.body?.id_token) {
        if (this.forge) ctx.body.id_token = this.forged(ctx.body.id_token);
        this.forge = null;
        this.forgeKey = null;
      }
    });
    const serve = (request, answer) => {
      if (request.url.startsWith('/interaction/')) this.interaction(provider, request, answer);
      else provider.callback()(request, answer);
    };
    const tls = () => ({ cert: readFileSync('idp.pem'), key: readFileSync('idp.key') });
    this.server = this.tls ? createTlsServer(tls(), serve) : createServer(serve);
    await new Promise((done) => this.server.listen(this.port, '127.0.0.1', done));
  }

  async stop() {
    const closed = new Promise((done) => this.server.close(done));
    this.server.closeAllConnections();
    await closed;
  }

  rollOver() {
    this.keys = newKeys();
  }

  forged(token) {
    const [header, claims] = token.split('.').slice(0, 2).map((part) => JSON.parse(Buffer.from(part, 'base64url')));
    this.forge(claims, header);
    const signed = [header, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.');
    return `${signed}.${sign('RSA-SHA256', signed, (this.forgeKey ?? this.keys[0]).key).toString('base64url')}`;
  }

  /** Shows a form, and signs in whom it names: now, or `ago` seconds ago. */
  async interaction(provider, request, answer) {
    try {
      const { prompt } = await provider.interactionDetails(request, answer);
      if (request.method !== 'POST') {
        answer.setHeader('content-type', 'text/html');
        answer.end(`<form method="post"><!-- ${prompt.name} --><input name="login"></form>`);
        return;
      }
      let body = '';
      for await (const part of request) body += part;
      const form = new URLSearchParams(body);
      const ts = Math.floor(Date.now() / 1000) - Number(form.get('ago') ?? 0);
      const result = form.get('login') ? { login: { accountId: form.get('login'), ts } } : { error: 'access_denied' };
      await provider.interactionFinished(request, answer, result, { mergeWithLastSubmission: false });
    } catch (error) {
      answer.statusCode = 500;
      answer.end(String(error));
    }
  }
}
