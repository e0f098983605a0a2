// An OpenID provider for tests, on loopback. It prints its issuer when it
// listens, and ends with its standard input.
//
// OIDC is a JSON object:
//
//	clients     client metadata of OpenID Connect Dynamic Client Registration
//	clock       seconds by which this provider's clock is ahead (default 0)
//	access      seconds that an access token is valid (default 600)
//
// A user is whoever types a name: the subject is that name. With "second
// factor" the acr is "two", without it "one". "ago" is how many seconds ago the
// user did it.
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import Provider, { interactionPolicy } from 'oidc-provider';

const { clients, clock = 0, access = 600 } = JSON.parse(process.env.OIDC);

const machine = Date.now;
Date.now = () => machine() + clock * 1000;

const jwk = (type, options, kid) => ({
  ...generateKeyPairSync(type, options).privateKey.export({ format: 'jwk' }), kid, use: 'sig',
});

// A login that asks for an acr goes on only with one of those.
const policy = interactionPolicy.base();
policy.get('login').checks.add(new interactionPolicy.Check('acr_values', 'another acr is asked for', (ctx) => {
  const { params, session, acr } = ctx.oidc;
  const asked = params.acr_values?.split(' ');
  return Boolean(asked && session.accountId && !asked.includes(acr));
}));

const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients,
    jwks: { keys: [jwk('rsa', { modulusLength: 2048 }, 'rsa'), jwk('ec', { namedCurve: 'P-256' }, 'ec')] },
    cookies: { keys: [randomBytes(32).toString('hex')] },
    acrValues: ['one', 'two'],
    claims: { openid: ['sub', 'sid', 'acr', 'amr'], profile: ['name'] },
    conformIdTokenClaims: false, // the ID token has all of them
    features: {
      devInteractions: { enabled: false },
      backchannelLogout: { enabled: true },
      rpInitiatedLogout: {
        enabled: true,
        logoutSource: (ctx, form) => {
          ctx.body = page('Sign out', `${form}<button id="confirm" form="op.logoutForm" name="logout" value="yes">Sign out of all</button>`);
        },
        postLogoutSuccessSource: (ctx) => { ctx.body = page('Signed out', '<p id="signed-out">Signed out</p>'); },
      },
    },
    interactions: { policy, url: (ctx, interaction) => `/interaction/${interaction.uid}` },
    findAccount: (ctx, sub) => ({ accountId: sub, claims: () => ({ sub, name: `User ${sub}` }) }),
    rotateRefreshToken: true,
    renderError: (ctx, out) => { ctx.type = 'html'; ctx.body = page('Error', `<p id="error">${out.error}</p>`); },
    pkce: { required: () => true },
    ttl: {
      AccessToken: access, AuthorizationCode: 60, Grant: 86400, IdToken: 600, Interaction: 600, RefreshToken: 86400, Session: 86400,
    },
    // The dispatcher of its requests refuses loopback addresses.
    fetch: (url, options) => {
      delete options.dispatcher;
      return fetch(url, options);
    },
  });
  for (const event of ['server_error', 'backchannel.error', 'grant.error', 'authorization.error']) {
    provider.on(event, (...args) => console.error(event, ...args.filter((a) => a instanceof Error).map(String)));
  }
  provider.on('grant.success', (ctx) => console.error('grant', ctx.oidc.params.grant_type));
  const callback = provider.callback();
  server.on('request', async (req, res) => {
    const path = new URL(req.url, issuer).pathname;
    if (!path.startsWith('/interaction/')) {
      callback(req, res);
      return;
    }
    try {
      await interact(provider, req, res);
    } catch (err) {
      console.error('interaction', String(err));
      res.writeHead(400).end('no login here');
    }
  });
  console.log(issuer);
});

// interact shows the form of a login, takes it, and agrees to what is asked.
async function interact(provider, req, res) {
  const { prompt, params, session } = await provider.interactionDetails(req, res);
  if (prompt.name === 'consent') {
    const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
    grant.addOIDCScope(params.scope);
    await provider.interactionFinished(req, res, { consent: { grantId: await grant.save() } }, { mergeWithLastSubmission: true });
    return;
  }
  if (req.method !== 'POST') {
    res.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8', 'Cache-Control': 'no-store' });
    res.end(page('Sign in', `<form method="post">
      <input id="user" name="user" autofocus>
      <input id="ago" name="ago" value="0">
      <label><input id="second" type="checkbox" name="second" value="yes"> second factor</label>
      <button id="login">Sign in</button></form>`));
    return;
  }
  let body = '';
  for await (const chunk of req) body += chunk;
  const form = new URLSearchParams(body);
  const second = form.get('second') === 'yes';
  await provider.interactionFinished(req, res, {
    login: { accountId: form.get('user'), acr: second ? 'two' : 'one', amr: second ? ['pwd', 'otp'] : ['pwd'], ts: Math.floor(Date.now() / 1000) - Number(form.get('ago')) },
  }, { mergeWithLastSubmission: false });
}

function page(title, body) {
  return `<!doctype html><html lang="en"><title>${title}</title><body>${body}</body></html>`;
}

process.stdin.resume();
process.stdin.on('end', () => process.kill(process.pid, 'SIGKILL')); // process.exit can hang in Node 20
