// A private server and node agent, and what happens in them: people, identities, and an AI agent that asks.
import { execFile, spawn } from 'node:child_process';
import { mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { promisify } from 'node:util';

const DEADLINE = 20_000;
/** What a verb exits with that was done and waits for somebody else's yes. */
const PENDING = 5;
const { AVOUCH, SERVER_BIN, AGENT_BIN } = process.env;
const execute = promisify(execFile);
const here = process.cwd();
const [server, agent, admin] = ['private', 'public', 'admin'].map((folder) => `${here}/${folder}/api.sock`);
// A home of its own: what stands in the caller's is none of the suite's.
const env = {
  ...process.env, HOME: `${here}/home`, SPIRE_SERVER_PRIVATE_SOCKET: server, SPIRE_AGENT_PUBLIC_SOCKET: agent,
};
const children = [];

async function endOne(child) {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((done) => child.once('exit', done));
  child.kill('SIGTERM');
  const killer = setTimeout(() => child.kill('SIGKILL'), 12_000);
  await ended;
  clearTimeout(killer);
}

/** Ends what was started, by its own handle, the latest first. */
export async function end() {
  for (const child of children.splice(0).reverse()) await endOne(child);
}

/** Waits until `look` gives something, and gives it. */
export async function eventually(what, look) {
  const deadline = Date.now() + DEADLINE;
  for (let last = ''; Date.now() < deadline; await pause(50)) {
    try {
      const seen = await look();
      if (seen) return seen;
    } catch (error) {
      last = error.message;
    }
    if (Date.now() + 50 >= deadline) throw new Error(`expected ${what} within ${DEADLINE / 1000} s; ${last}`);
  }
}

async function run(program, args) {
  try {
    return (await execute(program, args, { env, cwd: here })).stdout;
  } catch (error) {
    if (error.code === PENDING) return error.stdout;
    throw new Error(`${args.join(' ')}: exit ${error.code}: ${error.stdout}${error.stderr}`);
  }
}

/** What a verb says with --json. Flags come first: what follows `--` belongs to somebody else. */
export async function avouch(...args) {
  return JSON.parse(await run(AVOUCH, ['--json', ...args]));
}

export async function standing(name) {
  const shown = await avouch('identity', 'show', name);
  return shown.standing;
}

function daemon(name, program) {
  const log = openSync(`${here}/${name}.log`, 'a');
  const child = spawn(program, ['run', '-config', `${here}/${name}.conf`], { env, cwd: here, stdio: ['ignore', log, log] });
  children.push(child);
  child.daemon = name;
  return eventually(`${name} that is healthy`, async () => {
    if (child.exitCode !== null) throw new Error(readFileSync(`${here}/${name}.log`, 'utf8').split('\n').slice(-8).join('\n'));
    return run(program, ['healthcheck', '-socketPath', name === 'server' ? server : agent]);
  });
}

export function freePort() {
  return new Promise((done) => {
    const listener = createServer().listen(0, '127.0.0.1', () => {
      const { port } = listener.address();
      listener.close(() => done(port));
    });
  });
}

function configureServer(port, more) {
  writeFileSync('server.conf', `server {
  bind_address = "127.0.0.1"
  bind_port = "${port}"
  trust_domain = "example.org"
  data_dir = "${here}/data"
  socket_path = "${server}"
  ${more}
}
plugins {
  DataStore "sql" { plugin_data { database_type = "sqlite3" connection_string = "${here}/data/store.sqlite3" } }
  KeyManager "disk" { plugin_data { keys_path = "${here}/data/keys.json" } }
  NodeAttestor "join_token" { plugin_data {} }
}
`);
}

let serverPort;

/** A server with one person and nothing else; `more` are lines of its configuration. */
export async function startServer(more = 'console_address = "127.0.0.1:0"') {
  for (const folder of ['home', 'data', 'node']) mkdirSync(`${here}/${folder}`, { mode: 0o700 });
  serverPort = await freePort();
  configureServer(serverPort, more);
  await daemon('server', SERVER_BIN);
  await avouch('init', 'Ada Example');
  return serverPort;
}

/** The same server with other lines. */
export async function restartServer(more) {
  const at = children.findIndex((child) => child.daemon === 'server');
  await endOne(...children.splice(at, 1));
  configureServer(serverPort, more);
  await daemon('server', SERVER_BIN);
}

/** A node on this machine; gives its SPIFFE ID. */
export async function startAgent(port) {
  const ask = (...args) => run(SERVER_BIN, [...args, '-socketPath', server]);
  const { value: token } = JSON.parse(await ask('token', 'generate', '-output', 'json'));
  writeFileSync('bundle.pem', await ask('bundle', 'show'));
  writeFileSync('agent.conf', `agent {
  data_dir = "${here}/node"
  server_address = "127.0.0.1"
  server_port = "${port}"
  trust_domain = "example.org"
  trust_bundle_path = "${here}/bundle.pem"
  socket_path = "${agent}"
  admin_socket_path = "${admin}"
  join_token = "${token}"
}
plugins {
  NodeAttestor "join_token" { plugin_data {} }
  KeyManager "memory" { plugin_data {} }
  WorkloadAttestor "unix" { plugin_data {} }
}
`, { mode: 0o600 });
  await daemon('agent', AGENT_BIN);
  return `spiffe://example.org/spire/agent/join_token/${token}`;
}

export async function identity(name, kind, environment, ...more) {
  const what = ['--kind', kind, '--env', environment, '--purpose', 'look-at-pages', '--ends', '30d'];
  return avouch('identity', 'new', name, ...what, ...more);
}

/** An entry for a name that nobody registered. */
export async function entry(node, path) {
  const what = ['-parentID', node, '-spiffeID', `spiffe://example.org${path}`, '-selector', 'unix:uid:65533'];
  await run(SERVER_BIN, ['entry', 'create', '-socketPath', server, ...what]);
}

const RULE = `
@id("write.asks")
@ask("person")
forbid (principal is AiAgent, action == Action::"tool.call", resource == Tool::"files/write_file")
unless { context.yes.person && context.yes.age <= 900 };
`;
const example = (expect, more) => `
[[example]]
rule = "write.asks"
expect = "${expect}"
request = { kind = "ai_agent", preset = "coding-agent", action = "tool.call", resource = "files/write_file"${more} }
`;

/** A gate in front of tools, of which one takes a person's yes. */
export async function gate() {
  await run(AVOUCH, ['gate', 'add', 'mcp', 'files', '--', process.execPath, `${here}/tools.mjs`]);
  await run(AVOUCH, ['rules', 'show', '--out', `${here}/rules`]);
  writeFileSync('rules/write.cedar', RULE);
  writeFileSync('rules/write.examples.toml', example('ask', '') + example('allow', ', yes = ["person"]'));
  await run(AVOUCH, ['rules', 'publish', `${here}/rules`, '--note', 'writing asks']);
  await eventually('the rules at the node', async () => {
    const { stderr } = await execute(AVOUCH, ['run', 'coder', '--', 'true'], { env, cwd: here });
    return stderr.includes('rules 2');
  });
}

/** An MCP client of the gate in a run of `coder`; gives what a call of `write_file` comes to. */
export async function writer(...more) {
  const command = ['run', 'coder', ...more, '--', AVOUCH, 'gate', 'mcp', 'files'];
  const child = spawn(AVOUCH, command, { env, cwd: here, stdio: ['pipe', 'pipe', 'ignore'] });
  children.push(child);
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const send = (message) => child.stdin.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`);
  let id = 0;
  const ask = async (method, params) => {
    send({ id: (id += 1), method, params });
    for (;;) {
      const { value, done } = await lines.next();
      if (done) throw new Error(`expected an answer to ${method}, but the gate ended`);
      const answer = JSON.parse(value);
      if (answer.id === id) return answer;
    }
  };
  await ask('initialize', { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'c', version: '1' } });
  send({ method: 'notifications/initialized' });
  return async (content, path = 'main.py') => {
    const answer = await ask('tools/call', { name: 'write_file', arguments: { path, content } });
    return answer.result?.content[0].text ?? answer.error.message;
  };
}
